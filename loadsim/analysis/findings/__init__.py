"""What went wrong, and what helps? Each module detects findings of one kind and owns their texts.

    case         the types: a run to diagnose, a rule, a finding
    registry     all findings by id and rank, the findings of one run, and the explanation of any id
    run          findings about the run: interrupted, unbalanced, settings not in force
    generator    findings about the load generator and the host as the limit
    descriptors  findings about the descriptor limit: a leak, or an honest load
    exhaustion   findings about the cost of missing descriptors
    queue        findings about a full accept queue
    acceptor     findings about a server that accepts too slowly or in bursts
    recovery     findings about outages and about the server once descriptors are free again

A rule returns the texts that depend on the run. The definition of a finding holds everything else: its id, the ranks of
its rules, and the texts of `loadsim explain`.
"""
