"""What does one live process hold? Its descriptors and sockets in one joined view.

    targets   which processes are meant: pid, name, unit, :PORT
    snapshot  takes a look at one of them
    overview  takes a look at all: by share of their limit, and every listener
    model     what a look shows, as values: rows, both ends, the process
    index     the sockets of a namespace by inode, by ends, by port
    join      descriptors and sockets as rows
    closing   what closing a row would do
    choice    which rows to list, in which order
    groups    many rows as a few groups, with their change
    suspects  what is wrong, and what helps
    events    what happened between two looks, and the pace
    watch     looks again and again
    lessons   what there is to learn from it, and how to see it by hand
    incident  a scenario from two looks
    document  all of it for machines
    schema    the JSON Schema of that

`targets`, `snapshot`, `overview` and `watch` read the world, through `kernel`; all else is pure. Must not know
scenarios or results, nor how it is shown. Imports the standard library alone, so that it starts at once on a host in
trouble.
"""
