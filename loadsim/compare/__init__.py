"""How do runs differ, and which value of a setting is enough? Sweeps, statistics, the answer, and their pages.

    sweep       makes the runs of a sweep, one after the other
    folder      the folder of a sweep
    collect     reads groups of runs from folders
    comparison  records: group, comparison, `comparison.json`
    compare     compares groups; columns, gates, curves
    statistics  estimates and exact tests
    answer      the smallest value that is enough, and the cost of smaller ones
    text        a sweep or a comparison on a terminal
    page        the page of a comparison
    page_table  tables and drawings of that page
    files       the derived files of a sweep's folder

The unit of a comparison is the run: the connections of one run are correlated.
"""
