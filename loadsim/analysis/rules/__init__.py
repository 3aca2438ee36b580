"""What went wrong, and what to do? Rules: each looks at one run and finds one thing, or nothing.

    definition  what a finding is: id, rules with their rank, and what `loadsim explain` says of it
    registry    all findings, by id and by rank
    case        what a rule looks at and what it returns
    room        how many descriptors there were for clients, and how fast they went
    need        how many clients there would have been at once without the exhaustion
    leaks       the limit: used up by a leak, or by an honest load
    exhaustion  a server without descriptors: clients, handlers, CPU
    acceptor    a server that accepts too slowly, or in bursts
    overflow    a full accept queue, and what its clients met
    generator   a load that its own generator held back
    conduct     the run itself: did it end, do the books balance, what else is there to know

Each module of rules ends with its findings. Must not know how a finding is shown.
"""
