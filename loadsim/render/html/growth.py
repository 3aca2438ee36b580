"""Growth: everything against the number of open descriptors, as a drawing and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadsim.render.html.markup import Markup, joined, tag
from loadsim.render.html.parts import NOTHING, count, table, time
from loadsim.render.html.svg import Scale, box, diamond, dot, label, line, log_ticks, picture
from loadsim.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadsim.analysis.series import Waits
    from loadsim.analysis.summary import Band, Summary

#: Pixels of the drawing.
_WIDTH, _LEFT, _RIGHT = 1000, 78, 12
_TOP, _WAITS, _LOSSES, _GAP, _BOTTOM = 26, 250, 46, 18, 40


#: The narrowest readable growth drawing.
_LEAST = 780


GROWN = "\u2191"


def growth_chart(summary: Summary, waits: Waits) -> Markup:
    """Return accept waits, pauses and losses by number of open descriptors, with a legend."""
    bands, axis = summary.growth, _Axis(bands=summary.growth)
    losses = [
        (name, values)
        for name, values in (
            ("EMFILE", [band.emfile for band in bands]),
            (_lost(summary), [band.overflows or 0 for band in bands]),
        )
        if any(values)
    ]
    below = _TOP + _WAITS
    height = below + len(losses) * (_LOSSES + _GAP) + _BOTTOM
    shapes = [
        *_growth_points(axis, height - _BOTTOM),
        *_waits(axis, waits),
        *(
            shape
            for place, (name, values) in enumerate(losses)
            for shape in _loss(axis, below + _GAP + place * (_LOSSES + _GAP), name, values)
        ),
        *_ticks(axis, height - _BOTTOM, summary.metrics.get("fds.limit")),
        *(
            box(
                axis.start(i),
                _TOP,
                width=axis.width,
                height=height - _TOP - _BOTTOM,
                class_="touch",
                title=_tooltip(band),
            )
            for i, band in enumerate(bands)
        ),
    ]
    title = "Waits in the accept queue by number of open descriptors"
    return joined([_legend(bands), picture(shapes, width=_WIDTH, height=height, title=title, least=_LEAST)])


def growth_table(summary: Summary) -> Markup:
    """Return the numbers of `growth_chart` as a table, a row for each band."""
    lost = _lost(summary)
    heads = ["open descriptors", "accepted", "wait p50", "p99", "max", "longest pause", "EMFILE", lost]
    rows = [
        [
            joined([tag("span", GROWN, class_="grown", title="the kernel enlarged the fd table"), " ", band.label])
            if band.growth_point
            else band.label,
            count(band.accepted),
            *(time(value) for value in (band.accept_p50_s, band.accept_p99_s, band.accept_max_s, band.pause_max_s)),
            _loss_cell(band.emfile),
            _loss_cell(band.overflows),
        ]
        for band in summary.growth
    ]
    return table(heads, rows, numbers=range(1, len(heads)), class_="growth-table")


def growth_note(summary: Summary) -> str:
    """Return how to read `growth_chart`."""
    note = "From left to right, the server has more descriptors open. All bands have the same width."
    if any(band.growth_point for band in summary.growth):
        note += f" {GROWN} marks where the kernel enlarged the fd table."
    if summary.namespace == "shared":
        note += " Lost packets are only this listener's drops (the namespace is shared); a dropped ACK counts twice."
    return note


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Maps open descriptors to pixels: all bands have the same width, descriptors are spread evenly in a band."""

    bands: Sequence[Band]

    @property
    def width(self) -> float:
        return (_WIDTH - _LEFT - _RIGHT) / len(self.bands)

    def start(self, index: int) -> float:
        return round(_LEFT + index * self.width, 1)

    def at(self, fds: int) -> float:
        """Return the pixel of a number of open descriptors."""
        index = max((i for i, band in enumerate(self.bands) if band.fds_from <= fds), default=0)
        band = self.bands[index]
        share = (min(max(fds, band.fds_from), band.fds_to) - band.fds_from + 0.5) / (band.fds_to - band.fds_from + 1)
        return round(self.start(index) + share * self.width, 1)


def _waits(axis: _Axis, waits: Waits) -> Iterator[Markup]:
    ticks = log_ticks(_times(axis, waits))
    if not ticks:
        yield label(_WIDTH / 2, _TOP + _WAITS / 2, "no connection was accepted")
        return
    scale = Scale(low=ticks[0], high=ticks[-1], start=_TOP + _WAITS, end=_TOP, log=True)
    for tick in ticks:
        yield line(_LEFT, scale.at(tick), _WIDTH - _RIGHT, scale.at(tick), "grid")
        yield label(_LEFT - 8, scale.at(tick) + 4, format_duration(tick), anchor="end")
    for fds, longest in zip(waits.open_fds, waits.longest_s, strict=True):
        yield dot(axis.at(fds), scale.at(longest), radius=1.8, class_="each")
    for index, band in enumerate(axis.bands):
        yield from _band(axis, scale, index, band)


def _band(axis: _Axis, scale: Scale, index: int, band: Band) -> Iterator[Markup]:
    """Yield a band's median and 99th percentile as lines, and its longest pause as a diamond."""
    left, right = axis.start(index) + 3, axis.start(index) + axis.width - 3
    high, class_ = band.accept_p99_s, "high"
    if high is None:
        high, class_ = band.accept_max_s, "high dashed"
    if band.accept_p50_s is not None:
        yield line(left, scale.at(band.accept_p50_s), right, scale.at(band.accept_p50_s), "p50")
    if high is not None:
        yield line(left, scale.at(high), right, scale.at(high), class_)
    if band.pause_max_s is not None:
        yield diamond((left + right) / 2, scale.at(band.pause_max_s), radius=5, class_="pause")


def _times(axis: _Axis, waits: Waits) -> list[float]:
    times = [*waits.longest_s]
    for band in axis.bands:
        times += [
            value
            for value in (band.accept_p50_s, band.accept_p99_s, band.accept_max_s, band.pause_max_s)
            if value is not None
        ]
    return times


def _loss(axis: _Axis, top: float, name: str, values: Sequence[int]) -> Iterator[Markup]:
    scale = Scale(low=0, high=max(values), start=0, end=_LOSSES - 12)
    yield label(_LEFT - 8, top + _LOSSES, name, anchor="end")
    yield line(_LEFT, top + _LOSSES, _WIDTH - _RIGHT, top + _LOSSES, "grid")
    for index, value in enumerate(values):
        if value:
            tall, middle = max(scale.at(value), 1.5), axis.start(index) + axis.width / 2
            half = min(axis.width / 2 - 6, 30)
            yield box(middle - half, top + _LOSSES - tall, width=2 * half, height=tall, class_="lost")
            yield label(middle, top + _LOSSES - tall - 4, count(value), class_="value")


def _growth_points(axis: _Axis, bottom: float) -> Iterator[Markup]:
    for index, band in enumerate(axis.bands):
        if band.growth_point:
            yield line(axis.start(index), _TOP - 4, axis.start(index), bottom, "grew")
            yield label(axis.start(index), _TOP - 8, GROWN, class_="grew-sign")


def _ticks(axis: _Axis, bottom: float, limit: float | None) -> Iterator[Markup]:
    """Yield the start of each band, the end of the last one, and the name of the axis."""
    last = axis.bands[-1]
    for index, band in enumerate(axis.bands):
        if band is last and band.fds_from == band.fds_to:
            continue
        yield label(axis.start(index), bottom + 17, count(band.fds_from), anchor="start" if index == 0 else "middle")
    at_limit = last.fds_to == limit
    text = f"{count(last.fds_to)} = the limit" if at_limit else count(last.fds_to)
    if last.fds_from == last.fds_to:
        yield label(axis.start(len(axis.bands) - 1) + axis.width / 2, bottom + 17, text, class_=_ends(at_limit))
    else:
        yield label(_WIDTH - _RIGHT, bottom + 17, text, class_=_ends(at_limit), anchor="end")
    yield label(_LEFT + (_WIDTH - _LEFT - _RIGHT) / 2, bottom + 35, "open descriptors of the server", class_="axis")


def _ends(at_limit: bool) -> str:  # noqa: FBT001 -- a fact
    return "tick limit" if at_limit else "tick"


def _tooltip(band: Band) -> str:
    high = f"p99 {time(band.accept_p99_s)}, " if band.accept_p99_s is not None else ""
    lost = f", {count(band.overflows)} SYNs lost" if band.overflows else ""
    return (
        f"{band.label}: {count(band.accepted)} accepted, wait p50 {time(band.accept_p50_s)}, {high}"
        f"max {time(band.accept_max_s)}, longest pause {time(band.pause_max_s)}, {count(band.emfile)} EMFILE{lost}"
        if band.accepted or band.emfile
        else f"{band.label}: {NOTHING}"
    )


def _legend(bands: Sequence[Band]) -> Markup:
    high = "wait p99 (dashed: longest wait, if there are fewer than 100 accepts)"
    items = [
        ("key-p50", "wait p50"),
        ("key-high", high),
        ("key-pause", "longest pause between two accepts"),
        ("key-each", "longest wait at each number of descriptors"),
    ]
    keys = [tag("li", tag("i", class_=f"key {key}", aria_hidden="true"), text) for key, text in items]
    if any(band.growth_point for band in bands):
        keys.append(tag("li", tag("span", GROWN, class_="grown"), " the table grew"))
    return tag("ul", *keys, class_="legend")


def _lost(summary: Summary) -> str:
    return "packets lost" if summary.namespace == "shared" else "SYNs lost"


def _loss_cell(value: int | None) -> str:
    return tag("td", tag("b", count(value)), class_="number bad") if value else count(value)
