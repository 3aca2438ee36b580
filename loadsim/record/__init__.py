"""What happened? The narrow waist: producers write fixed-size records, readers see numpy arrays.

    records     the layouts of all records, and their codes
    journal     a file of records, written through memory
    accept_log  accepts and failures of a server, and running counters
    recording   records as arrays, and their columns
    facts       everything known about a run besides its records
    folder      folders below `--out`, read in bounded memory
    result      the result folder of one run

Nothing above this folder sees a socket, and nothing here knows what a number means.
"""
