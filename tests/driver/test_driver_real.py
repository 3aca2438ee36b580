"""The driver as a process, and the conductor's side of it."""

from __future__ import annotations

import errno
import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from loads import MILLISECOND, greet, listening, open_loop, port_of, serving, spec_in
from simulated import spec_in as simulated_spec

from loadsim.errors import EnvironmentRefusedError
from loadsim.fates import Outcome
from loadsim.process.netns import private_namespace
from loadsim.record.journal import Journal
from loadsim.record.recording import Records, records_of
from loadsim.record.records import AttemptFlag
from loadsim.run.setup import driver
from loadsim.targets.simulated import simulated_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadsim.scenario.specs import LoadSpec

pytestmark = pytest.mark.real


def recorded(spec: LoadSpec) -> Records:
    """Return what a driver has written."""
    with Journal.attach(Path(spec.attempts_path)) as journal:
        return records_of(journal)


def soon() -> int:
    """Return a start in the near future."""
    return time.monotonic_ns() + 20 * MILLISECOND


def test_life_of_a_driver(tmp_path: Path) -> None:
    """Started, it makes its attempts and says what that cost; it leaves when told to, without a word."""

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as one:
            await one.go(soon())
            facts = await one.wait_finished()
            assert (0, one.child.pid, None, None) == (facts.share, facts.pid, facts.exit_status, facts.clamped)
            assert facts.nofile_soft == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            assert facts.cpu_ns > 0
            assert facts.wall_ns > 0
            assert await one.reset() == 0
            await one.leave()
            assert one.child.returncode == 0

    with serving(greet) as port:
        spec = spec_in(tmp_path, port, clients=3, attempts=20)
        trio.run(main, spec)
    assert recorded(spec)["outcome"].tolist() == [Outcome.OK] * 20
    assert (tmp_path / "stderr").read_text() == ""


def test_starts_when_told(tmp_path: Path) -> None:
    """Nothing is intended before the moment that the conductor names."""
    start_ns = time.monotonic_ns() + 300 * MILLISECOND

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as one:
            await one.go(start_ns)
            await one.wait_finished()

    with serving(greet) as port:
        spec = spec_in(tmp_path, port, **open_loop(rate=100, attempts=3))
        trio.run(main, spec)
    records = recorded(spec)
    assert [start_ns, start_ns + 10 * MILLISECOND, start_ns + 20 * MILLISECOND] == records["intended"].tolist()
    assert (records["started"] >= records["intended"]).all()


def test_freeze_then_reset(tmp_path: Path) -> None:
    """Frozen, a driver keeps what it has open; a reset says how many that were, and the server sees RST."""

    async def main(spec: LoadSpec, listener: socket.socket) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as one:
            await one.go(soon())
            accepted = [await trio.to_thread.run_sync(listener.accept) for _ in range(4)]
            await one.freeze()
            await one.wait_finished()
            assert set(recorded(spec)["flags"]) == {AttemptFlag.PENDING}
            assert await one.reset() == 4
            for sock, _ in accepted:
                with sock, pytest.raises(ConnectionResetError):
                    sock.recv(1)

    with listening() as listener:
        trio.run(main, spec_in(tmp_path, port_of(listener), clients=4, attempts=None), listener)


def test_stop(tmp_path: Path) -> None:
    """Stopped, it lets what is in flight finish, and has then finished itself."""

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as one:
            await one.go(time.monotonic_ns())
            await trio.sleep(0.1)
            await one.stop()
            with trio.fail_after(10):
                await one.wait_finished()

    with serving(greet) as port:
        spec = spec_in(tmp_path, port, hold_s=0.05, attempts=None, duration_s=3600.0)
        trio.run(main, spec)
    records = recorded(spec)
    assert set(records["outcome"]) == {Outcome.OK}
    assert (records["ended"] > 0).all()


@pytest.mark.parametrize("order", ["stop", "freeze"])
def test_interrupted_before_the_start(tmp_path: Path, order: str) -> None:
    """A driver that is stopped or frozen before it was started finishes with nothing."""

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as one:
            await (one.stop() if order == "stop" else one.freeze())
            await one.wait_finished()
            assert await one.reset() == 0

    with listening() as listener:
        spec = spec_in(tmp_path, port_of(listener))
        trio.run(main, spec)
    assert len(recorded(spec)) == 0


def test_death_is_data(tmp_path: Path) -> None:
    """A driver that is killed raises nothing: its facts say by which signal, and its records are there."""

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as one:
            await one.go(time.monotonic_ns())
            await trio.sleep(0.2)
            one.child.kill()
            facts = await one.wait_finished()
            assert facts.exit_status == -signal.SIGKILL
            await one.freeze()
            assert await one.reset() == 0

    with serving(greet) as port:
        spec = spec_in(tmp_path, port, hold_s=3600.0, clients=5, attempts=None)
        trio.run(main, spec)
    records = recorded(spec)
    assert records["outcome"].tolist() == [Outcome.UNFINISHED] * 5
    assert (records["replied"] > 0).all()


def test_space_that_cannot_be_had(tmp_path: Path) -> None:
    """A journal that cannot be made is refused before anything starts, with a remedy."""

    async def main() -> None:
        spec = spec_in(tmp_path / "missing", 1)
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr"):
            raise AssertionError("it was ready")

    with pytest.raises(EnvironmentRefusedError, match="--out"):
        trio.run(main)


def test_crash_before_ready(tmp_path: Path) -> None:
    """A driver that cannot even begin is an error that carries its last words."""

    async def main() -> None:
        spec = spec_in(tmp_path, 1, attempts_capacity=-1)
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr"):
            raise AssertionError("it was ready")

    with pytest.raises(EnvironmentRefusedError, match="a driver ended with status 1 before it was ready"):
        trio.run(main)


class Control:
    """The conductor's end of a control channel, without trio."""

    def __init__(self, sock: socket.socket) -> None:
        self._lines = sock.makefile("rw")

    def tell(self, **order: Any) -> None:  # noqa: ANN401  # JSON
        """Send an order that has no answer."""
        self._lines.write(json.dumps(order) + "\n")
        self._lines.flush()

    def ask(self, **order: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
        """Send an order and return the answer."""
        self.tell(**order)
        return dict(json.loads(self._lines.readline()))

    def close(self) -> None:
        """Give it back."""
        self._lines.close()


@contextmanager
def bare_driver(nofile: int) -> Iterator[Control]:
    """Run a driver under a hard limit of its own; at the end of its control channel it has to leave by itself."""
    ours, theirs = socket.socketpair()
    command = ["prlimit", f"--nofile={nofile // 2}:{nofile}", sys.executable, "-P", "-m", "loadsim.driver.driver"]
    with ExitStack() as stack:
        stack.enter_context(ours)
        with theirs:
            process = stack.enter_context(subprocess.Popen(command, stdin=theirs.fileno()))
        stack.callback(process.kill)
        ours.settimeout(20)
        control = stack.enter_context(closing(Control(ours)))
        yield control
        ours.shutdown(socket.SHUT_RDWR)
        assert process.wait(5) == 0


def test_own_limit_is_clamped_not_charged(tmp_path: Path) -> None:
    """A driver with too low a limit says so beforehand, opens no more than fit, and runs into no EMFILE."""
    with listening(backlog=200) as listener:
        settings = open_loop(rate=1000, attempts=150) | {"reply_timeout_s": 0.5}
        spec = spec_in(tmp_path, port_of(listener), **settings)
        with bare_driver(nofile=100) as control:
            ready = control.ask(do="prepare", spec=asdict(spec))
            assert (ready["nofile_soft"], ready["nofile_hard"], ready["threads"]) == (100, 100, 1)
            assert "may need 150 connections" in ready["clamped"]
            finished = control.ask(do="go", start_ns=time.monotonic_ns())
            assert finished["event"] == "finished"
    outcomes = recorded(spec)["outcome"].tolist()
    assert set(outcomes) == {Outcome.REPLY_TIMEOUT, Outcome.NOT_STARTED}
    fit = 100 - ready["open_fds"] - 16
    assert fit <= outcomes.count(Outcome.REPLY_TIMEOUT)


def test_end_of_the_conductor_ends_the_driver(tmp_path: Path) -> None:
    """At the end of its control channel a driver leaves, whatever it is doing, and its connections are reset."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"!")
        served.set()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        ended.set()

    served, ended = threading.Event(), threading.Event()
    with serving(serve) as port:
        spec = spec_in(tmp_path, port, hold_s=3600.0, attempts=None)
        with bare_driver(nofile=100) as control:
            control.ask(do="prepare", spec=asdict(spec))
            control.tell(do="go", start_ns=time.monotonic_ns())
            assert served.wait(5)
        assert ended.wait(5)


def test_imports_nothing_heavy() -> None:
    """A driver imports neither numpy, pydantic, rich, psutil nor click, and has one thread."""
    names = "{'numpy', 'pydantic', 'rich', 'psutil', 'click'}"
    code = (
        f"import sys, os, loadsim.driver.driver; print({names} & set(sys.modules), len(os.listdir('/proc/self/task')))"
    )
    told = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set() 1\n"


def test_no_port_left_is_local(tmp_path: Path) -> None:
    """Attempts that find no free port are `local`, with EADDRNOTAVAIL, however well the server is."""

    async def main() -> None:
        async with private_namespace({"net.ipv4.ip_local_port_range": "20000 20003"}) as namespace:
            if namespace.kind != "private":
                pytest.skip(namespace.reason)
            paths = {"stdout_path": tmp_path / "stdout", "stderr_path": tmp_path / "server"}
            server_spec = simulated_spec(tmp_path, close_after_s=None)
            async with simulated_server(server_spec, namespace=namespace, **paths) as server:
                await server.go(time.monotonic_ns())
                settings = open_loop(rate=1000, attempts=7) | {"hold_s": 0.3}
                spec = spec_in(tmp_path, server.facts.port, **settings)
                async with driver(spec, namespace=namespace, stderr_path=tmp_path / "stderr") as one:
                    await one.go(soon())
                    await one.wait_finished()
                outcomes.extend(recorded(spec)["outcome"].tolist())
                local = recorded(spec)[3:]
                assert set(local["errno"]) == {errno.EADDRNOTAVAIL}
                assert set(local["started"]) == {0}

    outcomes: list[int] = []
    trio.run(main)
    assert outcomes == [Outcome.OK] * 3 + [Outcome.LOCAL] * 4, "of the four ports the server has one"
