"""What Ctrl-C does before a command has begun, and after its end.

Before, which is mostly importing, it ends the process at once, with a sentence and the status of the signal: an
exception may be dropped there, where Python finalises an object. After, it changes nothing: the result is shown. This
is imported first, and itself imports next to nothing.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal takes ten milliseconds longer, for its enumerations
import os
from collections.abc import Iterator  # noqa: TC003 -- TYPE_CHECKING would import typing
from contextlib import contextmanager, suppress


@contextmanager
def heeded() -> Iterator[None]:
    """Take Ctrl-C for the rest of the process; the block is all that it does. Whoever ignores it goes on doing so."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _end)
    try:
        yield
    finally:
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        exec("")  # noqa: S102 -- CPython ends `python -m` by SIGINT where it interrupted the last text that was compiled


def begin() -> None:
    """From now on there is something to end well: Ctrl-C raises KeyboardInterrupt, as always."""
    if _signal.getsignal(_signal.SIGINT) is _end:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _end(number: int, _: object) -> None:
    with suppress(OSError):
        os.write(2, b"loadsim: interrupted\n")
    os._exit(128 + number)
