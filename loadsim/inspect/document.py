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
    """Return a look for machines; see `inspect_schema`."""
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
        "time_left_s": pace.left_s(now.room) if pace is not None else None,
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
    """Return rows as plain values; a holder is {pid, name, fd}."""
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
    """Return all processes and listeners for machines."""
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


def _a(kind: str | list[str], says: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- whatever a schema has
    return {"type": kind, "description": says, **more}


def _object(says: str, fields: dict[str, Any]) -> dict[str, Any]:
    return _a("object", says, properties=fields, required=sorted(fields), additionalProperties=False)


def _list(says: str, of: dict[str, Any]) -> dict[str, Any]:
    return _a("array", says, items=of)


_MAYBE_INTEGER = ["integer", "null"]
_MAYBE_NUMBER = ["number", "null"]

_HOLDER = _object(
    "A descriptor of some process.",
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
                    "held: holders are known; queue: complete, not yet accepted; handshake: the last ACK is missing; "
                    "closed: its process has closed it; none: no socket at all; unheld: holder not found; remote: "
                    "another machine.",
                    enum=["held", "queue", "handshake", "closed", "none", "unheld", "remote"],
                ),
                "inode": _a(_MAYBE_INTEGER, "Its inode; 0: no file has it."),
                "state": _a("string", "Its TCP state."),
                "holders": _list("Who has it (holders found).", _HOLDER),
            },
        ),
    ]
}
_ROW = _object(
    "An open file with all its descriptors, or a connection that the process has no descriptor for.",
    {
        "fds": _list("Its numbers; none: it waits for one.", {"type": "integer"}),
        "inode": _a(_MAYBE_INTEGER, "null: it has none of its own, such as an epoll."),
        "kind": _a("string", "file, pipe, terminal, device, epoll ..., of sockets the protocol: TCP, UDP, unix ..."),
        "role": _a("string", "Of sockets: LISTENING, CONNECTED, QUEUED, SYN-SENT, PHANTOM, CLOSE-WAIT, BOUND ..."),
        "state": _a("string", "TCP state as the kernel names it: CLOSE_WAIT."),
        "family": _a("string", 'IPv4, IPv6, dual-stack or "IPv4 in IPv6".'),
        "local": _a("string", "Address and port at this end, or the name of a unix socket."),
        "remote": _a("string", "The same of the other end."),
        "local_port": _a("integer", "0: none."),
        "remote_port": _a("integer", "0: none."),
        "recv_q": _a(_MAYBE_INTEGER, "Bytes unread (a FIN counts one); of a listener: its accept queue."),
        "send_q": _a(_MAYBE_INTEGER, "Bytes not acknowledged; of a listener: the backlog, its queue holds one more."),
        "drops": _a(_MAYBE_INTEGER, "Packets that a listener or a bound socket dropped since it was made."),
        "retransmits": _a("integer", "Times that the packet now under way was sent again."),
        "idle_s": _a(_MAYBE_NUMBER, "Seconds since data last went either way, or since it was connected."),
        "path": _a("string", "What /proc/PID/fd/N points to; of unix sockets stream, datagram or seqpacket."),
        "held_bytes": _a("integer", "Bytes on disk of a deleted file."),
        "other": _OTHER_END,
        "others": _list("The same open file in other processes (holders found).", _HOLDER),
        "queued": _a("integer", "Of a listener: connections seen to wait for it."),
        "rivals": _a("integer", "Of a listener: others on its port (SO_REUSEPORT)."),
        "closing": _a("string", 'What closing it would do; "": nobody else would notice.'),
    },
)
_GROUP = _object(
    "Descriptors that are alike.",
    {
        "kind": _a("string", "TCP, UDP, unix, file, listening, other ..."),
        "state": _a("string", "TCP state, or deleted."),
        "where": _a("string", '"to 10.0.3.7:5432", "on :8080".'),
        "fds": _a("integer", "How many; all groups add up to open_fds."),
        "change": _a(_MAYBE_INTEGER, "Since the look before; null: there was none (--over)."),
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
            "Who it is.",
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
        "hard": _a("integer", "What the process may raise it to."),
        "growth_per_s": _a(_MAYBE_NUMBER, "Change of open_fds per second between two looks (--over)."),
        "time_left_s": _a(_MAYBE_NUMBER, "Until the limit at that growth; null: it does not grow."),
        "groups": _list("All descriptors, by kind, state and peer, largest first.", _GROUP),
        "suspects": _list(
            "What is wrong.",
            _object(
                "One thing.",
                {"sentence": _a("string", "In words."), "leaks": _a("boolean", "Descriptors nobody needs are held.")},
            ),
        ),
        "remedies": _list(
            "What helps.",
            _object(
                "One remedy.",
                {"when": _a("string", "When.", enum=["NOW", "LATER", "NOT"]), "text": _a("string", "What to do.")},
            ),
        ),
        "rows": _list("Every open file of it, by --sort; those that --kind, --state and --socket-port choose.", _ROW),
        "waiting": _list("Connections in its accept queues: no descriptor yet.", _ROW),
        "knocking": _list("Clients on this machine that have no socket here: SYN-SENT or PHANTOM.", _ROW),
        "host": _object(
            "What the whole machine allows.",
            {
                "file_nr": _a(_MAYBE_INTEGER, "Open files of the machine (fs.file-nr)."),
                "file_max": _a(_MAYBE_INTEGER, "Their limit (fs.file-max)."),
                "inotify": _a(_MAYBE_INTEGER, "inotify instances found of its user."),
                "inotify_max": _a(_MAYBE_INTEGER, "Their limit."),
            },
        ),
        "other_namespace": _a("boolean", "Whether it has another network namespace than loadsim."),
        "missing": _list("What could not be seen, with the command that would show it.", {"type": "string"}),
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
            "queue": _a("integer", "Connections that wait for accept()."),
            "backlog": _a("integer", "In force; the queue holds one more."),
            "drops": _a(_MAYBE_INTEGER, "Packets dropped since it was made."),
            "inode": _a("integer", "Its inode."),
            "holders": _list("Who has it.", _HOLDER),
        },
    )
    fields = {
        "format": _a("integer", "Version of this document.", const=1),
        "processes": _list("By share of their limit.", process),
        "listeners": _list("By port.", listener),
        "unreadable": _a("integer", "Processes whose descriptors may not be read."),
    }
    return {"$schema": _DIALECT, "title": "loadsim inspect --json", **_object("All processes.", fields)}
