"""What does Linux say? Reads only.

    procfs        one process: descriptors, limits, CPU, memory; TCP counters
    processes     all processes, and those of one tree read as one
    fds           open descriptors, and what each one is
    sockdiag      a listener's accept queue and the TCP table, by netlink
    sockets       every TCP, UDP and unix socket of a namespace, without numpy
    limits        RLIMIT_NOFILE, sysctls and the host
    perf          EMFILE of any process, counted by the kernel
    accept_trace  accept latency of any server, by tracepoints
    timing        timerfd, and slices of the scheduler
    libc          system calls that Python 3.11 lacks

Must not know what is run, what is recorded, or what a number means.
"""
