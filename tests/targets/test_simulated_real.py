"""The conductor's side of the simulated server, with real processes."""

from __future__ import annotations

import dataclasses
import signal
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from simulated import open_fds, spec_in

from loadsim.errors import EnvironmentRefusedError
from loadsim.targets.simulated import Server, simulated_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.real


@asynccontextmanager
async def server_in(folder: Path, **settings: Any) -> AsyncIterator[Server]:  # noqa: ANN401 -- any field of the spec
    """Run a server with its files in a folder."""
    spec = spec_in(folder, **settings)
    paths = {"stdout_path": folder / "stdout", "stderr_path": folder / "stderr"}
    async with simulated_server(spec, namespace=None, **paths) as server:
        yield server


def test_life_of_a_server(tmp_path: Path) -> None:
    """It listens, reports its connections when frozen and its queue when drained, and exits."""

    async def main() -> Server:
        async with server_in(tmp_path, nofile=20, leak=1.0) as server:
            await server.go(time.monotonic_ns())
            free = 20 - server.facts.baseline_fds
            clients = [socket.create_connection((server.facts.address, server.facts.port)) for _ in range(free + 3)]
            for client in clients[:free]:
                client.recv(1)
            frozen = await server.freeze()
            assert (frozen["accepted"], frozen["open_fds"]) == (free, 20)
            for client in clients:
                client.close()
            assert await server.drain() == 3
            await server.leave()
            return server

    server = trio.run(main)
    assert server.child.returncode == 0
    assert server.exited is None


def test_facts_are_read_back(tmp_path: Path) -> None:
    """The facts hold the limits in force and the descriptors that the kernel counts."""

    async def main() -> None:
        async with server_in(tmp_path, nofile=64, backlog=5, idle_threads=2) as server:
            facts = server.facts
            counted = open_fds(facts.pid)
            assert (facts.nofile_soft, facts.backlog, facts.threads) == (64, 5, 3)
            assert counted == facts.baseline_fds

    trio.run(main)


def test_death_is_data(tmp_path: Path) -> None:
    """A killed server raises no error: its signal and the time of its death are known."""

    async def main() -> None:
        async with server_in(tmp_path) as server:
            await server.go(time.monotonic_ns())
            assert server.exited is None
            server.child.kill()
            assert await server.wait_exited() == -signal.SIGKILL
            assert server.exited == -signal.SIGKILL
            assert 0 < server.facts.exited_ns <= time.monotonic_ns()
            assert await server.freeze() == {}
            assert await server.drain() == 0
            await server.go(0)

    trio.run(main)


def test_policy_exit(tmp_path: Path) -> None:
    """Under the policy `exit`, the first client without a descriptor kills it, and its last output says why."""

    async def main() -> None:
        async with server_in(tmp_path, nofile=16, leak=1.0, on_emfile="exit") as server:
            await server.go(time.monotonic_ns())
            free = 16 - server.facts.baseline_fds
            clients = [socket.create_connection((server.facts.address, server.facts.port)) for _ in range(free + 1)]
            with trio.fail_after(5):
                assert await server.wait_exited() == 1
            for client in clients:
                client.close()

    trio.run(main)
    words = "simulated server: accept: Too many open files (16 of 16); exiting\n"
    assert words == (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"nofile": 10**9}, "lower server.nofile"),
        ({"prewarm_fds": 10**9}, "lower server.prewarm_fds"),
        ({"address": "192.0.2.1"}, "choose another network.address"),
        ({"accepts_capacity": 2**50}, "choose another --out"),
    ],
)
def test_refusals_name_the_remedy(tmp_path: Path, settings: dict[str, Any], remedy: str) -> None:
    """A request that this host refuses is an error before the start, and it ends with the knob."""

    async def main() -> None:
        async with server_in(tmp_path, **settings):
            raise AssertionError("it started")

    with pytest.raises(EnvironmentRefusedError, match=remedy):
        trio.run(main)


def test_port_in_use(tmp_path: Path) -> None:
    """A port in use is a refusal that says so."""

    async def main(port: int) -> None:
        async with server_in(tmp_path, port=port):
            raise AssertionError("it started")

    refused = pytest.raises(EnvironmentRefusedError, match="Address already in use; choose")
    with socket.create_server(("127.0.0.1", 0)) as other, refused:
        trio.run(main, other.getsockname()[1])


def test_early_death_shows_the_last_output(tmp_path: Path) -> None:
    """A server that cannot start is an error that quotes its standard error."""

    async def main() -> None:
        spec = spec_in(tmp_path)
        paths = {"stdout_path": tmp_path / "stdout", "stderr_path": tmp_path / "stderr"}
        broken = dataclasses.replace(spec, on_emfile="no such policy")
        async with simulated_server(broken, namespace=None, **paths):
            raise AssertionError("it started")

    with pytest.raises(EnvironmentRefusedError, match=r"ended with status 1 before it was ready(.|\n)*KeyError"):
        trio.run(main)
