"""What is the load? The process of a driver, with clients that connect on schedule.

    driver       the process: its limits, its journal, its control channel
    engine       one trio task over one epoll descriptor
    connections  open connections, their stages and their ends
    attempt      one open connection and its record
    schedule     the start times of attempts
    held         clients that connect early, stay, and send requests periodically

Imports the standard library, trio, and only the modules that `tests/test_layers.py` lists.
"""
