"""How is a run shown? Takes values, returns text.

    drawing   styled lines on a terminal; standard library only
    text      columns, wrapping, harmless characters, shared sentences
    terminal  the end of a run
    picture   descriptors and queue over time, and the fd table
    tables    the ledger, latencies, growth
    progress  a run in progress, as lines
    live      a run in progress, redrawn in place
    files     the derived files of a result folder
    markdown  job summaries and pull requests
    junit     thresholds as test cases
    html/     the page of a run

Renderers do not compute: every number comes from `analysis`.
"""
