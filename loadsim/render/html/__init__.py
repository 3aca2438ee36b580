"""How is a run shown as a page? One file that loads nothing and can be read without scripts.

    page         the page of one run, in reading order
    sections     numbers, findings, thresholds, the ledger
    svg          scales, shapes and the fd table, without script
    growth       everything against the growing fd table
    script_data  what the script draws, as plain values
    parts        sections, tables, badges of all pages
    markup       safe HTML, and the file around a page

`assets` holds style, script, and uPlot 1.6.32 (MIT), unchanged, with its licence.
"""
