"""How does a run go? Where target, load, sampler and recording meet.

    conductor  the order of a run, above all of its end
    setup      namespace, target, drivers, sampler, opened in order
    steps      the timeline, step by step
    sampler    samples of the target, 100 times per second
    signals    SIGINT, SIGTERM and SIGHUP at each moment
    host       this host's limits, and the permissions of the command line

Owns the order of a run: another order changes the fates.
"""
