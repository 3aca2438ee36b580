"""What does it mean? Pure: a recording in, numbers and sentences out.

    judge       the whole of it: `summary_of`, and the verdict
    summary     the shapes of the result, which is what summary.json holds
    view        a recording and what the rest is computed from: clock, ledger, accept queue
    ledger      every attempt accounted for: fate by outcome
    foreign     where clients of a server ended that writes no records
    join        which accept record belongs to which attempt
    waits       the accept queue over time: who waited how long, how full it was, when nothing moved
    capacity    how many connections the accept queue holds, over time
    bounds      how long clients of a server waited for accept() that writes no records: at least and at most
    latencies   connect and accept latencies, each with the moment at which it was known
    histogram   latencies counted as HdrHistogram counts them
    clock       the moments between which a run is judged
    columns     fields of records as plain arrays
    measure     the metrics of one run
    descriptors the server's part of them: fds.*, emfile.*
    verdict     what a command does when its descriptors run out: its class
    grade       what that is worth: the verdict on all its runs
    observe     a recording as the numbers that a verdict stands on
    relief      which steps made room, whether the server was down then, and when it answered again
    watch       what the canary saw: canary.*, recovery.*, held.*
    generator   the load's own part of them: generator.*
    host        the part of the host: times in which a process was ready to run and got no CPU
    growth      everything against the growing fd table
    timeline    the run in equal steps, with marks
    prediction  what the plan foretold beside what was measured
    comparison  the shapes of several groups of runs side by side: what comparison.json holds
    contrast    the whole of that: groups of runs in, a comparison out
    sides       one group of runs as it enters a comparison
    compare     every metric in every group, and which differ
    statistics  intervals, the rank test, the correction for many comparisons
    gates       "accept.p99 +10%": what may not change
    headings    which metrics people read first
    answer      what a swept number should be, and what less costs
    curves      the latencies of many runs as percentile curves
    outlook     what can be said of a sweep before it starts
    series      one run as lines over time, for charts
    schema      the JSON Schemas of summary.json and comparison.json

    syn         when the kernel sends a SYN again
    diagnosis   findings in order: cause, evidence, remedy; each is made by one of the `rules`
    explain     what each finding, fate, outcome and metric means

Must not know how a recording was made, nor how a summary is shown: no socket, clock, process or file.
"""
