"""What happened? The narrow waist: producers write fixed-size records, readers see numpy arrays.

    events    the layouts of the records, outcomes, fates, flags, the errno table
    facts     what is known of a run besides its records
    journal   one process's memory-mapped file of records, and the counters in its header
    arrays    records as numpy arrays, and a recording as a value
    sampler   what the kernel says about the target, 100 times a second
    bundle    the result folder of one run: its files, its format version, its reader
    format1   result folders of the first format, read as those of today
    sweep     the folder of a sweep: its plan, and which of its runs are done
    status    how far a result came, for lists
    possible  whether the moments and codes of a recording can be true
    untrusted how files are read that somebody else may have made
    folder    how either is made, written to, found and read

Must not know what a number means (`analysis`), nor who asked for it (`scenario`). `events` and `journal` import the
standard library alone: the server and the drivers use them.
"""
