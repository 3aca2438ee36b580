"""What went wrong, and what helps? Each module looks for findings of one kind and owns their texts.

    case         what a rule gets and returns, and what a finding is
    registry     all findings by id and rank, those of one run, and what any id means
    run          the run itself: interrupted, unbalanced, settings not in force
    generator    the load generator or a busy host as the limit
    descriptors  the limit: a leak, or an honest load
    exhaustion   what missing descriptors cost
    queue        a full accept queue
    acceptor     a server that accepts too slowly or in bursts
    recovery     what happened after the relief

A rule returns what varies; a finding owns the rest: id, rank and the texts of `loadsim explain`.
"""
