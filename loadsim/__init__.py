"""loadsim: what a TCP server does when its file descriptors run out, on the real Linux kernel.

The house, from the top down. A module imports only from below it, and folders on one line do not import each other:

    commands                              one file per command: options, help, what it does
    compare  verdict  inspect             what people ask for by one word, each in one folder
    run                                   the conductor: target, load, sampler and recording meet here
    render  targets  driver  simulated    how it is shown; how a server is reached; two processes under measurement
    analysis                              what it means (pure)
    record                                what happened: the narrow waist
    scenario  process                     what is to be run (pure); how processes are started and ended
    kernel                                what Linux says
    metrics                               names and definitions of the numbers
    exchange  fates  units  errors  early_signals
"""

__version__ = "0.1.0"
