"""The ledger, the latencies and the growth table on a terminal."""

from __future__ import annotations

import dataclasses

from report_samples import generator_limited, healthy, phantoms, too_many_open_files

from loadsim.metrics import METRICS
from loadsim.render import tables
from loadsim.render.drawing import Terminal
from loadsim.render.tables import growth, latencies, ledger

NARROW = Terminal(width=80, color=False, unicode=True)
WIDE = Terminal(width=120, color=False, unicode=True)


def test_every_number_of_the_tables_is_a_metric() -> None:
    """All keys that the tables look up exist."""
    keys = {metric.json_key for metric in METRICS.values()}
    families = {f"{family}.{statistic}_s" for family in tables._FAMILIES for statistic in tables._STATISTICS}
    assert families <= keys
    assert {column.metric for column in tables._COLUMNS} <= keys


def test_a_fate_takes_a_line_per_outcome() -> None:
    """The most frequent outcome comes first, and only its line has the count of the fate."""
    rows = [text.plain.split() for text in ledger(phantoms(), NARROW)]
    assert next(row for row in rows if "phantom" in row)[:2] == ["phantom", "96"]
    assert ["6", "no", "answer", "before", "the", "end"] in rows


def test_time_outs_are_named_where_they_are_known() -> None:
    """The outcomes show the time-outs of the scenario, if the summary has them."""
    known = "\n".join(text.plain for text in ledger(too_many_open_files(), NARROW))
    unknown = "\n".join(text.plain for text in ledger(dataclasses.replace(too_many_open_files(), settings={}), NARROW))
    assert "no answer to connect in 2 s\n" in known
    assert "no answer to connect\n" in unknown


def test_a_wide_terminal_explains_the_fates() -> None:
    """From 120 columns on, each fate has its meaning beside it."""
    assert "still in the accept queue" in "\n".join(text.plain for text in ledger(too_many_open_files(), WIDE))
    assert "still in the accept queue" not in "\n".join(text.plain for text in ledger(too_many_open_files(), NARROW))


def test_losses_of_the_generator_are_not_denied() -> None:
    """The line "0 lost by the generator" is shown only if it is true."""
    assert "0 lost by the generator" in ledger(healthy(), NARROW)[-1].plain
    assert all("lost by the generator" not in text.plain for text in ledger(generator_limited(), NARROW))


def test_waiting_clients_are_shown_below_the_accept_latency() -> None:
    """The line below the accept latency has the number of clients that still wait, and the longest wait."""
    lines = [text.plain for text in latencies(too_many_open_files(), NARROW)]
    at = next(i for i, text in enumerate(lines) if text.startswith("  accept"))
    assert lines[at + 1] == "    and 129 still wait in the accept queue, up to 4.7 s so far"


def test_one_client_is_one_client() -> None:
    """Sentences agree in number, and are in the past tense if the server exited."""
    waits = {"accept.waiting": 1, "accept.waiting_max_s": 0.5}
    one = dataclasses.replace(healthy(), clients=1, metrics={**healthy().metrics, **waits})
    assert ledger(one, NARROW)[0].plain.startswith("  where the 1 client ended ")
    assert "    and 1 still waits in the accept queue, up to 500 ms so far" in [
        text.plain for text in latencies(one, NARROW)
    ]
    died = dataclasses.replace(one, metrics={**one.metrics, "server.exit": 1})
    assert "    and 1 still waited in the accept queue when the server exited, up to 500 ms" in [
        text.plain for text in latencies(died, NARROW)
    ]


def test_columns_without_any_number_are_left_out() -> None:
    """p999 is shown only if there are enough samples for it."""
    assert "p999" not in latencies(healthy(), NARROW)[0].plain
    assert "p999" in latencies(generator_limited(), NARROW)[0].plain


def test_growth_points_are_marked() -> None:
    """Bands that begin with a larger table have a sign, and a note explains it."""
    lines = [text.plain for text in growth(generator_limited(), NARROW)]
    assert sum(text.startswith("  ↑ ") and " fds " in text for text in lines) == 7
    assert "  ↑ the kernel enlarged the fd table on entering this band" in lines


def test_counters_of_a_shared_namespace_are_marked() -> None:
    """The column has an asterisk, and a note explains it."""
    lines = [text.plain for text in growth(generator_limited(), NARROW)]
    assert "SYNs lost*" in lines[0]
    assert "  * this listener's drops only, an ACK counts twice: the namespace is shared" in lines
    assert "*" not in growth(healthy(), NARROW)[0].plain


def test_the_last_line_has_the_metrics_of_the_run() -> None:
    """The last line of the growth table is not a sum of the bands."""
    total = growth(too_many_open_files(), NARROW)[-1].plain.split()
    assert total == ["in", "all", "56", "31", "us", "57", "us", "4.7", "s", "48", "830"]


def test_a_single_band_has_no_sum() -> None:
    """With one band, the table has no last line for the run."""
    one = dataclasses.replace(healthy(), growth=healthy().growth[:1])
    assert [text.plain.split()[:2] for text in growth(one, NARROW)[1:]] == [["9", "fds"]]
