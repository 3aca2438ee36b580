"""The charts of the script as plain values: panels on one time axis, and percentile curves.

Owns the words, colours and order of the lines. The script draws lines and does not know their meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadsim.analysis.series import Line
from loadsim.render.html.markup import Markup, tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadsim.analysis.series import Curve, Series, Spread
    from loadsim.analysis.summary import Mark

Values = dict[str, Any]

_FAMILIES = {
    "connect": "connect: from scheduled start",
    "accept": "accept: in the accept queue",
    "reply": "reply: scheduled start to first byte",
}
_FAMILY_COLOURS = {"connect": "connect", "accept": "accept", "reply": "reply"}
#: Colours and dashes of groups: lines differ in both.
_GROUP_COLOURS = ("g1", "g2", "g3", "g4", "g5", "g6")
_DASHES: tuple[list[int], ...] = ([], [8, 4], [2, 3], [10, 3, 2, 3], [5, 2], [1, 4])


def time_panels(series: Series, marks: Sequence[Mark], *, shared: bool) -> Values:
    """Return the panels of a run on one time axis; panels without lines are left out."""
    lost = "packets lost" if shared else "SYNs lost"
    panels = [
        _panel(
            "fds",
            "Open descriptors",
            [
                _line("open fds", series.open_fds, "fds", kind="step", fill=True),
                _line("limit", series.fd_limits, "lost", kind="step"),
            ],
            limit=series.fd_limit,
        ),
        _panel(
            "queue",
            "Accept queue",
            [
                _line("queue", series.queue, "queue", kind="step", fill=True),
                _line("as sampled", series.queue_samples, "sample", kind="points"),
                _line(lost, _losses(series.overflows), "lost", kind="bars", axis="right"),
            ],
            limit=series.queue_capacity,
        ),
        _panel(
            "waits",
            "How long it took",
            [*_spread("accept", series.accept, "accept"), *_spread("connect", series.connect, "connect")],
            log=True,
            unit="s",
        ),
        _panel(
            "canary",
            "Canary: how long an independent client waited for each answer",
            [
                _line("answered", series.answered, "accept", kind="points"),
                _line("not answered", series.unanswered, "lost", kind="points"),
            ],
            log=True,
            unit="s",
        ),
        _panel(
            "cpu",
            "CPU of the server, and EMFILE" if series.emfile_per_s.at_s else "CPU of the server",
            [
                _line("CPU", series.cpu_cores, "cpu", fill=True, unit="cores"),
                _line("EMFILE", series.emfile_per_s, "lost", axis="right", unit="/s"),
            ],
        ),
    ]
    return {
        "span": series.span_s,
        "marks": [{"at": mark.at_s, "label": mark.label} for mark in marks],
        "panels": [panel for panel in panels if panel["lines"]],
    }


def run_curves(curves: Sequence[Curve]) -> list[Values]:
    """Return the percentile curves of one run: all families in one chart."""
    lines = [
        {
            **_curve(curve),
            "label": _FAMILIES.get(curve.family, curve.family),
            "colour": _FAMILY_COLOURS.get(curve.family, "g1"),
            "dash": _DASHES[i % len(_DASHES)],
        }
        for i, curve in enumerate(curves)
    ]
    return [{"id": "curves", "title": "", "lines": lines}] if lines else []


def group_curves(curves: Sequence[Curve], labels: Sequence[str], *, chosen: int | None) -> list[Values]:
    """Return the percentile curves of groups: a chart for each family, a line for each group, thick if it is chosen."""
    charts = []
    for place, family in enumerate(dict.fromkeys(curve.family for curve in curves)):
        lines = [
            {
                **_curve(curve),
                "label": labels[curve.group],
                "width": 3 if curve.group == chosen else 1.7,
                "colour": _GROUP_COLOURS[curve.group % len(_GROUP_COLOURS)],
                "dash": _DASHES[curve.group // len(_GROUP_COLOURS) % len(_DASHES)]
                or _DASHES[curve.group % len(_DASHES)],
            }
            for curve in curves
            if curve.family == family
        ]
        charts.append({"id": f"curves-{place}", "title": _FAMILIES.get(family, family), "lines": lines})
    return charts


def places(charts: Sequence[Mapping[str, Any]], *, height: int) -> Markup:
    """Return the boxes in which the script draws charts, and a note for readers without scripts."""
    boxes = [tag("div", id=f"chart-{chart['id']}", class_="chart", style=f"min-height:{height}px") for chart in charts]
    note = tag("noscript", tag("p", "These charts need JavaScript; the numbers are in the tables.", class_="note"))
    return tag("div", note, *boxes, class_="charts")


def _panel(identity: str, title: str, lines: Sequence[Values | None], **more: object) -> Values:
    return {"id": identity, "title": title, "lines": [line for line in lines if line], **more}


def _line(label: str, line: Line, colour: str, **more: object) -> Values | None:
    if not line.at_s:
        return None
    return {"label": label, "x": line.at_s, "y": line.values, "colour": colour, "kind": "line", **more}


def _losses(line: Line) -> Line:
    """Return only the moments with a loss."""
    lost = [(at, value) for at, value in zip(line.at_s, line.values, strict=True) if value]
    return Line(at_s=[at for at, _ in lost], values=[value for _, value in lost])


def _spread(name: str, spread: Spread, colour: str) -> list[Values]:
    if not any(spread.count):
        return []
    both = (("p50", spread.p50_s, _DASHES[4]), ("p99 or longest", spread.high_s, _DASHES[0]))
    return [
        {
            "label": f"{name} {statistic}",
            "x": spread.at_s,
            "y": values,
            "colour": colour,
            "kind": "line",
            "dash": dash,
            "counts": spread.count,
        }
        for statistic, values, dash in both
    ]


def _curve(curve: Curve) -> Values:
    return {"p": curve.percentiles, "y": curve.values_s, "count": curve.count}
