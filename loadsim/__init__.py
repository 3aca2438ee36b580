"""loadsim: what a TCP server does when its file descriptors run out, on the real Linux kernel.

The house, from the top down; a module imports only from below it, and folders on one line do not import each other:

    commands                     one file per command: options, help, what it does
    run                          the conductor: target, load, sampler and recording meet here
    report   target   load       how it is shown, what is under test, what hits it
    analysis                     what it means (pure)
    record                       what happened: the narrow waist
    scenario   kernel            what is to be run (pure), what Linux says
    metrics                      names and definitions of the numbers
    exchange   units   errors   control   interrupt   fates
"""

__version__ = "0.1.0"
