"""Records as numpy structured arrays, and one whole recording as a value."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from loadsim.errors import RecordingError
from loadsim.record.events import SOCKET
from loadsim.record.journal import HEADER_BYTES
from loadsim.record.untrusted import DAMAGE, opened

if TYPE_CHECKING:
    from pathlib import Path

    from loadsim.record.events import Layout
    from loadsim.record.facts import Facts
    from loadsim.record.journal import Journal

#: One-dimensional structured array, one element per record, field names as in `events`.
Records = np.ndarray[tuple[int], np.dtype[np.void]]

#: Bytes of the records of one file: 16 million attempts.
LARGEST_RECORDS = 1 << 30
#: What numpy writes before the records of the largest layout takes 2,000 bytes.
_LARGEST_HEADER = 10_000
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
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


def read_array(path: Path, dtype: np.dtype[np.void]) -> Records:
    """Return the records of a .npy file; raises RecordingError unless it holds exactly what it promises.

    The promise is held against the size of the file before space is taken for it.
    """
    try:
        with opened(path) as file:
            version = np.lib.format.read_magic(file)
            shape, _, found = _HEADERS[version](file, max_header_size=_LARGEST_HEADER)
            if found != dtype or len(shape) != 1:
                raise RecordingError(f"{path}: has records of another shape; another version of loadsim wrote it")
            left = os.fstat(file.fileno()).st_size - file.tell()
            if shape[0] < 0 or shape[0] * dtype.itemsize != left:
                raise RecordingError(f"{path}: is damaged (holds {left:,} bytes, and promises {shape[0]:,} records)")
            raise_if_too_large(path, left)
            return cast("Records", np.fromfile(file, dtype=dtype, count=shape[0]))
    except (OSError, SyntaxError, TokenError, *DAMAGE) as error:  # numpy reads old headers with tokenize
        raise RecordingError(f"{path}: is damaged ({error})") from error


def raise_if_too_large(path: Path, size: int) -> None:
    """Raise RecordingError for more bytes of records than are read at once."""
    if size > LARGEST_RECORDS:
        raise RecordingError(f"{path}: holds {size:,} bytes of records, and {LARGEST_RECORDS:,} are read at most")


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
