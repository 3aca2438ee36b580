"""loadsim shows what a TCP server does when its file descriptors run out, on the real Linux kernel.

The folders from the top down. A module imports only from lines below its own; folders on one line do not import each
other:

    commands                                   one file per command: options, help, actions
    compare  verdict  inspect                  sweeps and comparisons; class and grade of a server; a live process
    run                                        the conductor: starts target, drivers and sampler, and records
    render  targets  driver  simulated         output; ways to reach a server; the load; the simulated server
    analysis                                   recording to summary and findings (pure)
    record                                     the records of a run: what all folders above share
    scenario  process                          scenario, plan and prediction (pure); child processes
    kernel                                     what Linux reports, read only
    metrics                                    names and definitions of the numbers
    exchange  fates  units  errors  interrupt
"""

__version__ = "0.1.0"
