"""What is the simulated server? Its own process, with descriptors and a listen queue to run out of.

    server       the process: limits, listener, control channel
    acceptor     the accept loop, and what follows a failure
    accepting    taking connections, each with its record
    connections  serving and closing
    policy       what leaks, and what EMFILE leads to (pure)

Imports the standard library, trio, and a list of modules that `tests/test_layers.py` holds: a thread of numpy would
stall the growth of the descriptor table.
"""
