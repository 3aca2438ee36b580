"""Whether the moments and codes of a recording can be true: a single flipped bit makes a run of centuries.

Checked once, where a folder is read, so that nobody downstream counts seconds between absurd times. Must not know what
a run means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadsim.errors import RecordingError
from loadsim.fates import Outcome
from loadsim.record.events import Where

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loadsim.record.arrays import Recording

#: A load lasts a day at most, and a client's connection can be held for one; what was before is seconds.
_LONGEST_NS = 3 * 86_400 * 10**9
_EARLIEST_NS = 86_400 * 10**9
_MOMENTS = {
    "attempts": ("intended", "started", "connected", "replied", "ended"),
    "canary": ("intended", "started", "connected", "replied", "ended"),
    "held": ("intended", "started", "connected", "replied", "ended"),
    "accepts": ("accepted", "closed"),
    "failures": ("first", "last"),
    "samples": ("time",),
    "sockets": ("time",),
}
#: Largest value of each code; a code beyond it has no meaning.
_CODES = {
    "attempts": ("outcome", max(Outcome)),
    "canary": ("outcome", max(Outcome)),
    "held": ("outcome", max(Outcome)),
    "failures": ("where", max(Where)),
}
#: The largest number of anything that is counted: connections, failures, descriptors, bytes, nanoseconds.
_MOST = 1 << 56


def raise_if_impossible(path: Path, recording: Recording) -> None:
    """Raise RecordingError, naming the file in this folder, where a record or the facts cannot be true."""
    for name, says in _impossible(recording):
        raise RecordingError(f"{path / name}: is damaged ({says}); make the run anew")


def _impossible(recording: Recording) -> Iterator[tuple[str, str]]:
    facts, start = recording.facts, recording.facts.start_ns
    if not 0 <= start < _MOST << 5:
        yield "manifest.json", f"start_ns is {start}"
    first, last = max(start - _EARLIEST_NS, 1), start + _LONGEST_NS
    steps = [(f"steps.{index}.done_ns", step.done_ns) for index, step in enumerate(facts.steps)]
    noted = (("load_end_ns", facts.load_end_ns), ("judged_ns", facts.judged_ns), ("exited_ns", facts.server.exited_ns))
    for name, moment in (*noted, *steps):
        if moment and not first <= moment <= last:
            yield "manifest.json", f"{name} is days away from the start"
    for array, names in _MOMENTS.items():
        records = getattr(recording, array)
        for name in names:
            moments = records[name]
            if ((moments != 0) & ((moments < np.uint64(first)) | (moments > np.uint64(last)))).any():
                yield f"{array}.npy", f"{name} of a record is days away from the start"
    for array, (name, largest) in _CODES.items():
        if (getattr(recording, array)[name] > largest).any():
            yield f"{array}.npy", f"a record has an unknown {name}"
    if (recording.failures["count"] > _MOST).any() or any(
        (recording.samples[name] > _MOST).any() for name in recording.samples.dtype.names or () if name != "time"
    ):
        yield "samples.npy", "a number of a record is too large"
