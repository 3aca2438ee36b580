"""The page of one run, in reading order: status, findings, ledger, charts, tables, fold-outs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadsim.render.html import sections
from loadsim.render.html.growth import growth_chart, growth_note, growth_table
from loadsim.render.html.markup import Markup, document, joined, tag
from loadsim.render.html.parts import badge, count_of, facts, fold, navigation, notices, prose, section
from loadsim.render.html.script_data import places, run_curves, time_panels
from loadsim.render.html.svg import fd_map
from loadsim.render.text import interruption
from loadsim.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadsim.analysis.series import Series
    from loadsim.analysis.summary import Mark, Summary

#: Heights of a time panel and of the percentile curves, in CSS pixels.
_PANEL, _CURVES = 190, 330
_LEDGER_NOTE = "Each client has one fate (what the server did with it) and one outcome (what the client saw)."
_TIME_NOTE = "Drag to zoom all charts; double-click to reset."
_TAIL_NOTE = "The x axis stretches the tail: each step to the right is ten times rarer."


def run_page(summary: Summary, series: Series, *, host: Mapping[str, Any]) -> str:
    """Return the page of a run as one HTML file; `host` is the content of host.json, empty if it is not known."""
    shared = summary.namespace == "shared"
    panels = time_panels(series, summary.timeline.marks, shared=shared)
    curves = run_curves(series.curves)
    parts = list(_parts(summary, series, host, panels=panels, curves=curves))
    body = [_head(summary, host), navigation([(identity, title) for identity, title, _ in parts])]
    return document(
        f"{summary.scenario}: {summary.status}",
        [*body, *(part for _, _, part in parts)],
        data={"time": panels, "curves": curves},
    )


def _head(summary: Summary, host: Mapping[str, Any]) -> Markup:
    known = [
        ("load", format_duration(summary.duration_s)),
        ("clients", f"{summary.clients:,}"),
        ("seed", str(summary.seed)),
        *((("kernel", str(host["kernel"])),) if host.get("kernel") else ()),
    ]
    return tag(
        "header",
        tag("p", "loadsim ", tag("span", "a run"), class_="kicker"),
        tag("h1", summary.scenario),
        tag("p", summary.description, class_="description") if summary.description else None,
        tag("div", badge(summary.status), tag("p", prose(summary.sentence)), class_="verdict"),
        notices([*interruption(summary), *summary.notices]),
        facts(known),
        sections.tiles(summary),
    )


def _parts(
    summary: Summary,
    series: Series,
    host: Mapping[str, Any],
    *,
    panels: dict[str, Any],
    curves: list[dict[str, Any]],
) -> Iterator[tuple[str, str, Markup]]:
    """Yield each part of the page: its id, its name in the navigation, and the part itself."""

    def part(identity: str, title: str, *content: str | None, note: str | None = None) -> tuple[str, str, Markup]:
        return identity, title, section(identity, title, *content, note=note)

    yield part("findings", "What happened", sections.findings(summary))
    ended = f"Where the {count_of(summary.clients, 'client')} ended"
    yield "ledger", "Ledger", section("ledger", ended, sections.ledger(summary), note=_LEDGER_NOTE)
    if panels["panels"]:
        drawn = places(panels["panels"], height=_PANEL)
        yield part("time", "Over time", _marks(summary.timeline.marks), drawn, note=_TIME_NOTE)
    if summary.growth:
        drawn = joined([growth_chart(summary, series.waits), growth_table(summary)])
        yield part("growth", "As the fd table grew", drawn, note=growth_note(summary))
    yield from _latencies(summary, curves)
    if summary.fd_map.strip(". "):
        yield part("fd-map", "The fd table at the end", fd_map(summary.fd_map))
    yield from _checked(summary)
    yield part(
        "details",
        "Everything else",
        fold(f"All {len(summary.metrics)} metrics", sections.metrics_table(summary)),
        fold("Settings of the scenario", sections.settings(summary)) if summary.settings else None,
        fold("Host", sections.host(host)) if host else None,
    )


def _latencies(summary: Summary, curves: list[dict[str, Any]]) -> Iterator[tuple[str, str, Markup]]:
    shown = sections.latencies(summary)
    if shown is not None or curves:
        drawn = places(curves, height=_CURVES) if curves else None
        yield "latencies", "Latencies", section("latencies", "How long it took", shown, drawn, note=_TAIL_NOTE)


def _checked(summary: Summary) -> Iterator[tuple[str, str, Markup]]:
    """Yield thresholds and predictions beside the measured numbers, and the quality of the measurement."""
    predicted, expected = sections.compared(summary.prediction), sections.expected(summary.thresholds)
    columns = [
        tag("div", tag("h3", title), content)
        for title, content in (
            ("Expected", expected),
            ("Predicted", predicted),
            ("Quality of the measurement", sections.quality(summary)),
        )
        if content is not None
    ]
    title = "Expected, predicted and measured"
    yield "checked", "Checked", section("checked", title, tag("div", *columns, class_="columns"))


def _marks(marks: list[Mark]) -> Markup | None:
    """Return the list of the moments that are marked in the panels."""
    items = [
        tag("li", tag("b", str(n)), f" {mark.label} ", tag("span", f"after {format_duration(max(mark.at_s, 0.0))}"))
        for n, mark in enumerate(marks, 1)
    ]
    return tag("ul", *items, class_="marks") if items else None
