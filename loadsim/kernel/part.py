"""The part of a child of ours, from its first to its last word: the other side of `partner`.

Owns how it ends: what the kernel refuses it is a sentence on its standard error, not a traceback. Must not know what
the part is.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import trio

from loadsim.errors import explanation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def play(part: Callable[..., Awaitable[int | None]], *args: object) -> NoReturn:
    """Run a part to its end, and leave with the exit status that it returns, None = 0; a refusal has its own."""
    try:
        status = trio.run(part, *args)
    except Exception as raised:
        error = explanation(raised)
        if error is None:
            raise
        with suppress(OSError):
            sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.exit(status or 0)
