"""How is a server reached? Simulated, a command, or one that is already running.

    target     what the conductor asks of any of them
    simulated  the conductor's side of the simulated server
    command    a command, started and ended
    attached   a running server, only observed
    address    where it listens, and when
    observed   what the kernel shows of a server without records

A server that was already running is never started, limited, stopped or ended.
"""
