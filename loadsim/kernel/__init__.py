"""The state of Linux: processes, sockets, limits and events. Reads only.

    procfs        one process: descriptors, limits, CPU, memory; TCP counters
    processes     all processes, and one process tree read as a unit
    fds           open descriptors and the kind of each
    sockdiag      a listener's accept queue and the TCP table, by netlink
    sockets       every TCP, UDP and unix socket of a namespace, without numpy
    limits        RLIMIT_NOFILE, sysctls and the host
    perf          EMFILE of any process, counted by the kernel
    accept_trace  accept latency of any server, by tracepoints
    timing        timerfd and scheduler slices
    libc          system calls that Python 3.11 lacks

Must not know about runs, records or the meaning of a number.
"""
