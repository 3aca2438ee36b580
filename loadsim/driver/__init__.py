"""What is the load? The process of a driver: clients that connect on schedule.

    driver       the process: its limits, its journal, its control channel
    engine       one trio task over one epoll descriptor
    connections  open connections: what each waits for, and how it ends
    attempt      one connection while it lives
    schedule     which attempts start when
    held         clients that connect early, stay, and keep asking

Imports the standard library, trio, and a list of modules that `tests/test_layers.py` holds.
"""
