"""What is the simulated server? A process with a limited descriptor table and a limited accept queue.

    server       the process: limits, listener, control channel
    acceptor     the accept loop, and its reaction to failures
    accepting    accepting connections, each with its record
    connections  serving and closing connections
    policy       the decisions about leaks and EMFILE (pure)

Imports the standard library, trio, and only the modules that `tests/test_layers.py` lists: a thread of numpy would
stall the growth of the descriptor table.
"""
