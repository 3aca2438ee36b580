"""The timeline of a run for the terminal: equal steps of time, and marked moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.analysis.clock import telling
from loadsim.analysis.findings.recovery import describe_step
from loadsim.analysis.summary import Mark, Timeline
from loadsim.fates import Fate, Outcome
from loadsim.record.recording import Ints, column, has_outcome, known
from loadsim.units import NANOSECONDS

if TYPE_CHECKING:
    from loadsim.analysis.dataset import Dataset
    from loadsim.record.facts import StepFacts

#: More steps do not fit into any terminal.
_STEPS = 240
#: Twice the time between two samples: in a step without a sample nothing was read.
_SHORTEST_NS = NANOSECONDS // 50


def timeline_of(data: Dataset, numbers: dict[str, float]) -> Timeline:
    """Return the open descriptors and the accept queue in at most 240 steps of equal length."""
    start, stop = data.clock.start, max(data.clock.load_end, data.clock.start + _SHORTEST_NS)
    count = int(min(_STEPS, (stop - start) // _SHORTEST_NS))
    step = -(-(stop - start) // count)
    edges = start + step * np.arange(count + 1)
    return Timeline(
        step_s=step / NANOSECONDS,
        open_fds=_open_fds(data, edges),
        fd_limit=None if data.limit_changes else data.fd_limit,
        queue=_queue(data, edges),
        queue_capacity=None if data.capacity is None or data.capacity.changes else data.capacity.highest,
        canary=_canary(data, edges),
        marks=sorted(_marks(data, numbers), key=lambda mark: mark.at_s),
    )


def _open_fds(data: Dataset, edges: Ints) -> list[int | None]:
    """Return the most descriptors that a sample or an accept record shows in each step."""
    times, open_fds = known(data.recording.samples, "open_fds")
    accepts = column(data.recording.accepts, "open_fds")[data.waits.taken]
    all_times = np.concatenate([times, data.waits.accepted[data.waits.taken]])
    return _shown(_largest(all_times, np.concatenate([open_fds, accepts]), edges))


def _queue(data: Dataset, edges: Ints) -> list[int | None]:
    """Return the longest queue in each step, by the samples and by both journals."""
    times, seen = known(data.recording.samples, "queue")
    largest = _largest(times, seen, edges)
    if len(data.queue.times):
        largest = np.maximum(largest, data.queue.within(data.capacity).peaks(edges))
    return _shown(largest)


def _canary(data: Dataset, edges: Ints) -> list[bool | None]:
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
