"""What is to be run? Pure: values in, values out; no socket, clock, process or unseeded random.

    model       the typed scenario: every key, its default, its range, what contradicts what
    server      [server]: what is under test, and where it listens
    client      [client]: who connects, how often, and what each connection does
    timeline    [timeline] and [canary]: what changes during the run, and who watches
    tables      what its tables have in common: strictness, all problems at once
    quantities  durations, rates and ramps as fields
    thresholds  "emfile.count > 0": parsing and judging
    schema      the JSON Schema of a file

    ways        the ways in which a command is run out of descriptors for a verdict
    sweep       many runs of one scenario: cells, repeats, their order
    toml        reading a file: `extends`, overrides, everything that is wrong
    shipped     the scenarios that come with loadsim
    layers      files and overrides, merged, each still findable
    places      where keys and values stand in a text
    wording     what the model says about a field, in words people know
    problems    how that is shown: place, line, caret
    writing     a resolved scenario back as TOML

    arrivals    intended start times
    plan        what a run needs and will probably do, and what each child is told
    budget      attempts, descriptors, ports, time and space against what there is
    predict     when limits are reached, and where attempts end, as far as arithmetic knows
    cautions    what will not be as asked, each with its remedy
    spec        what the server and the drivers are told

Must not know how anything is run, recorded or shown. Only `toml` and `shipped` touch the file system. `spec` and
`arrivals` import only the standard library: the server and the drivers use them.
"""
