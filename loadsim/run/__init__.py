"""How does a run go? The only place where target, load, sampler and recording meet.

    conductor   the order of a run, above all of its end
    interruption what a signal means at each moment of a run
    options     what the command line says of it
    destination may the load go there? loopback, or what the command line permits
    host        the limits of this host that a plan needs
    stage       what is on stage: namespace, server, drivers, readings; opened and closed here
    timeline    the steps that change something while a run goes on
    verdict     a command run out of descriptors in every way, and judged
    sweep       many runs, one after the other, and what they say together
    gather      from folders to a comparison
    monitor     the numbers of a run that is going on, for the view and for `abort`

Must not know how a number is shown, nor compute one that a report would show: that is `analysis`, from the records.
"""
