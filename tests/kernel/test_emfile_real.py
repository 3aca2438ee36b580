"""The kernel's count of EMFILE from accept() agrees with the simulated server's journal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from perf_rights import needs_perf
from simulated import spec_in

from loadsim.kernel import perf
from loadsim.kernel.perf import EmfileCounter, NotVisibleError
from loadsim.record.journal import Journal
from loadsim.targets.simulated import simulated_server

if TYPE_CHECKING:
    from loadsim.scenario.specs import ServerSpec

pytestmark = pytest.mark.real


@needs_perf
@pytest.mark.parametrize("policy", ["sleep", "backoff", "spin", "shed"])
def test_the_counter_and_the_server_agree(policy: str, tmp_path: Path) -> None:
    """Both count every failure in the server's life, whether ten or a million calls fail."""
    spec = spec_in(tmp_path, nofile=20, leak=1.0, on_emfile=policy, emfile_delay_s=0.005)
    with EmfileCounter(os.getpid()) as counter:
        trio.run(exhaust, spec)
        counted = counter.read()
    with Journal.attach(Path(spec.accepts_path)) as log:
        own = log.read("emfile_accept") + log.read("emfile_idle")
    assert own == counted > 0


async def exhaust(spec: ServerSpec) -> None:
    """Use up all descriptors of a server for half a second, then end it."""
    folder = Path(spec.accepts_path).parent
    files = {"stdout_path": folder / "stdout", "stderr_path": folder / "stderr"}
    async with simulated_server(spec, namespace=None, **files) as server:
        await server.go(time.monotonic_ns())
        clients = [socket.create_connection((server.facts.address, server.facts.port)) for _ in range(40)]
        await trio.sleep(0.5)
        await server.freeze()
        for client in clients:
            client.close()


def test_a_refused_count_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error quotes the kernel and names the command that permits counting."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(perf, "_event_numbers", refuse)
    with pytest.raises(NotVisibleError, match=r"Permission denied.*kernel\.perf_event_paranoid=-1"):
        EmfileCounter(os.getpid())


@needs_perf
def test_a_counter_that_fails_its_trial_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test failure that is not counted is an error."""
    monkeypatch.setattr(perf, "_value", lambda _: 0)
    with pytest.raises(NotVisibleError, match="was counted 0 times"):
        EmfileCounter(os.getpid())


#: Two threads that fail a thousand times each once a line is sent.
THREADS = """
import resource, socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
go = threading.Event()
def fail():
    go.wait()
    for _ in range(1000):
        try:
            listener.accept()
        except OSError:
            pass
threads = [threading.Thread(target=fail) for _ in range(2)]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
go.set()
for thread in threads:
    thread.join()
print("done", flush=True)
sys.stdin.readline()
"""


@needs_perf
def test_running_threads_are_counted() -> None:
    """Every failure in every thread of a running process is counted."""
    with subprocess.Popen(
        [sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with EmfileCounter.of_running(lambda: [process.pid]) as counter:
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            assert counter.read() == 2000
        process.stdin.close()
