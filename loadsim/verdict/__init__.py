"""What does any server do at its limit? Trials, observations, class, grade, card.

    trials     the ways to run out of descriptors, as scenarios
    run        all runs of a verdict
    observe    from a recording to the numbers of a verdict
    classify   class and grade
    card       the card on a terminal
    reproduce  a script that shows the same without loadsim

A class is decided from what was observed; a grade from what it costs.
"""
