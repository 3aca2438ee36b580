"""How is a run shown? Values in, text out.

    drawing   styled lines on a terminal; standard library only
    text      columns, wrapping, harmless characters
    terminal  the end of a run
    picture   descriptors and queue over time, and the fd table
    tables    the ledger, latencies, growth
    progress  a run in progress, as lines
    live      the same, redrawn in place
    files     the derived files of a result folder
    markdown  job summaries and pull requests
    junit     thresholds as test cases

Must not compute: every number comes from `analysis`.
"""
