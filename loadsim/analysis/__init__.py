"""What does it mean? Pure: a recording in, numbers and sentences out.

    dataset       one recording, and what the rest of this folder is computed from, derived once
    clock         the moments between which a run is judged, and the steps that made room
    join          which accept record belongs to which attempt
    ledger        one fate and one outcome for every attempt; the sums must balance
    accept_queue  waits in the accept queue, how full it was, when nothing was accepted
    descriptors   open descriptors, leaks, and everything per band of the growing table
    latency       latencies as HdrHistogram counts them
    host          times in which a process waited for a CPU
    recovery      what the canary and the held clients saw
    measure       all metrics of a run, and the prediction beside them
    series        the run as lines of a chart
    buckets       the run in equal steps of time, with its marks, for the terminal
    summary       the result of the analysis: `summary.json`
    judge         the whole analysis of one run

Must not read a file, a clock or the kernel. Sentences belong to `findings`.
"""
