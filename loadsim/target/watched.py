"""What a command and a server that runs already have in common: they write no records, so others do it for them.

Owns the journals of what is seen of such a server, and the words for how it is seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loadsim.record.events import ACCEPT, FAILURE, SOCKET
from loadsim.record.facts import ServerFacts
from loadsim.record.journal import Journal
from loadsim.target.books import Books
from loadsim.target.sightings import Sightings

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from loadsim.kernel.followed import Followed
    from loadsim.kernel.perf import EmfileCounter, NotVisibleError
    from loadsim.kernel.sockdiag import SockDiag
    from loadsim.scenario.spec import WatchedSpec


def open_sightings(
    stack: AsyncExitStack,
    spec: WatchedSpec,
    followed: Followed | None,
    diag: SockDiag,
    *,
    port: int,
    counter: EmfileCounter | None,
) -> Sightings:
    """Return who writes the journals of a server that writes none itself; they are open as long as the stack."""
    accepts = Journal.create(Path(spec.accepts_path), ACCEPT, 1)
    failures = Journal.create(Path(spec.failures_path), FAILURE, spec.failures_capacity)
    books = stack.enter_context(Books(accepts, failures))
    sockets = stack.enter_context(Journal.create(Path(spec.sockets_path), SOCKET, spec.sockets_capacity))
    return Sightings(books, sockets, followed=followed, diag=diag, port=port, counter=counter)


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
        queue_limit=listener.limit if listener else None,
        nofile_soft=limits.soft,
        nofile_hard=limits.hard,
        baseline_fds=followed.open_fds(),
        threads=followed.threads(),
        command=command,
        emfile_seen=emfile_seen,
        started=started,
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
