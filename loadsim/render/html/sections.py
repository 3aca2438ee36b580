"""Sections of a run's page: key numbers, findings, thresholds, the ledger as a bar and a table, metrics, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadsim.fates import FATES, OUTCOMES, Fate
from loadsim.render.html.markup import Markup, joined, tag
from loadsim.render.html.parts import (
    NOTHING,
    count,
    count_of,
    definition,
    facts,
    metric_number,
    notices,
    plain,
    prose,
    table,
    time,
)
from loadsim.render.text import both, doubts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadsim.analysis.summary import Compared, Finding, Judged, Summary

_STATISTICS = ("p50", "p90", "p99", "p999", "max")
_FAMILIES = {
    "connect": "from scheduled start",
    "connect_service": "from the call of connect()",
    "accept_least": "in the accept queue, at least",
    "accept": "in the accept queue",
    "reply": "scheduled start to first byte",
    "held.reply": "scheduled start to first byte, held connections",
}
#: Keys of host.json -> their labels. Other keys follow under their own names.
_HOST = {
    "kernel": "kernel",
    "machine": "machine",
    "cpu_model": "CPU",
    "cpus": "CPUs",
    "cpus_usable": "usable CPUs",
    "memory_bytes": "memory, bytes",
    "load_average": "load before",
    "python": "Python",
    "nofile_soft": "RLIMIT_NOFILE, soft",
    "nofile_hard": "RLIMIT_NOFILE, hard",
}
#: A part of the bar with a smaller share is too narrow for its name.
_NARROW = 0.07


def tiles(summary: Summary) -> Markup:
    """Return the key numbers."""
    metrics = summary.metrics
    shown = [
        _gauge("open descriptors", metrics.get("fds.max"), metrics.get("fds.limit")),
        _gauge("accept queue", metrics.get("queue.max"), metrics.get("queue.capacity")),
        _tile("accepted", count(summary.ledger.get("accepted", 0)), f"of {count_of(summary.clients, 'client')}"),
        _emfile(metrics),
        _lost(summary),
        _wait(metrics),
    ]
    return tag("div", *shown, class_="tiles")


def findings(summary: Summary) -> Markup:
    """Return each finding with its evidence, its remedy and its id."""
    if not summary.findings:
        return tag("p", "No findings: no rule was applied to this run.")
    return tag("ol", *(_finding(one) for one in summary.findings), class_="findings")


def ledger(summary: Summary) -> Markup:
    """Return the bar, the table, and doubts about them."""
    if not summary.clients:
        return tag("p", "No client was started.")
    return joined([_bar(summary), _table(summary), _sum(summary), notices(doubts(summary))])


def latencies(summary: Summary) -> Markup | None:
    """Return the latencies by family, and the number of clients that still wait."""
    known = {
        family: [summary.metrics.get(f"{family}.{statistic}_s") for statistic in _STATISTICS] for family in _FAMILIES
    }
    rows = [
        [joined([tag("b", family), " ", tag("small", _FAMILIES[family])]), *(time(value) for value in values)]
        for family, values in known.items()
        if any(value is not None for value in values)
    ]
    if not rows:
        return None
    percentiles = table(["", *_STATISTICS], rows, numbers=range(1, 6))
    return joined([percentiles, _still_waiting(summary.metrics)])


def compared(prediction: list[Compared]) -> Markup | None:
    """Return predicted beside measured numbers."""
    rows = [
        [one.name, *both(one, nothing=NOTHING)]
        for one in prediction
        if one.predicted is not None or one.measured is not None
    ]
    return table(["", "predicted", "measured"], rows, numbers=(1, 2)) if rows else None


def expected(thresholds: list[Judged]) -> Markup | None:
    """Return the thresholds with the measured values."""
    rows = [
        [
            joined(
                [
                    tag("b", "\u2713" if one.ok else "\u2717", class_="good" if one.ok else "bad"),
                    " ",
                    tag("code", one.text),
                ]
            ),
            one.measured,
            "met" if one.ok else "NOT MET",
        ]
        for one in thresholds
    ]
    return table(["", "measured", ""], rows, numbers=(1,)) if rows else None


def quality(summary: Summary) -> Markup:
    """Return the quality of the measurement: the load generator, the join, the scope of the counters."""
    metrics = summary.metrics
    lag, cpu = metrics.get("generator.lag.p99_s", metrics.get("generator.lag.max_s")), metrics.get("generator.cpu")
    failures, error = metrics.get("generator.local_failures"), metrics.get("accept.uncertainty_s")
    pairs = [
        ("load generator kept up", "NO" if metrics.get("generator.limited") else "yes"),
        ("lag behind the schedule", "no schedule" if lag is None else f"{time(lag)} (p99)"),
        ("generator CPU", NOTHING if cpu is None else f"{cpu:.2f} cores"),
        ("generator's own failures", count(failures)),
        ("accuracy of one accept latency", NOTHING if error is None else f"\N{PLUS-MINUS SIGN}{time(error)}"),
        ("foreign, ambiguous accepts", f"{count(summary.foreign)}, {count(summary.ambiguous)}"),
        ("kernel counters", "whole host" if summary.namespace == "shared" else "private network namespace"),
    ]
    return facts(pairs)


def metrics_table(summary: Summary) -> Markup:
    """Return all metrics with their definitions."""
    rows = [
        [tag("code", key), tag("td", metric_number(key, value), class_="number", title=f"{value!r}"), definition(key)]
        for key, value in summary.metrics.items()
    ]
    return table(["metric", "value", "definition"], rows, class_="metrics")


def settings(summary: Summary) -> Markup:
    """Return the settings, one table for each table of the scenario file."""
    tables = {name: values for name, values in summary.settings.items() if isinstance(values, dict)}
    single = {name: value for name, value in summary.settings.items() if name not in tables}
    parts = [_settings(name, values) for name, values in {"scenario": single, **tables}.items() if values]
    return tag("div", *parts, class_="columns")


def host(values: Mapping[str, Any]) -> Markup:
    """Return the facts of host.json."""
    sysctls = values.get("sysctls")
    single = {name: value for name, value in values.items() if name != "sysctls"}
    named = {_HOST.get(name, name): single[name] for name in dict.fromkeys((*_HOST, *single)) if name in single}
    parts = [_settings("host", named)]
    if isinstance(sysctls, dict):
        parts.append(_settings("sysctl of the host", sysctls))
    return tag("div", *parts, class_="columns")


def _tile(name: str, value: str, below: str, *, alarm: bool = False, more: Markup | None = None) -> Markup:
    shown = tag("span", value, class_="big")
    return tag(
        "div",
        tag("span", name, class_="name"),
        shown,
        tag("span", below),
        more,
        class_="tile alarm" if alarm else "tile",
    )


def _gauge(name: str, most: float | None, limit: float | None) -> Markup | None:
    """Return a tile with a peak against its limit."""
    if most is None:
        return None
    full = limit is not None and most >= limit
    of = "" if limit is None else f"of {count(limit)} at the peak"
    meter = None
    if limit:
        width = f"width:{min(100 * most / limit, 100):.1f}%"
        meter = tag("span", tag("i", style=width), class_="meter", aria_hidden="true")
    return _tile(name, count(most), f"{of}: FULL" if full else of, alarm=full, more=meter)


def _emfile(metrics: Mapping[str, float]) -> Markup | None:
    missed, first = metrics.get("emfile.count"), metrics.get("emfile.first_at_s")
    if missed is None:
        return None
    below = f'"Too many open files", first after {time(first)}' if first is not None else '"Too many open files"'
    return _tile("EMFILE", count(missed), below, alarm=missed > 0)


def _lost(summary: Summary) -> Markup | None:
    lost = summary.metrics.get("listen.overflows")
    if lost is None:
        return None
    delayed = summary.metrics.get("attempts.delayed")
    below = f"at a full queue, of {count_of(delayed, 'client')}" if lost and delayed else "at a full queue"
    name = "SYNs and ACKs lost" if summary.metrics.get("listen.ack_drops") else "SYNs lost"
    return _tile(name, count(lost), below, alarm=lost > 0)


def _wait(metrics: Mapping[str, float]) -> Markup | None:
    p99, longest = metrics.get("accept.p99_s"), metrics.get("accept.max_s")
    if longest is None:
        return None
    name, value = ("accept p99", p99) if p99 is not None else ("accept, longest", longest)
    waiting = metrics.get("accept.waiting")
    samples = count_of(metrics.get("accept.samples", 0), "accept")
    return _tile(name, time(value), f"of {samples}; {count(waiting)} still waiting" if waiting else f"of {samples}")


def _finding(one: Finding) -> Markup:
    return tag(
        "li",
        tag("div", tag("h3", prose(one.title)), tag("code", one.id, class_="id"), class_="head"),
        tag("p", prose(one.evidence)) if one.evidence else None,
        tag("p", tag("span", "\u2192", aria_label="remedy"), tag("span", prose(one.remedy)), class_="remedy")
        if one.remedy
        else None,
        class_="fault" if one.fault else None,
        id=f"finding-{one.id}",
    )


def _settings(title: str, values: Mapping[str, Any]) -> Markup:
    rows = [[tag("code", name), plain(value)] for name, value in values.items()]
    return tag("div", tag("h3", title), table(["setting", "value"], rows, class_="settings"))


def _still_waiting(metrics: Mapping[str, float]) -> Markup | None:
    """Return how many clients still wait: percentiles of accepted connections only are survivor bias."""
    waiting, longest = metrics.get("accept.waiting"), metrics.get("accept.waiting_max_s")
    if not waiting:
        return None
    up_to = "" if longest is None else f", up to {time(longest)}"
    return tag(
        "p", f"Not included: {count(waiting)} still waiting in the accept queue at the end{up_to}.", class_="note"
    )


def _fates(summary: Summary) -> list[str]:
    return [fate for fate in dict.fromkeys((*FATES, *summary.ledger)) if summary.ledger.get(fate)]


def _named(name: str) -> str:
    return name.replace("_", " ")


def _colour(fate: str) -> str:
    """Return the CSS classes of a fate; a fate that this version does not know is grey."""
    row = FATES.get(fate, Fate.UNKNOWN).row
    return f"tone-{row.tone} pattern-{row.pattern}"


def _bar(summary: Summary) -> Markup:
    total = sum(summary.ledger.values()) or 1
    parts = [_part(fate, summary.ledger[fate], total) for fate in _fates(summary)]
    text = ", ".join(f"{_named(fate)} {count(summary.ledger[fate])}" for fate in _fates(summary))
    return tag("div", *parts, class_="bar", role="img", aria_label=f"Fates: {text}")


def _part(fate: str, clients: int, total: int) -> Markup:
    label = tag("span", tag("b", count(clients)), _named(fate)) if clients / total >= _NARROW else None
    title = f"{_named(fate)}: {count_of(clients, 'client')}, {100 * clients / total:.1f} %"
    return tag("div", label, class_=f"part {_colour(fate)}", style=f"flex-grow:{clients}", title=title)


def _table(summary: Summary) -> Markup:
    """Return fates by outcomes: a row for each fate and a column for each outcome that occurred, with sums."""
    outcomes = [name for name in dict.fromkeys((*OUTCOMES, *summary.outcomes)) if summary.outcomes.get(name)]
    heads = [tag("th", "where they ended", scope="col"), tag("th", "clients", scope="col", class_="number")]
    meanings = {name: OUTCOMES[name].row.means if name in OUTCOMES else "" for name in outcomes}
    saw = [tag("th", _named(name), scope="col", class_="number saw", title=meanings[name]) for name in outcomes]
    group = tag("th", "what they saw", scope="colgroup", colspan=len(outcomes) or None, class_="group saw")
    rows = [_row(summary, fate, outcomes) for fate in _fates(summary)]
    sums = [tag("td", count(summary.outcomes[name]), class_="number saw") for name in outcomes]
    total = [tag("th", "sum", scope="row"), tag("td", tag("b", count(sum(summary.ledger.values()))), class_="number")]
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", tag("td", colspan=2), group), tag("tr", *heads, *saw)),
            tag("tbody", *rows),
            tag("tfoot", tag("tr", *total, *sums)),
            class_="ledger",
        ),
        class_="scroll",
    )


def _row(summary: Summary, fate: str, outcomes: list[str]) -> Markup:
    cells = summary.fate_by_outcome.get(fate, {})
    meaning = FATES[fate].row.words if fate in FATES else ""
    swatch = tag("span", class_=f"swatch {_colour(fate)}", aria_hidden="true")
    name = tag("th", swatch, _named(fate), " ", tag("small", meaning), scope="row")
    saw = [
        tag("td", count(cells[outcome]) if cells.get(outcome) else NOTHING, class_=_saw(cells.get(outcome)))
        for outcome in outcomes
    ]
    return tag("tr", name, tag("td", tag("b", count(summary.ledger[fate])), class_="number"), *saw)


def _saw(clients: int | None) -> str:
    return "number saw" if clients else "number saw none"


def _sum(summary: Summary) -> Markup:
    own = summary.metrics.get("generator.local_failures", 0) + summary.ledger.get("not_started", 0)
    if not summary.balanced:
        return tag("p", tag("b", "\u2717 does not add up"), class_="sum bad")
    lost = f"{count(own)} lost by the generator"
    return tag("p", tag("b", "\u2713 adds up"), f": all {count_of(summary.clients, 'client')}, {lost}.", class_="sum")
