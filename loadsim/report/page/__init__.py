"""How is it shown as a page? One file each that needs nothing else: no network, no script to be understood.

    run_page    the page of one run: verdict, findings, ledger, charts, tables
    sweep_page  the page of a sweep or a comparison: the answer, the table, intervals, curves, what differs
    sections    pieces of a run's page that are plain tables and lists
    ledger      the bar of fates that adds up, and fate by outcome
    growth      everything against the growing fd table, drawn
    fd_map      the fd table, one square a descriptor
    groups      the table that people read first: a row for each group; and the runs behind it
    pairs       what one group is beside another, as a sign and a word
    intervals   one metric by group, drawn: median, interval and every run
    charts      what the script draws, as plain values
    svg         scales and shapes of the drawings that need no script
    parts       pieces of both pages: sections, tables, fold-outs, numbers with units
    document    the file around them: style, script, policy, data
    markup      HTML that cannot be broken by what stands in it

The `assets` folder holds style, script, and uPlot 1.6.32 (MIT) unchanged with its licence.

Must not compute: every number comes from `analysis`; only pixels are counted here.
"""

from loadsim.report.page.run_page import run_page
from loadsim.report.page.sweep_page import comparison_page

__all__ = ["comparison_page", "run_page"]
