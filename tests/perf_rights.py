"""A mark for tests that count with perf: skipped, with the reason, where this kernel does not permit it."""

from __future__ import annotations

import os

import pytest

from loadsim.kernel.perf import EmfileCounter, NotVisibleError


def _refusal() -> str:
    try:
        with EmfileCounter(os.getpid()):
            return ""
    except NotVisibleError as why:
        return str(why)


needs_perf = pytest.mark.skipif(bool(_refusal()), reason=f"EMFILE is not visible: {_refusal()}")
