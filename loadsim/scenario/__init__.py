"""What is to be run? Pure: text in, a validated scenario, a plan and a prediction out.

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
    plan        what a run needs and what each child is told
    budget      attempts, descriptors, ports, space
    predict     what arithmetic says will happen
    warnings    what will not be as asked, with remedies
    arrivals    intended start times
    specs       what crosses to a child
    shipped     the scenarios that come with loadsim

`toml` and `shipped` read files; nothing else here has an effect.
"""
