"""Ctrl-C before a command begins its work, and after it has ended.

Before (mostly during imports), Ctrl-C ends the process at once with a message and the status of the signal. An
exception is not enough there: Python drops one that is raised while it finalises an object. After the end Ctrl-C is
ignored, because the result is already printed. This module is imported first, so it imports almost nothing.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # importing signal takes 10 ms more for its enumerations
import os
from collections.abc import Iterator  # noqa: TC003 -- TYPE_CHECKING would import typing
from contextlib import contextmanager, suppress


@contextmanager
def handled() -> Iterator[None]:
    """Handle Ctrl-C for the rest of the process, whose whole work is the block. An ignored SIGINT stays ignored."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _end)
    try:
        yield
    finally:
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        exec("")  # noqa: S102 -- resets a flag: CPython exits `python -m` by SIGINT if the last compilation was interrupted


def begin() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on: the command has work to end properly."""
    if _signal.getsignal(_signal.SIGINT) is _end:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _end(number: int, _: object) -> None:
    with suppress(OSError):
        os.write(2, b"loadsim: interrupted\n")
    os._exit(128 + number)
