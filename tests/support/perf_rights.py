"""Marks for tests that count or trace with perf: skipped, with the reason, where this kernel does not permit it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from loadsim.kernel.accept_trace import AcceptTrace
from loadsim.kernel.perf import EmfileCounter, NotVisibleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


def _refusal(attempt: Callable[[], AbstractContextManager[object]]) -> str:
    try:
        with attempt():
            return ""
    except NotVisibleError as why:
        return str(why)


_TO_COUNT = _refusal(lambda: EmfileCounter(os.getpid()))
_TO_TRACE = _refusal(lambda: AcceptTrace.of(1, bool))

needs_perf = pytest.mark.skipif(bool(_TO_COUNT), reason=f"EMFILE is not visible: {_TO_COUNT}")
needs_trace = pytest.mark.skipif(bool(_TO_TRACE), reason=f"accept() cannot be traced: {_TO_TRACE}")
