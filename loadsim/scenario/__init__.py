"""What is to be run? Pure: text in; a validated scenario, a plan and a prediction out.

    model       the typed scenario: every table and key
    server      [server]
    client      [client]
    fields      durations, rates, and strict tables
    sweep       [sweep]: many runs of one scenario
    thresholds  expectations on metrics
    toml        reading and writing files
    layers      files and overrides, merged
    problems    places and carets
    messages    errors as sentences
    plan        the needs of a run, and the spec of each child process
    budget      attempts, descriptors, ports, time, space
    predict     the predicted course of a run
    warnings    settings that this host cannot provide, with remedies
    arrivals    intended start times
    specs       the settings that travel to a child process
    shipped     the scenarios that come with loadsim

Only `toml` and `shipped` read files; no other module here has an effect.
"""
