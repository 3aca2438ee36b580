"""What hits it? Clients that connect on schedule, in processes of their own.

    demand       which attempt is to start when: open loop, closed loop (pure, `now` is an argument)
    attempt      one connection of a client and its record, and the stages in which it waits
    connections  the open connections: what each says, what it waits for, how it ends
    engine       the epoll engine: one trio task that starts, watches and ends them all
    driver       the process around the engine: limits, journal, control channel
    held         a few connections that stay, and are asked on again and again; a process of its own
    process      the conductor's side of that process

Must not know what is under test, what a number means, or how it is shown. All but `process` live in the driver, which
imports neither numpy nor pydantic nor rich.
"""
