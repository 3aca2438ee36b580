"""How is a server reached? Simulated, a command, or one that is already running.

    target     the protocol of all of them
    simulated  the conductor's side of the simulated server
    command    a command, started and ended by loadsim
    attached   a running server, only observed
    address    where and when a server listens
    observed   the kernel's view of a server without records

A server that was already running is never started, limited, stopped or ended.
"""
