"""The ledger and the growth table on a terminal."""

from __future__ import annotations

import dataclasses

from report_samples import generator_limited, healthy, phantoms, too_many_open_files

from loadsim.metrics import METRICS
from loadsim.render import tables as growth_module
from loadsim.render.drawing import Terminal
from loadsim.render.tables import growth, latencies, ledger

NARROW = Terminal(width=80, color=False, unicode=True)
WIDE = Terminal(width=120, color=False, unicode=True)


def test_every_number_of_the_tables_is_a_metric() -> None:
    """The keys that are looked up exist."""
    keys = {metric.json_key for metric in METRICS.values()}
    families = {
        f"{family}.{statistic}_s" for family in growth_module._FAMILIES for statistic in growth_module._STATISTICS
    }
    assert families <= keys
    assert {column.metric for column in growth_module._COLUMNS} <= keys


def test_a_fate_takes_a_line_per_outcome() -> None:
    """The commonest comes first, and the others have no count of their own at the server."""
    rows = [text.plain.split() for text in ledger(phantoms(), NARROW)]
    assert next(row for row in rows if "phantom" in row)[:2] == ["phantom", "96"]
    assert ["6", "no", "answer", "before", "the", "end"] in rows


def test_time_outs_are_named_where_they_are_known() -> None:
    """The words carry the scenario's settings, and do without them."""
    known = "\n".join(text.plain for text in ledger(too_many_open_files(), NARROW))
    unknown = "\n".join(text.plain for text in ledger(dataclasses.replace(too_many_open_files(), settings={}), NARROW))
    assert "no answer to connect in 2 s\n" in known
    assert "no answer to connect\n" in unknown


def test_a_wide_terminal_says_what_became_of_the_clients() -> None:
    """The meaning of each fate stands beside it from 120 columns on."""
    assert "still in the accept queue" in "\n".join(text.plain for text in ledger(too_many_open_files(), WIDE))
    assert "still in the accept queue" not in "\n".join(text.plain for text in ledger(too_many_open_files(), NARROW))


def test_the_generator_takes_its_own_losses() -> None:
    """That it lost nobody is said only if it is so."""
    assert "0 lost by the generator" in ledger(healthy(), NARROW)[-1].plain
    assert all("lost by the generator" not in text.plain for text in ledger(generator_limited(), NARROW))


def test_survivors_do_not_speak_alone() -> None:
    """Right below the accept latency stands how many still wait, and for how long."""
    lines = [text.plain for text in latencies(too_many_open_files(), NARROW)]
    at = next(i for i, text in enumerate(lines) if text.startswith("  accept"))
    assert lines[at + 1] == "    and 129 still wait in the accept queue, up to 4.7 s so far"


def test_one_client_is_one_client() -> None:
    """Sentences agree in number, and whoever waited for a server that died waits no more."""
    waits = {"accept.waiting": 1, "accept.waiting_max_s": 0.5}
    one = dataclasses.replace(healthy(), clients=1, metrics={**healthy().metrics, **waits})
    assert ledger(one, NARROW)[0].plain.startswith("  where the 1 client ended ")
    assert "    and 1 still waits in the accept queue, up to 500 ms so far" in [
        text.plain for text in latencies(one, NARROW)
    ]
    died = dataclasses.replace(one, metrics={**one.metrics, "server.exit": 1})
    assert "    and 1 still waited in the accept queue at its end, up to 500 ms" in [
        text.plain for text in latencies(died, NARROW)
    ]


def test_columns_without_any_number_are_left_out() -> None:
    """p999 appears where there are enough samples for it."""
    assert "p999" not in latencies(healthy(), NARROW)[0].plain
    assert "p999" in latencies(generator_limited(), NARROW)[0].plain


def test_growth_points_are_marked() -> None:
    """The bands at whose beginning the kernel enlarged the table carry a sign, and the sign is explained."""
    lines = [text.plain for text in growth(generator_limited(), NARROW)]
    assert sum(text.startswith("  ↑ ") and " fds " in text for text in lines) == 7
    assert "  ↑ the kernel enlarged the fd table on entering this band" in lines


def test_counters_of_a_shared_namespace_are_marked() -> None:
    """An asterisk at the column, and what it means below."""
    lines = [text.plain for text in growth(generator_limited(), NARROW)]
    assert "SYNs lost*" in lines[0]
    assert "  * this listener's own drops, an ACK counted twice: the namespace is shared" in lines
    assert "*" not in growth(healthy(), NARROW)[0].plain


def test_all_bands_together_come_from_the_metrics() -> None:
    """The last line of the table is the run, not a sum made here."""
    total = growth(too_many_open_files(), NARROW)[-1].plain.split()
    assert total == ["in", "all", "56", "31", "us", "57", "us", "4.7", "s", "48", "830"]


def test_a_single_band_is_its_own_sum() -> None:
    """Nothing is added up where there is nothing to add."""
    one = dataclasses.replace(healthy(), growth=healthy().growth[:1])
    assert [text.plain.split()[:2] for text in growth(one, NARROW)[1:]] == [["9", "fds"]]
