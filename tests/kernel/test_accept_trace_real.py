"""When connections came and were accepted: as the kernel traced it, beside what the simulated server wrote down."""

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


class Told:
    """A ring that tells what it was given, once."""

    def __init__(self, *events: Event, lost: int = 0) -> None:
        self.lost = lost
        self._events = list(events)

    def read(self) -> Sequence[Event]:
        """Return all of it."""
        told, self._events = self._events, []
        return told

    def close(self) -> None:
        """Do nothing."""


def test_the_first_that_came_is_the_first_that_is_accepted() -> None:
    """Whichever processor tells of it first; who else accepts does not count, and who came and waits is counted."""
    came = [Event(time, 0, (CLIENT, port)) for time, port in ((10, 1), (20, 2), (30, 3))]
    rings = [Told(came[2], came[0], lost=2), Told(Event(15, 8), Event(25, 9), Event(40, 9), came[1])]
    trace = AcceptTrace(rings, lambda pid: pid == 9)  # type: ignore[arg-type]

    assert [(one.port, one.entered_ns, one.accepted_ns) for one in trace.take()] == [(1, 10, 25), (2, 20, 40)]
    assert (trace.waiting, trace.lost) == (1, 2)


def test_calls_for_which_nobody_came_are_told() -> None:
    """The same process accepts at another door: what it took is not taken for a wait in silence."""
    events = (Event(10_000_000, 0, (CLIENT, 1)), Event(15_000_000, 9), Event(500_000_000, 9))
    trace = AcceptTrace([Told(*events)], lambda _: True)  # type: ignore[list-item]

    assert [one.accepted_ns for one in trace.take()] == [15_000_000]
    assert (trace.waiting, trace.unmatched) == (0, 1)


def test_a_coming_that_is_told_after_its_accept_was_no_wait() -> None:
    """Another processor was quicker, by less than a millisecond."""
    events = (Event(9, 9), Event(10, 0, (CLIENT, 1)), Event(100, 0, (CLIENT, 2)), Event(120, 9))
    trace = AcceptTrace([Told(*events)], lambda _: True)  # type: ignore[list-item]

    assert [(one.entered_ns, one.accepted_ns) for one in trace.take()] == [(10, 10), (100, 120)]
    assert (trace.waiting, trace.unmatched) == (0, 0)


def test_what_has_just_happened_waits_for_what_other_processors_tell() -> None:
    """An older event may still be on its way: the newest ones are told with the next."""
    now = time.monotonic_ns() + 60_000_000_000
    trace = AcceptTrace([Told(Event(now, 0, (CLIENT, 1)), Event(now + 1, 9))], lambda _: True)  # type: ignore[list-item]

    assert trace.take() == []
    assert trace.waiting == 0


@needs_trace
def test_the_trace_and_the_server_agree(tmp_path: Path) -> None:
    """Each connection by its port, and when accept() returned it, to some microseconds at the median."""
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
    """Have so many clients connect at once, and return their ports with what was traced."""
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
