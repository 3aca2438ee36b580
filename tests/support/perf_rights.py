"""Marks for tests that count or trace with perf: they are skipped, with the reason, if the kernel refuses it."""

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


_NO_COUNT = _refusal(lambda: EmfileCounter(os.getpid()))
_NO_TRACE = _refusal(lambda: AcceptTrace.of(1, bool))

needs_perf = pytest.mark.skipif(bool(_NO_COUNT), reason=f"EMFILE cannot be counted: {_NO_COUNT}")
needs_trace = pytest.mark.skipif(bool(_NO_TRACE), reason=f"accept() cannot be traced: {_NO_TRACE}")
