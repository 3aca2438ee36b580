"""What is to be run? Pure: values in, values out; no socket, clock, process or unseeded random.

    model       the typed scenario, validated
    toml        reading a file: `extends`, overrides, every error with its line and a caret
    arrivals    intended start times
    thresholds  "emfile.count > 0": parsing and judging
    plan        scenario + host limits -> fd, port and process budget, prediction, warnings
    spec        what the server and the drivers are told (standard library alone)

Must not know how anything is run, recorded or shown. Only `toml` touches the file system.
"""
