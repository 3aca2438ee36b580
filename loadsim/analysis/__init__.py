"""What does a run mean? Pure functions turn a recording into numbers and sentences.

    dataset       one recording, and what is derived from it once and used by all others
    clock         the moments of a run, and the queue capacity at each
    join          which accept record belongs to which attempt
    ledger        one fate and one outcome for each attempt; the sums must balance
    accept_queue  waits in the accept queue, its length, and pauses of accepting
    descriptors   open descriptors, leaks, and everything per band of the growing table
    latency       latencies, counted as HdrHistogram does
    host          times in which a process waited for a CPU
    canary        what the canary and the held clients saw
    recovery      whether a relief ended an outage, and how long the server took
    metrics       all metrics of a run, and the prediction beside them
    series        the run over time, for charts and for the terminal
    summary       the result of the analysis: `summary.json`
    judge         calls all of them and returns the summary

It must not read a file, a clock or the kernel. Sentences about a run belong to `findings`.
"""
