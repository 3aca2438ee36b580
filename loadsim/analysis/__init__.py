"""What does it mean? Pure: a recording in, numbers and sentences out.

    judge       the whole of it: `summarise`, and the verdict
    summary     the shapes of the result, which is what summary.json holds
    view        a recording and what the rest is computed from: clock, ledger, accept queue
    ledger      every attempt accounted for: fate by outcome
    join        which accept record belongs to which attempt
    waits       the accept queue over time: who waited how long, how full it was, when nothing moved
    latencies   connect and accept latencies, each with the moment at which it was known
    histogram   latencies counted as HdrHistogram counts them
    clock       the moments between which a run is judged
    columns     fields of records as plain arrays
    measure     the metrics of one run
    descriptors the server's part of them: fds.*, emfile.*
    generator   the load's own part of them: generator.*
    growth      everything against the growing fd table
    timeline    the run in equal steps, with marks
    prediction  what the plan foretold beside what was measured
    syn         when the kernel sends a SYN again
    diagnosis   findings in order: cause, evidence, remedy; each is made by one of the `rules`
    explain     what each finding, fate, outcome and metric means; the words stand in `texts`
    texts       where to look and what to do, for each of them

Must not know how a recording was made, nor how a summary is shown: no socket, clock, process or file.
"""
