"""What does one live process hold? Its descriptors and sockets in one joined view.

    snapshot  takes a look: the only module here that reads /proc, through `kernel`
    model     what a look shows, as values: rows, both ends, the process
    index     the sockets of a namespace by inode, by ends, by port (pure)
    join      descriptors and sockets as rows (pure)
    closing   what closing a row would do (pure)

Must not know scenarios or results, nor how it is shown. Imports the standard library alone, so that it starts at once
on a host in trouble.
"""
