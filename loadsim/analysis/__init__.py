"""What does a run mean? Pure functions turn a recording into numbers and sentences.

    dataset       one recording, and what is derived from it once and used by all others
    clock         start, end and judgement of a run, and the steps that made room
    join          which accept record belongs to which attempt
    ledger        one fate and one outcome for each attempt; the sums must balance
    accept_queue  waits in the accept queue, its length, and pauses of accepting
    descriptors   open descriptors, leaks, and everything per band of the growing table
    latency       latencies, counted as HdrHistogram does
    host          times in which a process waited for a CPU
    recovery      results of the canary and of the held clients
    measure       all metrics of a run, and the prediction beside them
    series        the run as lines of a chart
    buckets       the run in equal steps of time, with its marks, for the terminal
    summary       the result of the analysis: `summary.json`
    judge         calls all of them and returns the summary

It must not read a file, a clock or the kernel. Sentences about a run belong to `findings`.
"""
