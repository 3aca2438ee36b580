"""Files of a result folder that somebody else may have made: read in bounded space and time, or refused in a sentence.

Owns how a file is opened (regular ones alone: a FIFO would wait for ever, /dev/zero has no end) and what JSON may hold.
Nothing is executed or unpickled. Must not know what the files mean. Imports the standard library alone.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from loadsim import __version__
from loadsim.errors import RecordingError, ScenarioError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A manifest takes 4 kB, the plan of 10,000 runs 200 kB.
LARGEST_TEXT = 16_000_000
_HIGHEST = 1 << 63
#: What numbers and texts that do not fit together end in, wherever they meet.
DAMAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

#: What open() says of links that go round in a circle, and of sockets and devices that nobody is behind.
_NO_FILES = (errno.ELOOP, errno.ENODEV, errno.ENXIO)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading, without waiting.

    Raises OSError where it may not be opened, ValueError where it is something else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILES:
            raise ValueError("it is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError("it is no regular file")
    with open(fd, "rb") as file:  # noqa: PTH123 -- there is no path that could be opened so
        yield file


def read_text(path: Path) -> str:
    """Return a text file; raises OSError where it cannot be read, ValueError where it is too large or no UTF-8."""
    with opened(path) as file:
        raw = file.read(LARGEST_TEXT + 1)
    if len(raw) > LARGEST_TEXT:
        raise ValueError(f"more than {LARGEST_TEXT:,} bytes")
    return raw.decode()


def parse_json(text: str) -> Any:  # noqa: ANN401 -- whatever the text holds
    """Return a JSON document of numbers that can be computed with; raises ValueError otherwise."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def raise_if_newer(path: Path, values: Any, known: int) -> None:  # noqa: ANN401 -- whatever a file holds
    """Raise RecordingError where a document names another format than the `known` one and those before it."""
    written = values.get("format") if isinstance(values, dict) else None
    if isinstance(written, int) and written > known:
        says = f"has format {written}, this loadsim {__version__} reads up to {known}; upgrade loadsim"
        raise RecordingError(f"{path}: {says}")


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Turn what comes of numbers that do not fit together into RecordingError, with the folder that they are from."""
    try:
        yield
    except (*DAMAGE, ScenarioError) as error:
        says = f"what it holds does not fit together ({type(error).__name__}: {str(error)[:200]})"
        remedy = "make the run anew, or, where nobody has touched it, report this as a mistake of loadsim"
        raise RecordingError(f"{path}: is damaged: {says}; {remedy}") from error


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _whole(text: str) -> int:
    if not -_HIGHEST <= (value := int(text)) < _HIGHEST:
        raise ValueError(f"{text[:20]}... is too large a number")
    return value
