"""What the kernel refuses loadsim itself is a sentence with the remedy; a mistake of ours stays one."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from loadsim.errors import EnvironmentRefusedError, RecordingError, ScenarioError, explanation


def refusal(number: int, path: str | None = None) -> OSError:
    """Return what Python raises for an errno."""
    return OSError(number, os.strerror(number), path)


def after(first: OSError, second: OSError) -> OSError:
    """Return an error that was raised while another one was handled."""
    second.__context__ = first
    return second


def wrapped(error: OSError) -> trio.TrioInternalError:
    """Return what trio makes of an error that hits trio itself."""
    outer = trio.TrioInternalError("internal error in Trio")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("raised", "says", "remedy"),
    [
        (refusal(errno.EMFILE), "the kernel refused loadsim something: Too many open files", "ulimit -n 1024"),
        (refusal(errno.ENOSPC, "/results/a"), "/results/a: No space left on device", "free space there"),
        (refusal(errno.ENOENT, "fd"), "the kernel refused loadsim something: No such file", "leave a result alone"),
        (MemoryError(), "Cannot allocate memory", "ulimit -v"),
        (ImportError("x.so: failed to map segment from shared object"), "Cannot allocate memory", "ulimit -v"),
        (ExceptionGroup("", [refusal(errno.EMFILE), refusal(errno.ENOMEM)]), "Too many open files", "ulimit -n 1024"),
        (after(refusal(errno.ENOMEM), refusal(errno.EEXIST)), "Cannot allocate memory", "ulimit -v"),
        (wrapped(refusal(errno.EMFILE)), "Too many open files", "ulimit -n 1024"),
    ],
)
def test_a_refusal_of_the_kernel(raised: BaseException, says: str, remedy: str) -> None:
    """It names the place, what the kernel said, and the remedy; alone, in a group, or under trio's own wrapping."""
    found = explanation(raised)
    assert isinstance(found, EnvironmentRefusedError)
    said, _, advice = str(found).partition("; ")
    assert says in said
    assert remedy in advice


def test_what_was_raised_on_purpose_comes_first() -> None:
    """Of several errors the one that loadsim knows best is told."""
    meant = ScenarioError("there is no key backlg")
    assert explanation(ExceptionGroup("", [refusal(errno.EMFILE), ExceptionGroup("", [meant])])) is meant


@pytest.mark.parametrize(
    "mistake",
    [
        KeyError("x"),
        refusal(errno.EBADF),
        OSError("without a number"),
        ImportError("no module named x"),
        ExceptionGroup("", [RecordingError("gone"), KeyError("x")]),
    ],
)
def test_a_mistake_of_ours_is_not_explained_away(mistake: BaseException) -> None:
    """One of them anywhere, and the traceback is what is needed."""
    assert explanation(mistake) is None
