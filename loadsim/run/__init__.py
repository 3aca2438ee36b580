"""How does a run go? Where target, load, sampler and recording meet.

    conductor  the order of a run, above all of its end
    setup      namespace, target, drivers, sampler, opened in order
    steps      the timeline, step by step
    sampler    the kernel's view, 100 times per second
    signals    SIGINT, SIGTERM and SIGHUP at each moment
    host       this host's limits, and what only the command line may permit

Owns the order of a run: another order would change the fates.
"""
