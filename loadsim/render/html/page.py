"""The page of one run, in the order in which it is read: verdict, findings, ledger, charts, tables, fold-outs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadsim.render.html import sections
from loadsim.render.html.charts import places, run_curves, time_panels
from loadsim.render.html.markup import Markup, document, joined, tag
from loadsim.render.html.parts import badge, count_of, facts, fold, navigation, notices, prose, section
from loadsim.render.html.sections import ledger
from loadsim.render.html.svg import fd_map, growth_chart, growth_note, growth_table
from loadsim.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadsim.analysis.series import Series
    from loadsim.analysis.summary import Mark, Summary

#: Heights of a time panel and of the percentile curves, in CSS pixels.
_PANEL, _CURVES = 190, 330


def run_page(summary: Summary, series: Series, *, host: Mapping[str, Any]) -> str:
    """Return the page of a run as one HTML file; `host` is what host.json holds, empty where it is not known."""
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
        notices([*_interruption(summary), *summary.notices]),
        facts(known),
        sections.tiles(summary),
    )


def _interruption(summary: Summary) -> list[str]:
    if summary.complete:
        return []
    cause = f"Interrupted ({summary.interrupted})" if summary.interrupted else "This run never came to its end"
    return [f"{cause}: this is what happened until then."]


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
    yield "ledger", "Ledger", section("ledger", ended, ledger(summary), note=_LEDGER)
    if panels["panels"]:
        drawn = places(panels["panels"], height=_PANEL)
        yield part("time", "Over time", _marks(summary.timeline.marks), drawn, note=_TIME)
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


_LEDGER = "Every client has one fate, which is what became of it at the server, and one outcome, which is what it saw."
_TIME = "Drag over a stretch to look closer, in all panels at once; a double click shows everything again."
_TAIL = "The x axis stretches the tail: each step to the right is ten times rarer."


def _latencies(summary: Summary, curves: list[dict[str, Any]]) -> Iterator[tuple[str, str, Markup]]:
    shown = sections.latencies(summary)
    if shown is not None or curves:
        drawn = places(curves, height=_CURVES) if curves else None
        yield "latencies", "Latencies", section("latencies", "How long it took", shown, drawn, note=_TAIL)


def _checked(summary: Summary) -> Iterator[tuple[str, str, Markup]]:
    """Yield what was predicted and expected beside what was measured, and how far all of it can be trusted."""
    predicted, expected = sections.compared(summary.prediction), sections.expected(summary.thresholds)
    halves = [
        tag("div", tag("h3", title), content)
        for title, content in (
            ("Expected", expected),
            ("Predicted", predicted),
            ("How far to trust it", sections.trust(summary)),
        )
        if content is not None
    ]
    title = "Checked against expectation and prediction"
    yield "checked", "Checked", section("checked", title, tag("div", *halves, class_="columns"))


def _marks(marks: list[Mark]) -> Markup | None:
    """Return the moments that are marked in the panels."""
    items = [
        tag("li", tag("b", str(n)), f" {mark.label} ", tag("span", f"after {format_duration(max(mark.at_s, 0.0))}"))
        for n, mark in enumerate(marks, 1)
    ]
    return tag("ul", *items, class_="marks") if items else None
