"""What differs, and which value is enough? Sweeps, groups of runs, statistics, the answer, and their pages.

    sweep       the order of a sweep: one run after the other, each saved
    folder      the folder of a sweep
    collect     from folders to groups of runs
    comparison  a group, a comparison, and `comparison.json`
    compare     groups in, one comparison out; columns, gates, curves
    statistics  estimates and exact tests
    answer      which tested value is enough, and what less costs
    text        a sweep or a comparison on a terminal
    page        the page of a comparison
    page_table  its first table, and one metric drawn by group
    files       the derived files of a sweep's folder

The unit of a comparison is the run: the connections of one run are correlated.
"""
