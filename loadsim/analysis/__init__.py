"""What does it mean? Pure: a recording in, numbers and sentences out.

    ledger     every attempt accounted for: fate by outcome, and the join of client and server rows
    measure    the metrics of one run
    growth     everything against the growing fd table
    diagnosis  findings: cause, evidence, remedy
    summary    all of it in one value, which is what summary.json holds
    explain    what each finding, fate, outcome and metric means

Must not know how a recording was made, nor how a summary is shown: no socket, clock, process or file.
"""
