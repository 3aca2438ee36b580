"""The accept trace pairs connections with accept() calls, and agrees with the simulated server's journal."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio
from perf_rights import needs_trace
from simulated import spec_in

from loadsim.kernel.accept_trace import AcceptTrace, Event
from loadsim.record.journal import Journal
from loadsim.record.recording import column, records_of
from loadsim.targets.simulated import simulated_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadsim.kernel.accept_trace import Wait
    from loadsim.scenario.specs import ServerSpec

pytestmark = pytest.mark.real
CLIENT = b"\x7f\0\0\x01".ljust(16, b"\0")


class FakeRing:
    """A ring with fixed events."""

    def __init__(self, *events: Event, lost: int = 0) -> None:
        self.lost = lost
        self._events = list(events)

    def read(self) -> Sequence[Event]:
        """Return the events at the first call."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Do nothing."""


def test_connections_are_accepted_first_in_first_out() -> None:
    """The order of rings does not matter, other processes do not count, and waiting connections are counted."""
    entered = [Event(time, 0, (CLIENT, port)) for time, port in ((10, 1), (20, 2), (30, 3))]
    rings = [FakeRing(entered[2], entered[0], lost=2), FakeRing(Event(15, 8), Event(25, 9), Event(40, 9), entered[1])]
    trace = AcceptTrace(rings, lambda pid: pid == 9)  # type: ignore[arg-type]

    assert [(one.port, one.entered_ns, one.accepted_ns) for one in trace.take()] == [(1, 10, 25), (2, 20, 40)]
    assert (trace.waiting, trace.lost) == (1, 2)


def test_accept_calls_without_a_connection_are_counted() -> None:
    """An accept() on another listener of the same process is unmatched, not paired with a later connection."""
    events = (Event(10_000_000, 0, (CLIENT, 1)), Event(15_000_000, 9), Event(500_000_000, 9))
    trace = AcceptTrace([FakeRing(*events)], lambda _: True)  # type: ignore[list-item]

    assert [one.accepted_ns for one in trace.take()] == [15_000_000]
    assert (trace.waiting, trace.unmatched) == (0, 1)


def test_an_accept_traced_before_its_connection_is_no_wait() -> None:
    """An accept() less than a millisecond before its connection, on another processor, is paired with it."""
    events = (Event(9, 9), Event(10, 0, (CLIENT, 1)), Event(100, 0, (CLIENT, 2)), Event(120, 9))
    trace = AcceptTrace([FakeRing(*events)], lambda _: True)  # type: ignore[list-item]

    assert [(one.entered_ns, one.accepted_ns) for one in trace.take()] == [(10, 10), (100, 120)]
    assert (trace.waiting, trace.unmatched) == (0, 0)


def test_the_newest_events_are_left_for_the_next_call() -> None:
    """The newest events are not paired yet, because an older one may still be missing."""
    now = time.monotonic_ns() + 60_000_000_000
    trace = AcceptTrace([FakeRing(Event(now, 0, (CLIENT, 1)), Event(now + 1, 9))], lambda _: True)  # type: ignore[list-item]

    assert trace.take() == []
    assert trace.waiting == 0


@needs_trace
def test_the_trace_and_the_server_agree(tmp_path: Path) -> None:
    """Trace and journal agree on each connection, and on the time of its accept() to microseconds at the median."""
    spec = spec_in(tmp_path, accept_delay_s=0.002, backlog=100)
    ports, waits = trio.run(serve, spec, 50)
    with Journal.attach(Path(spec.accepts_path)) as journal:
        accepts = records_of(journal)

    assert [one.port for one in waits] == ports == column(accepts, "port").tolist()
    late = column(accepts, "accepted") - np.array([one.accepted_ns for one in waits])
    assert (late > 0).all()
    assert np.median(late) < 200_000
    assert np.diff([one.accepted_ns - one.entered_ns for one in waits]).max() > 0


async def serve(spec: ServerSpec, clients: int) -> tuple[list[int], list[Wait]]:
    """Connect clients at once, and return their ports and the traced waits."""
    folder = Path(spec.accepts_path).parent
    files = {"stdout_path": folder / "stdout", "stderr_path": folder / "stderr"}
    async with simulated_server(spec, namespace=None, **files) as server:
        with AcceptTrace.of(server.facts.port, server.facts.pid.__eq__) as trace:
            await server.go(time.monotonic_ns())
            socks = [socket.create_connection((server.facts.address, server.facts.port)) for _ in range(clients)]
            await trio.sleep(0.5)
            waits = trace.take(settle=True)
            assert (trace.waiting, trace.lost) == (0, 0)
            ports = [sock.getsockname()[1] for sock in socks]
            for sock in socks:
                sock.close()
    return ports, waits
