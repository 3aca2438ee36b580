"""What does Linux say? Read-only, but for what starts something: `netns`, `launch`, `partner`, `tree`, `visit`.

    procfs     one process: open descriptors, limits, CPU time, memory
    followed   several processes read as one: who holds a listener, and what all of them take
    fdtable    its descriptors joined with the kernel's TCP table: what each one is
    sockdiag   sock_diag by hand: a listener's accept queue, the TCP table
    sockets    every TCP, UDP and unix socket of a namespace, without numpy
    procnet    the same from /proc/PID/net, where sock_diag may not go
    descriptors what the open descriptors of one process are
    processes  all processes: their names, and the holders of a given socket
    visit      a sock_diag socket of another process's network namespace
    counters   the TCP counters of a network namespace
    limits     RLIMIT_NOFILE, sysctls and the host, as plain values
    netns      a private network namespace, kept by a holder process
    holder     what that process does (runs without site-packages)
    refusals   why there is no such namespace, or a sysctl is not in force, in words (pure)
    launch     children under limits and in a namespace, which never outlive the conductor
    partner    a child of ours that takes orders over a control channel
    part       what that child runs: its part, and how it ends
    tree       any command and all that descends from it: started, and ended to the last process
    supervisor the process in between, which adopts whoever detaches (runs without site-packages)
    emfile     how often accept() failed with EMFILE in such a tree, counted in the kernel
    accepts    when each connection entered the accept queue and left it, by tracepoints
    perf       perf_event_open by hand, which both of them need
    tracefs    the numbers of tracepoints
    enter      what becomes of such a child before it executes its command (runs without site-packages)
    scheduler  how the scheduler treats the calling thread
    timerfd    a timer that epoll can wait for, to the microsecond
    libc       the calls that Python 3.11 does not have

Must not know what is run (`scenario`), what is recorded (`record`) or what a number means (`analysis`). Everything
here is imported by the server or a driver, or by a process that starts one: the standard library and trio alone, and
numpy only inside the dump of a whole table.
"""
