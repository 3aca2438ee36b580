"""Descriptors and sockets of one live process, or of this host, in one joined view.

    targets    the processes that a target names: pid, name, unit, port
    snapshot   one process at one moment
    model      its rows and both ends of each connection, as values
    join       descriptors joined with the socket table
    groups     many descriptors as a few groups; filter and order of rows
    diagnosis  problems, remedies, and the effect of closing a descriptor
    text       one process on a terminal
    overview   all processes and listeners
    watch      a process sampled over time
    incident   a scenario that reproduces what a process shows
    document   JSON and its schema

It only reads. It imports only the kernel readers and the drawing layer, so it starts on a host in trouble.
"""
