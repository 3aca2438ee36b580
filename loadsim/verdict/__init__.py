"""What does any server do at its limit? Trials, observations, class, grade, card.

    trials     the trials that exhaust the descriptors of a command, as scenarios
    run        all runs of a verdict, and its folder
    observe    from a recording to the numbers of one run
    classify   class and grade
    card       the card on a terminal
    reproduce  a script that reproduces the behaviour without loadsim

The class follows from the numbers of the runs, the grade from the costs of the behaviour.
"""
