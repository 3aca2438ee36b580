"""What does one live process hold, or this host? Descriptors and sockets in one joined view.

    targets    which processes are meant: pid, name, unit, port
    snapshot   one reading of a process
    model      its rows and both ends of each connection, as values
    join       descriptors joined with the socket table
    groups     many descriptors as a few groups; choice and order of rows
    diagnosis  what is wrong, what helps, what closing would do
    text       one process on a terminal
    overview   all processes and listeners
    watch      a process over time
    incident   a scenario from what a process shows
    document   JSON and its schema

Only reads. Imports the kernel's view and the drawing layer: it must start on a host in trouble.
"""
