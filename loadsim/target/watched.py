"""What a command and a server that runs already have in common: they write no records, so others do it for them.

Owns the journals of what is seen of such a server, and the words for how it is seen.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loadsim.kernel.accepts import AcceptTrace
from loadsim.kernel.perf import NotVisibleError
from loadsim.record.events import ACCEPT, FAILURE, SOCKET
from loadsim.record.facts import ServerFacts
from loadsim.record.journal import Journal
from loadsim.target.books import Books
from loadsim.target.sightings import Sightings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AsyncExitStack

    from loadsim.kernel.emfile import EmfileCounter
    from loadsim.kernel.followed import Followed
    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.scenario.spec import WatchedSpec


def open_sightings(
    stack: AsyncExitStack,
    spec: WatchedSpec,
    followed: Followed | None,
    diag: SockDiag | None,
    *,
    port: int,
    counter: EmfileCounter | None,
    trace: AcceptTrace | None,
) -> Sightings:
    """Return who writes the journals of a server that writes none itself; they are open as long as the stack.

    `diag` sees both ends of its connections; None: nobody does.
    """
    accepts = Journal.create(Path(spec.accepts_path), ACCEPT, 1)
    failures = Journal.create(Path(spec.failures_path), FAILURE, spec.failures_capacity)
    books = stack.enter_context(Books(accepts, failures))
    sockets = stack.enter_context(Journal.create(Path(spec.sockets_path), SOCKET, spec.sockets_capacity))
    return Sightings(books, sockets, followed=followed, diag=diag, port=port, counter=counter, trace=trace)


def trace_accepts(
    stack: AsyncExitStack, port: int, pids: Callable[[], Sequence[int]]
) -> tuple[AcceptTrace | None, list[str]]:
    """Return who traces the accept() calls of these processes as long as the stack; where nobody can, why, in words."""
    known: set[int] = set()
    strangers: set[int] = set()

    def is_server(pid: int) -> bool:
        if pid not in known and pid not in strangers:
            known.update(pids())
            strangers.update({pid} - known)
        return pid in known

    try:
        return stack.enter_context(AcceptTrace.of(port, is_server)), []
    except NotVisibleError as why:
        where = f"the kernel may be traced ({why})" if os.geteuid() == 0 else "loadsim runs as root"
        return None, [_BETWEEN_LOOKS.format(where=where)]


def facts_of(
    followed: Followed, command: list[str], *, address: str, port: int, emfile_seen: bool, started: bool = True
) -> ServerFacts:
    """Return what is known of a server whose processes are followed; raises ProcessGoneError where it has ended."""
    limits, listener = followed.limits(), followed.listener()
    return ServerFacts(
        pid=followed.pid,
        address=address,
        port=port,
        backlog_asked=None,
        backlog=listener.backlog if listener else None,
        nofile_soft=limits.soft,
        nofile_hard=limits.hard,
        baseline_fds=followed.open_fds(),
        threads=followed.threads(),
        command=command,
        emfile_seen=emfile_seen,
        started=started,
    )


_BETWEEN_LOOKS: Final = (
    "Accept latency is known between two bounds, accept_least.* and accept.*, from looks at the queue and at who is "
    "served; exactly, where {where}."
)


def whose(followed: Followed, what: str) -> str:
    """Return the sentence that says whose descriptors are read, and whose CPU; `what` is the tree: "the command"."""
    holders = len(followed.holders())
    which = {0: "its fullest process", 1: "the process that holds the listener"}.get(
        holders, f"the fullest of the {holders} processes that hold the listener"
    )
    return f"Descriptors and limit are those of {which}; CPU and memory are those of {what}."


def not_counted(why: NotVisibleError) -> str:
    """Return the sentence that says that EMFILE is not seen."""
    return f"EMFILE is not visible, so that nothing is said of it: {why}."
