"""What is under test? A simulated TCP server, with a listen queue and descriptors to run out of, or any other.

    contract     what the conductor asks of each of them
    command      any command: started, waited for, followed, ended
    running      a server that runs already: looked at, and nothing else
    whereabouts  where that is, and whether its sockets can be seen
    readiness    when a command is ready, and in words why it is not
    watched      what these two have in common: others write down what is seen of them
    sightings    what the kernel shows of them, written down
    output       what it prints: counted, its beginning and its end kept

    policy       what accept() does when descriptors run out, and which connections leak (pure)
    books        what the server writes down: accepts, failures, counters
    intake       taking connections from the accept queue, each with its record: the hot path
    connections  what an accepted connection is told, and when it is closed
    acceptor     the loop: one epoll descriptor, delays, pauses, and what to do when accept() fails
    server       the process around them: limits, listener, control channel
    process      starting such a process, waiting for it to be ready, stopping it

Must not know who connects to it, nor what its records will mean. `server` and all that it imports are the standard
library and trio: another thread would share the descriptor table under test.
"""
