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
    """Return the records of a driver."""
    with Journal.attach(Path(spec.attempts_path)) as journal:
        return records_of(journal)


def soon() -> int:
    """Return a start in the near future."""
    return time.monotonic_ns() + 20 * MILLISECOND


def test_life_of_a_driver(tmp_path: Path) -> None:
    """A driver makes its attempts, reports its CPU time, and exits on request without output."""

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as load:
            await load.go(soon())
            facts = await load.wait_finished()
            assert (0, load.child.pid, None, None) == (facts.share, facts.pid, facts.exit_status, facts.clamped)
            assert facts.nofile_soft == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            assert facts.cpu_ns > 0
            assert facts.wall_ns > 0
            assert await load.reset() == 0
            await load.leave()
            assert load.child.returncode == 0

    with serving(greet) as port:
        spec = spec_in(tmp_path, port, clients=3, attempts=20)
        trio.run(main, spec)
    assert recorded(spec)["outcome"].tolist() == [Outcome.OK] * 20
    assert (tmp_path / "stderr").read_text() == ""


def test_starts_on_time(tmp_path: Path) -> None:
    """The first intended start is the time in the conductor's order."""
    start_ns = time.monotonic_ns() + 300 * MILLISECOND

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as load:
            await load.go(start_ns)
            await load.wait_finished()

    with serving(greet) as port:
        spec = spec_in(tmp_path, port, **open_loop(rate=100, attempts=3))
        trio.run(main, spec)
    records = recorded(spec)
    assert [start_ns, start_ns + 10 * MILLISECOND, start_ns + 20 * MILLISECOND] == records["intended"].tolist()
    assert (records["started"] >= records["intended"]).all()


def test_freeze_then_reset(tmp_path: Path) -> None:
    """A frozen driver keeps its connections open; a reset returns their number, and the server sees RST."""

    async def main(spec: LoadSpec, listener: socket.socket) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as load:
            await load.go(soon())
            accepted = [await trio.to_thread.run_sync(listener.accept) for _ in range(4)]
            await load.freeze()
            await load.wait_finished()
            assert set(recorded(spec)["flags"]) == {AttemptFlag.PENDING}
            assert await load.reset() == 4
            for sock, _ in accepted:
                with sock, pytest.raises(ConnectionResetError):
                    sock.recv(1)

    with listening() as listener:
        trio.run(main, spec_in(tmp_path, port_of(listener), clients=4, attempts=None), listener)


def test_stop(tmp_path: Path) -> None:
    """A stopped driver finishes after its attempts in flight."""

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as load:
            await load.go(time.monotonic_ns())
            await trio.sleep(0.1)
            await load.stop()
            with trio.fail_after(10):
                await load.wait_finished()

    with serving(greet) as port:
        spec = spec_in(tmp_path, port, hold_s=0.05, attempts=None, duration_s=3600.0)
        trio.run(main, spec)
    records = recorded(spec)
    assert set(records["outcome"]) == {Outcome.OK}
    assert (records["ended"] > 0).all()


@pytest.mark.parametrize("order", ["stop", "freeze"])
def test_interrupted_before_the_start(tmp_path: Path, order: str) -> None:
    """A driver that is stopped or frozen before its start finishes without attempts."""

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as load:
            await (load.stop() if order == "stop" else load.freeze())
            await load.wait_finished()
            assert await load.reset() == 0

    with listening() as listener:
        spec = spec_in(tmp_path, port_of(listener))
        trio.run(main, spec)
    assert len(recorded(spec)) == 0


def test_death_is_data(tmp_path: Path) -> None:
    """A killed driver raises no error: its facts have the signal, and its records are readable."""

    async def main(spec: LoadSpec) -> None:
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr") as load:
            await load.go(time.monotonic_ns())
            await trio.sleep(0.2)
            load.child.kill()
            facts = await load.wait_finished()
            assert facts.exit_status == -signal.SIGKILL
            await load.freeze()
            assert await load.reset() == 0

    with serving(greet) as port:
        spec = spec_in(tmp_path, port, hold_s=3600.0, clients=5, attempts=None)
        trio.run(main, spec)
    records = recorded(spec)
    assert records["outcome"].tolist() == [Outcome.UNFINISHED] * 5
    assert (records["replied"] > 0).all()


def test_missing_space_is_refused(tmp_path: Path) -> None:
    """A journal that cannot be made is an error before the start, with a remedy."""

    async def main() -> None:
        spec = spec_in(tmp_path / "missing", 1)
        async with driver(spec, namespace=None, stderr_path=tmp_path / "stderr"):
            raise AssertionError("it was ready")

    with pytest.raises(EnvironmentRefusedError, match="--out"):
        trio.run(main)


def test_crash_before_ready(tmp_path: Path) -> None:
    """A driver that cannot start is an error with its last output."""

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
        """Close the channel."""
        self._lines.close()


@contextmanager
def bare_driver(nofile: int) -> Iterator[Control]:
    """Run a driver under its own hard limit; it must exit at the end of its control channel."""
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


def test_own_limit_clamps_the_load(tmp_path: Path) -> None:
    """A driver with too low a limit says so before the start, opens fewer connections, and never meets EMFILE."""
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
    """A driver exits at the end of its control channel and resets its connections."""

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
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set() 1\n"


def test_no_port_left_is_local(tmp_path: Path) -> None:
    """Attempts that find no free port are `local`, with EADDRNOTAVAIL."""

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
                async with driver(spec, namespace=namespace, stderr_path=tmp_path / "stderr") as load:
                    await load.go(soon())
                    await load.wait_finished()
                outcomes.extend(recorded(spec)["outcome"].tolist())
                local = recorded(spec)[3:]
                assert set(local["errno"]) == {errno.EADDRNOTAVAIL}
                assert set(local["started"]) == {0}

    outcomes: list[int] = []
    trio.run(main)
    assert outcomes == [Outcome.OK] * 3 + [Outcome.LOCAL] * 4, "of the four ports the server has one"
