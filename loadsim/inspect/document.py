"""A snapshot as one JSON document, and the JSON Schema that describes it. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loadsim.inspect.diagnosis import closing, growth, remedies, suspects
from loadsim.inspect.groups import groups_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadsim.inspect.groups import Choice
    from loadsim.inspect.model import Row, Snapshot
    from loadsim.inspect.overview import Overview


FORMAT = 1


def document(now: Snapshot, before: Snapshot | None, choice: Choice) -> dict[str, Any]:
    """Return a snapshot as JSON values; `process_schema` describes them."""
    groups = groups_of(now, before)
    found = suspects(now, groups)
    pace = growth(before, now)
    return {
        "format": FORMAT,
        "process": _process(now),
        "open_fds": now.open_fds,
        "soft": now.soft,
        "hard": now.hard,
        "growth_per_s": pace.per_s if pace is not None else None,
        "time_left_s": pace.left_s(now.free_fds) if pace is not None else None,
        "groups": [asdict(group) for group in groups],
        "suspects": [asdict(one) for one in found],
        "remedies": [{"when": when, "text": text} for when, text in remedies(now, pace, found)],
        "rows": _rows(choice.of(now.rows)),
        "waiting": _rows(choice.of(now.waiting)),
        "knocking": _rows(choice.of(now.knocking)),
        "host": asdict(now.host),
        "other_namespace": bool(now.enter),
        "missing": list(now.missing),
    }


def _process(now: Snapshot) -> dict[str, Any]:
    return asdict(now.process) | {"argv": list(now.process.argv)}


def _rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    # asdict() would turn the named tuples of holders into lists
    return [
        {
            **asdict(row),
            "fds": list(row.fds),
            "closing": closing(row),
            "others": [one._asdict() for one in row.others],
            "other": None
            if row.other is None
            else {**asdict(row.other), "holders": [one._asdict() for one in row.other.holders]},
        }
        for row in rows
    ]


def overview_document(overview: Overview) -> dict[str, Any]:
    """Return all processes and listeners as JSON values; `overview_schema` describes them."""
    return {
        "format": FORMAT,
        "processes": [
            {
                "pid": one.process.pid,
                "name": one.process.name,
                "unit": one.process.unit,
                "open_fds": one.open_fds,
                "soft": one.limits.soft,
                "hard": one.limits.hard,
            }
            for one in overview.processes
        ],
        "listeners": [
            {**asdict(one), "holders": [holder._asdict() for holder in one.holders]} for one in overview.listeners
        ],
        "unreadable": overview.unreadable,
    }


_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _a(kind: str | list[str], says: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- any keyword of JSON Schema
    return {"type": kind, "description": says, **more}


def _object(says: str, fields: dict[str, Any]) -> dict[str, Any]:
    return _a("object", says, properties=fields, required=sorted(fields), additionalProperties=False)


def _list(says: str, of: dict[str, Any]) -> dict[str, Any]:
    return _a("array", says, items=of)


_MAYBE_INTEGER = ["integer", "null"]
_MAYBE_NUMBER = ["number", "null"]

_HOLDER = _object(
    "A descriptor of a process.",
    {
        "pid": _a("integer", "Its process."),
        "name": _a("string", "Name of that process (comm)."),
        "fd": _a("integer", "Its number there."),
    },
)
_OTHER_END = {
    "anyOf": [
        {"type": "null"},
        _object(
            "The other end of a connection, or of a pair of unix sockets.",
            {
                "where": _a(
                    "string",
                    "held: holders are known; queue: connected, not yet accepted; handshake: the last ACK is missing; "
                    "closed: its process has closed it; none: no socket; unheld: holder not found; remote: "
                    "another machine.",
                    enum=["held", "queue", "handshake", "closed", "none", "unheld", "remote"],
                ),
                "inode": _a(_MAYBE_INTEGER, "Its inode; 0: no descriptor refers to it."),
                "state": _a("string", "Its TCP state."),
                "holders": _list("The descriptors that hold it, as far as found.", _HOLDER),
            },
        ),
    ]
}
_ROW = _object(
    "An open file with all its descriptors, or a connection without a descriptor.",
    {
        "fds": _list("Its descriptors; empty: it has none yet.", {"type": "integer"}),
        "inode": _a(_MAYBE_INTEGER, "null: it has no inode of its own, such as an epoll."),
        "kind": _a("string", "file, pipe, terminal, device, epoll ...; for sockets the protocol: TCP, UDP, unix ..."),
        "role": _a("string", "Sockets only: LISTENING, CONNECTED, QUEUED, SYN-SENT, PHANTOM, CLOSE-WAIT, BOUND ..."),
        "state": _a("string", "TCP state as the kernel names it: CLOSE_WAIT."),
        "family": _a("string", 'IPv4, IPv6, dual-stack or "IPv4 in IPv6".'),
        "local": _a("string", "Address and port at this end, or the name of a unix socket."),
        "remote": _a("string", "The same for the other end."),
        "local_port": _a("integer", "0: none."),
        "remote_port": _a("integer", "0: none."),
        "recv_q": _a(
            _MAYBE_INTEGER, "Unread bytes (a FIN counts as one); for a listener: clients in its accept queue."
        ),
        "send_q": _a(_MAYBE_INTEGER, "Unacknowledged bytes; for a listener: its backlog (the queue holds one more)."),
        "drops": _a(_MAYBE_INTEGER, "Packets that a listener or a bound socket has dropped since it was created."),
        "retransmits": _a("integer", "How often the current packet has been sent again."),
        "idle_s": _a(_MAYBE_NUMBER, "Seconds since the last data in either direction, or since it was connected."),
        "path": _a("string", "Target of /proc/PID/fd/N; for unix sockets stream, datagram or seqpacket."),
        "held_bytes": _a("integer", "Bytes on disk that a deleted file still uses."),
        "other": _OTHER_END,
        "others": _list("The same open file in other processes, as far as found.", _HOLDER),
        "queued": _a("integer", "Listeners only: connections found in its accept queue."),
        "rivals": _a("integer", "Listeners only: other listeners on its port (SO_REUSEPORT)."),
        "closing": _a("string", 'The effect of closing it; "": none that is visible elsewhere.'),
    },
)
_GROUP = _object(
    "Similar descriptors.",
    {
        "kind": _a("string", "TCP, UDP, unix, file, listening, other ..."),
        "state": _a("string", "TCP state, or deleted."),
        "where": _a("string", '"to 10.0.3.7:5432", "on :8080".'),
        "fds": _a("integer", "How many; all groups add up to open_fds."),
        "change": _a(_MAYBE_INTEGER, "Since the snapshot before; null: only one was taken (--over)."),
        "detail": _a("string", "In words: peers, folders, bytes held, accept queues."),
        "oldest_idle_s": _a(_MAYBE_NUMBER, "The longest idle time in the group."),
        "newest_idle_s": _a(_MAYBE_NUMBER, "The shortest."),
    },
)


def process_schema() -> dict[str, Any]:
    """Return the schema of `loadsim inspect TARGET --json`."""
    fields = {
        "format": _a("integer", "Version of this document.", const=1),
        "process": _object(
            "The process.",
            {
                "pid": _a("integer", "Process id."),
                "name": _a("string", "comm, at most 15 characters."),
                "argv": _list("Command line.", {"type": "string"}),
                "uid": _a("integer", "Owner."),
                "unit": _a("string", 'systemd unit, "" for none.'),
                "up_s": _a("number", "Seconds since it was started."),
            },
        ),
        "open_fds": _a("integer", "Open descriptors."),
        "soft": _a("integer", "RLIMIT_NOFILE, the limit in force: one more than the highest number."),
        "hard": _a("integer", "The hard limit: how far the process may raise the soft one."),
        "growth_per_s": _a(_MAYBE_NUMBER, "Change of open_fds per second between two snapshots (--over)."),
        "time_left_s": _a(_MAYBE_NUMBER, "Seconds until the limit at that growth; null: no growth."),
        "groups": _list("All descriptors, by kind, state and peer, largest first.", _GROUP),
        "suspects": _list(
            "The problems, worst first.",
            _object(
                "One problem.",
                {"sentence": _a("string", "In words."), "leaks": _a("boolean", "Unneeded descriptors stay open.")},
            ),
        ),
        "remedies": _list(
            "The remedies.",
            _object(
                "One remedy.",
                {"when": _a("string", "When.", enum=["NOW", "LATER", "NOT"]), "text": _a("string", "What to do.")},
            ),
        ),
        "rows": _list("Its open files, in the order of --sort, filtered by --kind, --state, --socket-port.", _ROW),
        "waiting": _list("Connections in its accept queues, without a descriptor yet.", _ROW),
        "knocking": _list("Local clients for which the process has no socket: SYN-SENT or PHANTOM.", _ROW),
        "host": _object(
            "Limits of the machine.",
            {
                "file_nr": _a(_MAYBE_INTEGER, "Open files of the machine (fs.file-nr)."),
                "file_max": _a(_MAYBE_INTEGER, "Their limit (fs.file-max)."),
                "inotify": _a(_MAYBE_INTEGER, "inotify instances of its user, as far as found."),
                "inotify_max": _a(_MAYBE_INTEGER, "Their limit."),
            },
        ),
        "other_namespace": _a("boolean", "Whether its network namespace is not that of loadsim."),
        "missing": _list("Parts that could not be read, each with the command that shows it.", {"type": "string"}),
    }
    return {"$schema": _DIALECT, "title": "loadsim inspect TARGET --json", **_object("One process.", fields)}


def overview_schema() -> dict[str, Any]:
    """Return the schema of `loadsim inspect --json`."""
    process = _object(
        "A process with open descriptors.",
        {
            "pid": _a("integer", "Process id."),
            "name": _a("string", "comm."),
            "unit": _a("string", "systemd unit."),
            "open_fds": _a("integer", "Open descriptors."),
            "soft": _a("integer", "RLIMIT_NOFILE."),
            "hard": _a("integer", "Its hard limit."),
        },
    )
    listener = _object(
        "A TCP listener of this network namespace.",
        {
            "local": _a("string", "Address."),
            "port": _a("integer", "Port."),
            "family": _a("string", "IPv4, IPv6 or dual-stack."),
            "queue": _a("integer", "Connections in its accept queue."),
            "backlog": _a("integer", "The backlog in force; the queue holds one more."),
            "drops": _a(_MAYBE_INTEGER, "Packets dropped since it was created."),
            "holders": _list("The descriptors that hold it, as far as found.", _HOLDER),
        },
    )
    fields = {
        "format": _a("integer", "Version of this document.", const=1),
        "processes": _list("All processes, by share of their limit.", process),
        "listeners": _list("All TCP listeners, by port.", listener),
        "unreadable": _a("integer", "Number of processes with unreadable descriptors."),
    }
    return {"$schema": _DIALECT, "title": "loadsim inspect --json", **_object("All processes.", fields)}
