"""A refusal by the kernel becomes a sentence with the remedy; a bug in loadsim keeps its traceback."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from loadsim.errors import EnvironmentRefusedError, RecordingError, ScenarioError, explanation


def refusal(number: int, path: str | None = None) -> OSError:
    """Return the error that Python raises for an errno."""
    return OSError(number, os.strerror(number), path)


def after(first: OSError, second: OSError) -> OSError:
    """Return an error that was raised during the handling of another one."""
    second.__context__ = first
    return second


def wrapped(error: OSError) -> trio.TrioInternalError:
    """Return the error with which trio wraps an error of its own."""
    outer = trio.TrioInternalError("internal error in Trio")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("raised", "says", "remedy"),
    [
        (refusal(errno.EMFILE), "the kernel refused loadsim something: Too many open files", "ulimit -n 1024"),
        (refusal(errno.ENOSPC, "/results/a"), "/results/a: No space left on device", "free space there"),
        (refusal(errno.ENOENT, "fd"), "the kernel refused loadsim something: No such file", "do not touch a result"),
        (MemoryError(), "Cannot allocate memory", "ulimit -v"),
        (ImportError("x.so: failed to map segment from shared object"), "Cannot allocate memory", "ulimit -v"),
        (ExceptionGroup("", [refusal(errno.EMFILE), refusal(errno.ENOMEM)]), "Too many open files", "ulimit -n 1024"),
        (after(refusal(errno.ENOMEM), refusal(errno.EEXIST)), "Cannot allocate memory", "ulimit -v"),
        (wrapped(refusal(errno.EMFILE)), "Too many open files", "ulimit -n 1024"),
    ],
)
def test_a_refusal_of_the_kernel(raised: BaseException, says: str, remedy: str) -> None:
    """It names the place, the message of the kernel and the remedy, also in a group or wrapped by trio."""
    found = explanation(raised)
    assert isinstance(found, EnvironmentRefusedError)
    reason, _, advice = str(found).partition("; ")
    assert says in reason
    assert remedy in advice


def test_an_error_raised_on_purpose_comes_first() -> None:
    """In a group the error that loadsim raised on purpose is reported."""
    meant = ScenarioError("unknown key backlg")
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
def test_a_bug_in_loadsim_is_not_explained(mistake: BaseException) -> None:
    """One bug anywhere in a group needs the traceback."""
    assert explanation(mistake) is None
