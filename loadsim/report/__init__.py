"""How is it shown? Values in, text out.

    terminal   the end of a run: verdict, pictures, tables, findings, what to do next
    picture    its pictures: descriptors and queue over time, the fd table
    tables     its tables: the ledger beside what the clients saw, latencies, the growing fd table
    findings   its sentences: what happened, predicted and measured, what was expected
    progress   a run as it goes, as plain numbers
    live       the same on a terminal, redrawn
    plain      the same as lines
    check      what a scenario will need, and what it will do
    explain    one finding, fate, outcome or metric in full
    listing    scenarios and results
    look       what a terminal can show: width, colours, characters
    text       foreign text made harmless; wrapping, clipping

Must not compute: every number comes from `analysis.summary`, `scenario.plan` or `progress`; only columns and
characters are counted here.
"""
