"""Records as numpy structured arrays, and one whole recording as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from loadsim.record.events import SOCKET
from loadsim.record.journal import HEADER_BYTES

if TYPE_CHECKING:
    from loadsim.record.events import Layout
    from loadsim.record.facts import Facts
    from loadsim.record.journal import Journal

#: One-dimensional structured array, one element per record, field names as in `events`.
Records = np.ndarray[tuple[int], np.dtype[np.void]]

_NUMPY_CODE = {"B": "u1", "H": "<u2", "I": "<u4", "Q": "<u8", "q": "<i8", "16s": ("<u4", (4,))}


def dtype_of(layout: Layout) -> np.dtype[np.void]:
    """Return the numpy dtype of a layout: same names, same offsets, same size."""
    names = [name for name, _ in layout.fields]
    spec: Any = {
        "names": names,
        "formats": [_NUMPY_CODE[code] for _, code in layout.fields],
        "offsets": [layout.offset_of(name) for name in names],
        "itemsize": layout.size,
    }
    return cast("np.dtype[np.void]", np.dtype(spec))


def records_of(journal: Journal) -> Records:
    """Return a copy of the used slots of a journal, in the order in which they were taken."""
    dtype = dtype_of(journal.layout)
    view = np.frombuffer(journal.buffer, dtype=dtype, count=journal.used, offset=HEADER_BYTES)
    return cast("Records", view[view[journal.layout.fields[0][0]] != 0].copy())


def empty(layout: Layout, length: int = 0) -> Records:
    """Return zeroed records of a layout."""
    return np.zeros(length, dtype=dtype_of(layout))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One run as it was recorded: the narrow waist between the run and its meaning."""

    attempts: Records
    accepts: Records
    failures: Records
    samples: Records
    canary: Records  # attempts of the canary
    held: Records  # requests on the connections that it holds, as attempts: `connected` is when theirs was
    facts: Facts
    sockets: Records = field(default_factory=lambda: empty(SOCKET))
