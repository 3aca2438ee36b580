"""Small, exact recordings for tests of `analysis`, without a kernel.

Tests give times in seconds from the start of the load; they are stored as nanoseconds, like those of a journal.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING, Any

from loadsim.analysis.dataset import Dataset
from loadsim.analysis.judge import summary_of
from loadsim.fates import Outcome
from loadsim.record.facts import DriverFacts, EndState, Facts, ServerFacts
from loadsim.record.recording import Recording, Records, empty
from loadsim.record.records import ACCEPT, ATTEMPT, FAILURE, LAYOUTS, SAMPLE, SOCKET, AcceptFlag, Layout, Where

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadsim.analysis.summary import Summary

Row = dict[str, Any]

#: The monotonic clock at the start of the load.
START_NS = 5_000_000_000_000
#: Fields with times, which a test gives in seconds.
_MOMENTS = {
    "intended", "started", "connected", "replied", "ended", "accepted", "closed", "first", "last", "time",
}  # fmt: skip
_HANDSHAKE_S = 30e-6

SETTINGS: dict[str, Any] = {
    "name": "made-up",
    "seed": 7,
    "server": {
        "backlog": 128, "nofile": 64, "leak": 0.0, "leak_of": "connection", "extra_fds": 0, "close_after": 0.0,
        "accept_delay": 0.0, "pause": 0.0, "pause_every": 0.5, "on_emfile": "sleep", "emfile_delay": 0.1,
        "idle_threads": 0, "prewarm_fds": 0,
    },
    "client": {
        "rate": 200.0, "stages": None, "clients": None, "arrivals": "constant", "max_in_flight": 20_000,
        "duration": 3.0, "attempts": None, "hold": 0.0, "exchange": "hello", "close": "fin", "connect_timeout": 2.0,
        "reply_timeout": 2.0, "processes": 1, "sources": 1,
    },
    "sysctl": {},
    "network": {"namespace": "private", "address": "127.0.0.1", "port": 0},
    "thresholds": {"expect": [], "abort": []},
}  # fmt: skip


def ns(seconds: float) -> int:
    """Return the clock's value `seconds` after the start of the load."""
    return START_NS + round(seconds * 1e9)


def packed(address: str) -> list[int]:
    """Return an address in the form of an accept record: four little-endian words."""
    raw = ipaddress.ip_address(address).packed.ljust(16, b"\0")
    return [int.from_bytes(raw[i : i + 4], "little") for i in range(0, 16, 4)]


def source(index: int) -> str:
    """Return the address of the driver's source with this index."""
    return f"127.0.0.{index + 1}"


def attempt(number: int, at: float = 0.0, **changes: Any) -> Row:  # noqa: ANN401 -- any field of a record
    """Return a successful attempt: connected in 30 us, replied to and ended within a millisecond."""
    took = {"connected": at + _HANDSHAKE_S, "replied": at + 0.0005, "ended": at + 0.001}
    row = {"number": number, "intended": at, "started": at, **took, "port": 10_000 + number, "outcome": Outcome.OK}
    return {**row, **changes}


def unanswered(number: int, at: float = 0.0, **changes: Any) -> Row:  # noqa: ANN401 -- any field of a record
    """Return an attempt without an answer to its SYNs for two seconds."""
    row = attempt(number, at, connected=None, replied=None, ended=at + 2.0, outcome=Outcome.CONNECT_TIMEOUT)
    return {**row, "syn_retransmits": 1, "errno": 110, **changes}


def unserved(number: int, at: float = 0.0, **changes: Any) -> Row:  # noqa: ANN401 -- any field of a record
    """Return an attempt that connected and got no reply for two seconds."""
    return {**attempt(number, at, replied=None, ended=at + 2.0, outcome=Outcome.REPLY_TIMEOUT), **changes}


def accept(of: Row, after: float = 0.0002, **changes: Any) -> Row:  # noqa: ANN401 -- any field of a record
    """Return the accept record of an attempt, `after` its connection, closed a millisecond later.

    An unclosed connection is a leaked one, unless `flags` differs.
    """
    connected = of["connected"] if of["connected"] is not None else of["started"]
    moment = connected + after
    gone = of["ended"] is not None and of["ended"] < moment
    row = {
        "accepted": moment, "closed": moment + 0.001, "fd": 8, "open_fds": 9, "age_ms": round(after * 1000),
        "peer": packed("127.0.0.1"), "port": of["port"], "state": 8 if gone else 1,
        "flags": AcceptFlag.LEAKED if changes.get("closed", moment) is None else 0,
    }  # fmt: skip
    return {**row, **changes}


def failure(at: float, count: int = 1, **changes: Any) -> Row:  # noqa: ANN401 -- any field of a record
    """Return a failure record: EMFILE in accept, at 64 open descriptors."""
    row = {"first": at, "last": at + 0.001, "count": count, "open_fds": 64, "errno": 24, "where": Where.ACCEPT}
    return {**row, **changes}


def sample(at: float, **changes: Any) -> Row:  # noqa: ANN401 -- any field of a record
    """Return a sample with only its time; other fields are unread."""
    unread = {name: -1 for name, _ in SAMPLE.fields}
    return {**unread, "time": at, **changes}


def seen(of: Row, at: float, state: int = 1, inode: int = 0, **changes: Any) -> Row:  # noqa: ANN401 -- any field
    """Return the server's socket of an attempt in the kernel's table; inode 0: it has no owner."""
    row = {"time": at, "inode": inode, "client": packed("127.0.0.1"), "port": of["port"], "state": state}
    return {**row, **changes}


def facts(**changes: Any) -> Facts:  # noqa: ANN401 -- any field of Facts, ServerFacts as server_<field>
    """Return the facts of a successful run; `server_...` and `end_...` set fields of its parts."""
    parts = {name: _part(changes, name) for name in ("server", "end")}
    server = ServerFacts(**{
        "pid": 4242, "address": "127.0.0.1", "port": 9999, "backlog_asked": 128, "backlog": 128,
        "nofile_soft": 64, "nofile_hard": 64, "baseline_fds": 8, "threads": 1, **parts["server"],
    })  # fmt: skip
    end = EndState(**{
        "queue": 0, "server_states": {}, "open_fds": 8, "fds_end": 8, "fd_map": "fffesseL",
        **parts["end"],
    })  # fmt: skip
    drivers = [DriverFacts(share=0, pid=4243, cpu_ns=300_000_000, wall_ns=3_000_000_000, nofile_soft=20_000)]
    plain = Facts(
        scenario="made-up", description="Made by hand.", seed=7, settings=SETTINGS, complete=True, interrupted=None,
        start_ns=START_NS, load_end_ns=ns(5.0), judged_ns=ns(5.1), server=server, drivers=drivers,
        namespace="private", end=end,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def summarise(made: Recording) -> Summary:
    """Return the summary of a recording."""
    return summary_of(Dataset.of(made))


def settings(**tables: Row) -> Row:
    """Return the settings of a run with some keys of some tables changed."""
    return {**SETTINGS, **{name: {**SETTINGS[name], **table} for name, table in tables.items()}}


def recording(
    attempts: Iterable[Row] = (),
    accepts: Iterable[Row] = (),
    failures: Iterable[Row] = (),
    samples: Iterable[Row] = (),
    *,
    canary: Iterable[Row] = (),
    held: Iterable[Row] = (),
    sockets: Iterable[Row] = (),
    **changes: Any,  # noqa: ANN401 -- as for `facts`
) -> Recording:
    """Return a recording of these rows; accept records are sorted by time."""
    ordered = sorted(accepts, key=lambda row: float(row["accepted"]))
    return Recording(
        attempts=_records(ATTEMPT, list(attempts)),
        accepts=_records(ACCEPT, ordered),
        failures=_records(FAILURE, list(failures)),
        samples=_records(SAMPLE, list(samples)),
        canary=_records(ATTEMPT, list(canary)),
        held=_records(ATTEMPT, list(held)),
        sockets=_records(SOCKET, list(sockets)),
        facts=facts(**changes),
    )


def _part(changes: Row, name: str) -> Row:
    """Remove the changes to one part of the facts from all changes, and return them."""
    names = [key for key in changes if key.startswith(name + "_")]
    return {key.removeprefix(name + "_"): changes.pop(key) for key in names}


def _records(layout: Layout, rows: list[Row]) -> Records:
    assert layout in LAYOUTS.values()
    records = empty(layout, len(rows))
    for index, row in enumerate(rows):
        for name, value in row.items():
            records[name][index] = _stored(name, value)
    return records


def _stored(name: str, value: Any) -> Any:  # noqa: ANN401 -- a number or the words of an address
    if name not in _MOMENTS:
        return value
    return 0 if value is None else ns(value)
