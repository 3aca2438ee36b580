"""The run over time: the lines of the page's charts, and the equal steps of the terminal's picture, with its marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from loadsim.analysis.findings.recovery import describe_step
from loadsim.analysis.latency import Latencies, accept_latencies, connect_latencies
from loadsim.analysis.recovery import telling
from loadsim.analysis.summary import Mark, Timeline
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import Ints, between, column, emfile_records, has_outcome, known
from loadsim.record.records import Where
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.dataset import Dataset
    from loadsim.record.facts import StepFacts


Floats = npt.NDArray[np.float64]

#: Points of a line by default.
MOST = 4000
#: Steps in which latencies are collected, and the shortest one: two samples.
_STEPS, _SHORTEST_NS = 240, NANOSECONDS // 50
#: Rates are taken over a tenth of a second, as often as the kernel's counters are read, or over longer.
_RATES, _SHORTEST_RATE_NS = 400, NANOSECONDS // 10
#: Below this many latencies the largest stands for the 99th percentile.
_ENOUGH = 100
#: Points of a percentile curve.
_CURVE = 200
#: Numbers of open descriptors for which the longest wait is shown.
_FDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Values at moments, seconds from the start of the load; ascending in time."""

    at_s: list[float]
    values: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Latencies in equal steps of time, by the moment at which each ended; one element for each step."""

    at_s: list[float]  # the middle of the step
    p50_s: list[float | None]  # None: nothing ended in this step
    high_s: list[float | None]  # the 99th percentile; the largest where the step has fewer than 100
    count: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """The longest wait in the accept queue at each number of open descriptors, or at each few of them."""

    open_fds: list[int]  # ascending: after the accept() that ended the wait
    longest_s: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Everything that a page draws of one run; a line is empty where nothing was read."""

    span_s: float  # the time axis: from 0 to the end of the load
    fd_limit: int | None  # None where it changes
    fd_limits: Line  # where it changes: each value holds until the next
    queue_capacity: int | None  # what the queue holds at most; None where it changes, or was not read
    open_fds: Line  # of samples and accept records; each value holds until the next
    queue: Line  # from the journals of both sides; each value holds until the next
    queue_samples: Line  # what the kernel showed, 100 times a second
    overflows: Line  # packets lost at a full queue since the reading before
    accept: Spread
    connect: Spread
    cpu_cores: Line  # of the server
    emfile_per_s: Line
    answered: Line  # canaries by their start: how long each waited for its answer, in seconds
    unanswered: Line  # how long the others waited without an answer
    curves: list[Curve]  # of connect, accept and reply, each where it has latencies; all of group 0
    waits: Waits


def series_of(data: Dataset, *, most: int = MOST) -> Series:
    """Return the lines of a run, each of at most `most` points (at least 4)."""
    axis = _Axis.of(data, most)
    samples, recording = data.recording.samples, data.recording
    accept, connect = accept_latencies(data), connect_latencies(recording.attempts)
    own = "listen_overflows" if recording.facts.namespace == "private" else "drops"
    return Series(
        span_s=axis.span_s,
        fd_limit=None if data.limit_changes else data.fd_limit,
        fd_limits=_limits(data, axis),
        queue_capacity=None if data.capacity is None or data.capacity.changes else data.capacity.highest,
        open_fds=_open_fds(data, axis),
        queue=_queue(data, axis),
        queue_samples=axis.held(*known(samples, "queue")),
        overflows=_counted(axis, *known(samples, own)),
        accept=_spread(axis, accept),
        connect=_spread(axis, connect),
        cpu_cores=_rate(axis, *known(samples, "cpu_ns")),
        emfile_per_s=_emfile(data, axis),
        answered=_canaries(data, axis, good=True),
        unanswered=_canaries(data, axis, good=False),
        curves=[
            *_curve("connect", connect.nanoseconds),
            *_curve("accept", accept.nanoseconds),
            *_curve("reply", between(recording.attempts, "intended", "replied")),
        ],
        waits=_waits_by_fds(data),
    )


def thinned(times: Ints, values: Ints, most: int) -> Ints:
    """Return the points to keep: at most `most`, which is at least 4.

    Each of equal stretches of time keeps its first, smallest, largest and last point: drawn at the width of a stretch,
    the line looks the same as with all points.
    """
    if len(times) <= most:
        return np.arange(len(times))
    stretches = most // 4
    keep = _extremes(times, values, stretches)
    # A line that climbs steadily needs two points for each stretch: the stretches can be shorter.
    while 2 * len(keep) <= most and stretches < most:
        stretches *= 2
        finer = _extremes(times, values, stretches)
        if len(finer) > most:
            break
        keep = finer
    return keep


def _extremes(times: Ints, values: Ints, stretches: int) -> Ints:
    """Return the first, smallest, largest and last point of each of `stretches` equal stretches of time."""
    span = max(int(times[-1] - times[0]), 1)
    stretch = ((times - times[0]) / span * stretches).astype(np.int64).clip(max=stretches - 1)
    first = np.flatnonzero(np.diff(stretch, prepend=-1))
    last = np.append(first[1:], len(times)) - 1
    by_size = np.lexsort((values, stretch))
    return np.unique(np.concatenate([first, by_size[first], by_size[last], last]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """The time axis: the load, in nanoseconds of the monotonic clock."""

    start: int
    stop: int
    most: int

    @classmethod
    def of(cls, data: Dataset, most: int) -> _Axis:
        start = data.clock.start
        return cls(start=start, stop=max(data.clock.load_end, start + _SHORTEST_NS), most=max(most, 4))

    @property
    def span_s(self) -> float:
        return (self.stop - self.start) / NANOSECONDS

    def seconds(self, times: Ints | Floats) -> list[float]:
        return [round(second, 6) for second in ((times - self.start) / NANOSECONDS).tolist()]

    def held(self, times: Ints, values: Ints) -> Line:
        """Return values that hold until the next, beginning with the one in force at the start."""
        stop = int(np.searchsorted(times, self.stop, "right"))
        begin = max(int(np.searchsorted(times, self.start, "right")) - 1, 0)
        times, values = times[begin:stop].clip(min=self.start), values[begin:stop]
        keep = thinned(times, values, self.most)
        return Line(at_s=self.seconds(times[keep]), values=values[keep].tolist())

    def edges(self, most: int, shortest: int) -> Ints:
        """Return the edges of at most `most` equal steps that are at least `shortest` long."""
        count = max(int(min(most, (self.stop - self.start) // shortest)), 1)
        step = -(-(self.stop - self.start) // count)
        return self.start + step * np.arange(count + 1)


def _limits(data: Dataset, axis: _Axis) -> Line:
    """Return the limit where a timeline changes it."""
    if not data.limit_changes:
        return Line(at_s=[], values=[])
    times = np.array([axis.start, *data.limit_changes, axis.stop])
    return axis.held(times, data.limits_at(times))


def _canaries(data: Dataset, axis: _Axis, *, good: bool) -> Line:
    """Return how long the canaries waited that were answered (`good`), or the others."""
    canaries = telling(data.recording.canary)
    chosen = canaries[has_outcome(canaries, Outcome.OK) == good]
    times = column(chosen, "intended")
    waited = (column(chosen, "replied" if good else "ended") - times).clip(min=0)
    keep = thinned(times, waited, axis.most) if len(times) else np.arange(0)
    return Line(at_s=axis.seconds(times[keep]), values=(waited[keep] / NANOSECONDS).tolist())


def _open_fds(data: Dataset, axis: _Axis) -> Line:
    """Return the descriptors that samples and accept records show."""
    times, seen = known(data.recording.samples, "open_fds")
    taken = data.waits.taken
    all_times = np.concatenate([times, data.waits.accepted[taken]])
    order = np.argsort(all_times, kind="stable")
    values = np.concatenate([seen, column(data.recording.accepts, "open_fds")[taken]])
    return axis.held(all_times[order], values[order])


def _queue(data: Dataset, axis: _Axis) -> Line:
    """Return the queue by both journals, cut at its capacity: stamps are a few microseconds late."""
    curve = data.queue.within(data.capacity)
    if not len(curve.times):
        return Line(at_s=[], values=[])
    levels = curve.levels.clip(min=0)
    # The queue is empty until the first connection enters, and does not change after the last event.
    times = np.concatenate([[min(axis.start, int(curve.times[0]))], curve.times])
    line = axis.held(times, np.concatenate([[0], levels]))
    return Line(at_s=[*line.at_s, round(axis.span_s, 6)], values=[*line.values, line.values[-1]])


def _apart(times: Ints, step: int) -> Ints:
    """Return the readings that are about `step` nanoseconds apart, the first and the last among them."""
    wanted = np.searchsorted(times, np.arange(int(times[0]), int(times[-1]), step))
    return np.unique(np.append(wanted, len(times) - 1))


def _readings(axis: _Axis, times: Ints, counter: Ints) -> tuple[Ints, Ints]:
    """Return the readings of a counter as far apart as rates are taken, from the last one before the start on."""
    begin = max(int(np.searchsorted(times, axis.start, "right")) - 1, 0)
    times, counter = times[begin:], counter[begin:]
    if len(times) < 2:
        return times[:0], counter[:0]
    edges = axis.edges(_RATES, _SHORTEST_RATE_NS)
    keep = _apart(times, int(edges[1] - edges[0]))
    return times[keep], counter[keep]


def _counted(axis: _Axis, times: Ints, counter: Ints) -> Line:
    """Return by how much a counter grew between two readings, at the moment of the second."""
    times, counter = _readings(axis, times, counter)
    return Line(at_s=axis.seconds(times[1:]), values=np.diff(counter).tolist())


def _rate(axis: _Axis, times: Ints, counter: Ints) -> Line:
    """Return how fast a counter of nanoseconds grew, per nanosecond, in the middle between two readings."""
    times, counter = _readings(axis, times, counter)
    rates = np.diff(counter) / np.diff(times).clip(min=1)
    middles = (times[1:] + times[:-1]) / 2
    inside = (middles >= axis.start) & (middles <= axis.stop)
    return Line(at_s=axis.seconds(middles[inside]), values=np.round(rates[inside], 4).tolist())


def _emfile(data: Dataset, axis: _Axis) -> Line:
    """Return the calls that failed with EMFILE, per second, in equal steps; empty if none failed."""
    failures = emfile_records(data.recording, *Where)
    if not len(failures):
        return Line(at_s=[], values=[])
    edges = axis.edges(_RATES, _SHORTEST_RATE_NS)
    counts, _ = np.histogram(column(failures, "first"), bins=edges, weights=column(failures, "count"))
    per_s = counts * NANOSECONDS / int(edges[1] - edges[0])
    return Line(at_s=axis.seconds((edges[1:] + edges[:-1]) / 2), values=np.round(per_s, 3).tolist())


def _spread(axis: _Axis, latencies: Latencies) -> Spread:
    edges = axis.edges(_STEPS, _SHORTEST_NS)
    steps = len(edges) - 1
    step = np.searchsorted(edges, latencies.known, "right") - 1
    inside = (step >= 0) & (step < steps)
    step, nanoseconds = step[inside], latencies.nanoseconds[inside]
    ordered = nanoseconds[np.lexsort((nanoseconds, step))]
    count = np.bincount(step, minlength=steps)
    begin = np.cumsum(count) - count
    high = np.where(count >= _ENOUGH, np.ceil(0.99 * count), count).astype(np.int64)
    return Spread(
        at_s=axis.seconds((edges[1:] + edges[:-1]) / 2),
        p50_s=_ranked(ordered, begin, np.ceil(0.5 * count).astype(np.int64)),
        high_s=_ranked(ordered, begin, high),
        count=count.tolist(),
    )


def _ranked(ordered: Ints, begin: Ints, rank: Ints) -> list[float | None]:
    """Return the value of this rank (from 1) in each step, in seconds; None where the rank is 0: an empty step."""
    if not len(ordered):
        return [None] * len(rank)
    values = ordered[(begin + rank - 1).clip(0, len(ordered) - 1)] / NANOSECONDS
    return [value if place else None for value, place in zip(values.tolist(), rank.tolist(), strict=True)]


def _curve(family: str, nanoseconds: Ints) -> list[Curve]:
    """Return the percentile curve of latencies by exact ranks, evenly spaced in 1 / (1 - share); none without any."""
    count = len(nanoseconds)
    if not count:
        return []
    one_in = np.geomspace(1.0, count, _CURVE)
    ranks = np.unique(np.ceil((1 - 1 / one_in) * count).astype(np.int64).clip(1, count))
    ranks = np.unique(np.append(ranks, count))
    values = np.sort(nanoseconds)[ranks - 1] / NANOSECONDS
    # rank r of n: (r - 1) / n of the latencies are shorter; the largest is at 100 %
    percentiles = np.where(ranks == count, 100.0, 100.0 * ranks / count)
    return [
        Curve(
            group=0,
            family=family,
            percentiles=np.round(percentiles, 6).tolist(),
            values_s=values.tolist(),
            count=count,
        )
    ]


def _waits_by_fds(data: Dataset) -> Waits:
    """Return the longest wait at each number of open descriptors; large numbers are put together."""
    taken = data.waits.taken
    fds, waited = column(data.recording.accepts, "open_fds")[taken], data.waits.waited[taken]
    if not len(fds):
        return Waits(open_fds=[], longest_s=[])
    edges = np.unique(np.geomspace(max(int(fds.min()), 1), int(fds.max()) + 1, _FDS).astype(np.int64))
    place = np.searchsorted(edges, fds, "right") - 1
    order = np.lexsort((waited, place))
    largest = order[np.append(np.flatnonzero(np.diff(place[order])), len(order) - 1)]
    return Waits(open_fds=fds[largest].tolist(), longest_s=(waited[largest] / NANOSECONDS).tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The latencies of all runs of one group together, as percentiles: merged, never averaged."""

    group: int
    family: str  # "connect" | "accept" | "reply"
    percentiles: list[float]  # 0 to 100, ascending
    values_s: list[float]  # one each
    count: int  # samples


#: More steps do not fit into any terminal.
_TIMELINE_STEPS = 240
#: Twice the time between two samples: in a step without a sample nothing was read.
_SHORTEST_STEP_NS = NANOSECONDS // 50


def timeline_of(data: Dataset, numbers: dict[str, float]) -> Timeline:
    """Return the open descriptors and the accept queue in at most 240 steps of equal length."""
    start, stop = data.clock.start, max(data.clock.load_end, data.clock.start + _SHORTEST_STEP_NS)
    count = int(min(_TIMELINE_STEPS, (stop - start) // _SHORTEST_STEP_NS))
    step = -(-(stop - start) // count)
    edges = start + step * np.arange(count + 1)
    return Timeline(
        step_s=step / NANOSECONDS,
        open_fds=_open_fds_per_step(data, edges),
        fd_limit=None if data.limit_changes else data.fd_limit,
        queue=_queue_per_step(data, edges),
        queue_capacity=None if data.capacity is None or data.capacity.changes else data.capacity.highest,
        canary=_canary_per_step(data, edges),
        marks=sorted(_marks(data, numbers), key=lambda mark: mark.at_s),
    )


def _open_fds_per_step(data: Dataset, edges: Ints) -> list[int | None]:
    """Return the most descriptors that a sample or an accept record shows in each step."""
    times, open_fds = known(data.recording.samples, "open_fds")
    accepts = column(data.recording.accepts, "open_fds")[data.waits.taken]
    all_times = np.concatenate([times, data.waits.accepted[data.waits.taken]])
    return _shown(_largest(all_times, np.concatenate([open_fds, accepts]), edges))


def _queue_per_step(data: Dataset, edges: Ints) -> list[int | None]:
    """Return the longest queue in each step, by the samples and by both journals."""
    times, seen = known(data.recording.samples, "queue")
    largest = _largest(times, seen, edges)
    if len(data.queue.times):
        largest = np.maximum(largest, data.queue.within(data.capacity).peaks(edges))
    return _shown(largest)


def _canary_per_step(data: Dataset, edges: Ints) -> list[bool | None]:
    """Return for each step whether every canary that started in it was answered; [] without a canary."""
    canaries = telling(data.recording.canary)
    if not len(canaries):
        return []
    bad = (~has_outcome(canaries, Outcome.OK)).astype(np.int64)
    return [None if worst < 0 else worst == 0 for worst in _largest(column(canaries, "intended"), bad, edges).tolist()]


def _largest(times: Ints, values: Ints, edges: Ints) -> Ints:
    """Return the largest value in each step between edges; -1 where there is none."""
    largest = np.full(len(edges) - 1, -1)
    step = np.searchsorted(edges, times, "right") - 1
    inside = (step >= 0) & (step < len(largest))
    np.maximum.at(largest, step[inside], values[inside])
    return largest


def _shown(values: Ints) -> list[int | None]:
    return [int(value) if value >= 0 else None for value in values]


def _was_made(step: StepFacts) -> bool:
    """Whether a step had an effect: as asked, or as far as the server's hard limit permits."""
    return step.refused is None or step.after != step.before


def _marks(data: Dataset, numbers: dict[str, float]) -> list[Mark]:
    marks = []
    if "emfile.first_at" in numbers:
        marks.append(Mark(at_s=numbers["emfile.first_at"], label="first EMFILE"))
    full = data.queue_full_at_s
    if full is not None:
        lost = numbers.get("listen.overflows") or data.ledger.having(Fate.DROPPED).any()
        marks.append(Mark(at_s=full, label="queue full: SYNs dropped" if lost else "queue full"))
    steps = data.recording.facts.steps
    marks += [Mark(at_s=data.clock.at(step.done_ns), label=describe_step(step)) for step in steps if _was_made(step)]
    died = data.recording.facts.server.exited_ns
    if died:
        marks.append(Mark(at_s=data.clock.at(died), label="the server ended"))
    return marks
