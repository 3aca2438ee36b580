"""Which few metrics people read first when groups of runs stand side by side, and what they call them.

A table: what is swept decides. Owns the words of column headings and their legends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.comparison import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.analysis.comparison import Row

_SERVED = Column(metric="attempts.served", heading="served")
_LATE = Column(metric="attempts.late", heading="1 s late", legend="served, but the first SYN was lost and sent again")
_PHANTOM = Column(metric="fate.phantom", heading="phantom", legend="connected at the client only")
_NEVER = Column(metric="fate.dropped", heading="never in", legend="connect timed out")
_QUEUED = Column(metric="fate.queued", heading="left queued", legend='"connected" and never accepted')
_EMFILE = Column(metric="emfile.count", heading="EMFILE", legend='calls that failed with "Too many open files"')
_PAUSE = Column(metric="accept.pause_max", heading="longest pause", legend="clients waited and none was accepted")
_REPLY = Column(metric="reply.p99", heading="reply p99")
_QUEUE = Column(metric="queue.max", heading="queue peak", of="queue.capacity")
_FDS = Column(metric="fds.max", heading="fds peak", of="fds.limit")
_CPU = Column(metric="server.cpu", heading="CPU", legend="cores, over the whole load")

_RECOVERY = (
    Column(metric="recovery.time", heading="back after", legend="from the relief to a canary's first answer"),
    Column(metric="recovery.last_bad", heading="last bad", legend="the last canary after it that was not answered"),
    Column(metric="server.cpu_at_limit", heading="CPU at limit", legend="cores, while out of descriptors"),
    Column(metric="emfile.rate", heading="EMFILE"),
    Column(metric="canary.availability", heading="canaries"),
)
_OF_A_QUEUE = (_QUEUE, _SERVED, _LATE, _PHANTOM, _NEVER, _REPLY)
_OF_DESCRIPTORS = (_FDS, _SERVED, _EMFILE, _QUEUED, _NEVER, _REPLY)
#: What is swept -> its columns.
_COLUMNS = {
    "server.backlog": _OF_A_QUEUE,
    "sysctl.net.core.somaxconn": _OF_A_QUEUE,
    "server.pause": _OF_A_QUEUE,
    "server.accept_delay": _OF_A_QUEUE,
    "server.nofile": _OF_DESCRIPTORS,
    "server.leak": _OF_DESCRIPTORS,
    "server.on_emfile": (
        _SERVED,
        _EMFILE,
        Column(metric="server.cpu_at_limit", heading="CPU at limit", legend="cores, while out of descriptors"),
        Column(metric="fate.shed", heading="shed", legend="accepted and closed at once, unserved"),
        _QUEUED,
        _PAUSE,
    ),
}
_ANYTHING = (_SERVED, _LATE, _EMFILE, _QUEUE, Column(metric="accept.p99", heading="accept p99"), _CPU)


def columns_of(axes: Sequence[str], rows: Sequence[Row]) -> list[Column]:
    """Return the columns for what is swept; those that nobody measured, or that are 0 everywhere, are left out."""
    recovers = any(row.metric.startswith("recovery.") for row in rows)
    chosen = _RECOVERY if recovers else next((_COLUMNS[name] for name in axes if name in _COLUMNS), _ANYTHING)
    told = {row.metric for row in rows if any(one is not None and one.high for one in row.estimates)}
    return [column for column in chosen if column.metric in told]
