"""A private network namespace has the sysctls of the scenario, and otherwise the values of the host."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from loadsim.kernel.limits import NAMESPACE_SYSCTLS, read_sysctl
from loadsim.kernel.procfs import TcpCounters
from loadsim.process.launch import Namespace, launch
from loadsim.process.netns import parse_answer, private_namespace, shared_namespace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65534

#: Creates a namespace and describes it: kind, reason, whether it needed a user namespace, two sysctls
#: as a child inside sees them, the uid of that child, and the exit status of the hint.
DESCRIBE = """
import os, subprocess, sys
import trio
from loadsim.process.launch import launch
from loadsim.process.netns import private_namespace

INSIDE = "cat /proc/sys/net/core/somaxconn /proc/sys/net/ipv4/tcp_syncookies; id -u; grep CapEff /proc/self/status"

async def main():
    async with private_namespace({"net.core.somaxconn": "77"}) as namespace:
        print(namespace.kind, namespace.reason)
        print(namespace.user_fd is not None, namespace.not_applied, namespace.notices, flush=True)
        if namespace.kind == "private":
            with launch(["sh", "-c", INSIDE], namespace=namespace) as child:
                await child.wait_exit()
            print(subprocess.run(namespace.enter_hint.split(), stdout=subprocess.DEVNULL).returncode)

trio.run(main)
"""

#: Enters a user namespace, sets its limit of one kind of namespaces to 0, and executes a command there. The command
#: has no rights outside of it.
FORBID = """
import os, sys
from loadsim.kernel import libc
uid, gid = os.getuid(), os.getgid()
libc.leave_namespaces(libc.CLONE_NEWUSER)
for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
    open("/proc/self/" + name, "w").write(text)
open(f"/proc/sys/user/max_{sys.argv[1]}_namespaces", "w").write("0")
os.execv(sys.argv[2], sys.argv[2:])
"""


def in_private(sysctls: Mapping[str, str], body: Callable[[Namespace], Awaitable[None]]) -> None:
    """Run a body with a private namespace; skip the test if there is none."""

    async def main() -> None:
        async with private_namespace(sysctls) as namespace:
            if namespace.kind != "private":
                pytest.skip(namespace.reason)
            await body(namespace)

    trio.run(main)


async def output_inside(namespace: Namespace, argv: list[str]) -> str:
    """Return the output of a command inside the namespace."""
    report, answer = os.pipe()
    with open(report) as pipe:  # noqa: ASYNC230, PTH123 - a descriptor, for a few bytes
        try:
            child = launch(argv, namespace=namespace, stdout=answer)
        finally:
            os.close(answer)
        with child:
            await child.wait_exit()
        return pipe.read()


def test_sysctls_of_the_host_and_of_the_scenario() -> None:
    """A child inside sees the wanted values, all ports from 1024, and otherwise the host's values."""
    asked = {"net.core.somaxconn": "77", "net.ipv4.tcp_rmem": "4096  65536\t131072"}

    async def body(namespace: Namespace) -> None:
        expected = {name: value for name in NAMESPACE_SYSCTLS if (value := read_sysctl(name))}
        expected |= {
            "net.core.somaxconn": "77",
            "net.ipv4.tcp_rmem": "4096 65536 131072",
            "net.ipv4.ip_local_port_range": "1024 65535",
        }
        paths = ["/proc/sys/" + name.replace(".", "/") for name in sorted(expected)]
        seen = (await output_inside(namespace, ["cat", *paths])).splitlines()
        assert [expected[name].split() for name in sorted(expected)] == [line.split() for line in seen]
        assert namespace.sysctls == expected
        assert (namespace.not_applied, namespace.notices, namespace.reason) == ([], [], "")

    in_private(asked, body)


def test_child_inside_has_no_more_descriptors() -> None:
    """A child inside has only its standard descriptors, none of the namespaces."""

    async def body(namespace: Namespace) -> None:
        assert (await output_inside(namespace, ["ls", "/proc/self/fd"])).split() == ["0", "1", "2", "3"]

    in_private({}, body)


def test_port_range_of_the_scenario() -> None:
    """A port range in the scenario is not widened."""

    async def body(namespace: Namespace) -> None:
        assert namespace.sysctls["net.ipv4.ip_local_port_range"] == "40000 40099"

    in_private({"net.ipv4.ip_local_port_range": "40000 40099"}, body)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("net.ipv4.tcp_syn_retries", "999", "refuses that value"),
        ("net.core.somaxcon", "8", "does not exist here"),
        ("net.ipv4.tcp_max_orphans", "131071", "no network namespace of this kernel has it"),
        ("fs.lease-break-time", "44", "belongs to the host"),
        ("net...fs.lease-break-time", "44", "does not exist here"),
    ],  # values that would be harmless on the host
)
def test_sysctls_that_cannot_be_set(name: str, value: str, why: str) -> None:
    """A wanted sysctl that is not in force is reported, and the host keeps its value."""
    before = read_sysctl(name)

    async def body(namespace: Namespace) -> None:
        (sentence,) = namespace.not_applied
        assert sentence.startswith(f"{name} should be {value} ")
        assert why in sentence
        assert namespace.notices == []

    in_private({name: value}, body)
    assert read_sysctl(name) == before


def test_host_sysctls_that_have_the_wanted_value() -> None:
    """A host sysctl that already has the wanted value is in force and not reported."""
    value = read_sysctl("fs.nr_open") or ""

    async def body(namespace: Namespace) -> None:
        assert (namespace.not_applied, namespace.sysctls["fs.nr_open"]) == ([], value)

    in_private({"fs.nr_open": value}, body)


def test_sockets_and_counters_are_private() -> None:
    """Sockets and counters inside are private; diag, counters and the hint all read the inside."""
    code = "import socket; s = socket.create_server(('127.0.0.1', 4711), backlog=5); print(1, flush=True); s.accept()"

    async def body(namespace: Namespace) -> None:
        report, answer = os.pipe()
        with open(report) as pipe:  # noqa: ASYNC230, PTH123 - a descriptor, for one line
            try:
                child = launch([sys.executable, "-I", "-c", code], namespace=namespace, stdout=answer)
            finally:
                os.close(answer)
            with child:
                pipe.readline()
                listener = namespace.diag.listener("127.0.0.1", 4711)
                assert listener is not None
                assert listener.backlog == 5
                assert namespace.diag.dump()["local_port"].tolist() == [4711]
                hint = await trio.run_process(shlex.split(namespace.enter_hint), capture_stdout=True)
                assert b"127.0.0.1:4711" in hint.stdout
        with TcpCounters(namespace.holder_pid or 0) as counters:
            assert counters.read().listen_overflows == 0

    in_private({}, body)


def test_the_table_of_connections_is_private() -> None:
    """The namespace has a small table of connections, so a read of the sockets does not walk the host's table."""

    async def body(namespace: Namespace) -> None:
        entries = await output_inside(namespace, ["cat", "/proc/sys/net/ipv4/tcp_ehash_entries"])
        assert int(entries) == 16_384  # negative for the host's table

    in_private({}, body)


async def gone(pid: int) -> bool:
    """Return whether a child of this process has been reaped."""
    return not await trio.Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left(error: type[BaseException]) -> None:
    """At the end of the context, also by an exception, holder and descriptors are gone."""
    seen: list[int] = []

    async def main() -> None:
        fds = os.listdir("/proc/self/fd")  # noqa: PTH208 - only names
        with pytest.raises(error):  # noqa: PT012 - the context is what is tested
            async with private_namespace({}) as namespace:
                seen.append(namespace.holder_pid or 0)
                raise error
        assert os.listdir("/proc/self/fd") == fds  # noqa: PTH208 - only names
        assert await gone(seen[0]) or seen == [0]

    trio.run(main)


def test_cancelled_while_it_begins() -> None:
    """A cancellation before the holder's reply leaves nothing either."""

    async def main() -> None:
        fds = os.listdir("/proc/self/fd")  # noqa: PTH208 - only names
        with trio.CancelScope() as scope:
            scope.cancel()
            async with private_namespace({}):
                pytest.fail("the block was entered after the cancellation")
        assert scope.cancelled_caught
        assert os.listdir("/proc/self/fd") == fds  # noqa: PTH208 - only names
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 - it does not wait

    trio.run(main)


def test_shared_by_choice() -> None:
    """The shared namespace is the caller's: nothing is written, and differences are reported."""
    value = read_sysctl("net.core.somaxconn") or ""

    async def main() -> None:
        async with shared_namespace({"net.core.somaxconn": value, "net.ipv4.tcp_syn_retries": "77"}) as namespace:
            assert (namespace.kind, namespace.holder_pid, namespace.net_fd) == ("shared", None, None)
            assert namespace.sysctls["net.core.somaxconn"] == value
            assert [sentence.split()[0] for sentence in namespace.not_applied] == ["net.ipv4.tcp_syn_retries"]
            assert 'network.namespace = "host"' in namespace.reason
            assert namespace.enter_hint == "ss -tan"

    trio.run(main)


def test_answer_of_the_holder() -> None:
    """The holder's lines are values in force and failures; a value may have several numbers."""
    answer = "value net.a 1 2 3\nfailed net.b 22\nvalue net.b 4"
    assert parse_answer(answer) == ({"net.a": "1 2 3", "net.b": "4"}, {"net.b": 22})


def interpreter_for_nobody() -> tuple[str, dict[str, str]]:
    """Return a Python that another user may run, and an environment in which it can import loadsim."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv, to become another user")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:]), "PYTHONDONTWRITEBYTECODE": "1"}
    for python in (sys.executable, shutil.which("python3", path="/usr/bin") or ""):
        probe = [*as_nobody(), python, "-c", "import sys, trio; print(*sys.version_info[:2], sys.executable)"]
        found = subprocess.run(probe, env=environment, capture_output=True, text=True, check=False).stdout.split()
        if len(found) == 3 and (int(found[0]), int(found[1])) >= (3, 11) and runs_as_nobody(found[2]):
            return found[2], environment
    pytest.skip("no Python of this machine may be run by another user")


def as_nobody() -> list[str]:
    """Return the prefix of a command that runs as a user without rights."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def runs_as_nobody(python: str) -> bool:
    """Return whether a process of that user may start this Python as its child, like loadsim."""
    command = [*as_nobody(), "sh", "-c", f"{shlex.quote(python)} -c 1"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def describe(python: str, environment: Mapping[str, str], prefix: list[str]) -> list[str]:
    """Return the output of DESCRIBE with this prefix."""
    command = [*prefix, python, "-c", DESCRIBE]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def test_without_root() -> None:
    """Any user gets a private namespace if the host permits it; processes inside are that user, without rights."""
    python, environment = interpreter_for_nobody()
    kind, applied, *inside = describe(python, environment, as_nobody())
    if kind.startswith("shared"):
        assert "; " in kind
        pytest.skip(kind)
    assert applied == "True [] []"
    cookies = read_sysctl("net.ipv4.tcp_syncookies")
    assert inside == ["77", cookies, str(NOBODY), "CapEff:\t0000000000000000", "0"]


def test_the_values_of_the_host_are_copied() -> None:
    """A namespace copies its host's values, not the kernel's defaults: a namespace inside another one shows it."""
    code = """
import trio
from loadsim.process.netns import private_namespace

async def main():
    async with private_namespace({}) as namespace:
        print(namespace.kind, *(namespace.sysctls[name] for name in ("net.core.somaxconn", "net.ipv4.tcp_syncookies")))

trio.run(main)
"""

    async def body(host: Namespace) -> None:
        assert await output_inside(host, [sys.executable, "-P", "-c", code]) == "private 777 2\n"

    in_private({"net.core.somaxconn": "777", "net.ipv4.tcp_syncookies": "2"}, body)


@pytest.mark.parametrize("limit", ["net", "user"])
def test_refused(limit: str) -> None:
    """If the kernel refuses a namespace, the shared one is used, with the cause and the sysctls not applied."""
    python, environment = interpreter_for_nobody()
    kind, applied = describe(python, environment, [*as_nobody(), python, "-c", FORBID, limit])
    assert kind.startswith(f"shared no private network namespace, because user.max_{limit}_namespaces is 0 (")
    assert "net.core.somaxconn should be 77 but is " in applied
