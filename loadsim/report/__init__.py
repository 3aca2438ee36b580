"""How is it shown? Values in, text out.

    terminal   the end of a run: verdict, pictures, tables, findings, what to do next
    picture    its pictures: descriptors and queue over time, the fd table
    verdict    the card of a command that was run out of descriptors
    reproduce  a script that shows the same without loadsim
    comparison several groups of runs: one table, the answer, what differs
    ledger     where every client ended, beside what it saw
    growth     how long it took, and everything against the growing fd table
    findings   what happened, in sentences; predicted and measured; what was expected
    progress   a run as it goes, as plain numbers
    live       the same on a terminal, redrawn
    plain      the same as lines
    rounds     a sweep as it goes: a line for each run
    views      who watches, by name
    page       a run, or a comparison, as one HTML file
    inspection a live process, or all of them
    markdown   the same in short, for job summaries and pull requests
    junit      thresholds as test cases
    files      the derived files of a result folder: the samples as CSV, latencies in HdrHistogram's formats
    next_steps commands worth trying after a run
    figures    numbers as text, where several reports show the same
    drawing    lines on a terminal: what it can show, styles, bars; used by all commands
    text       foreign text made harmless; columns, wrapping, clipping

Must not compute: every number comes from `analysis.summary`, `scenario.plan` or `progress`; only columns and
characters are counted here.
"""
