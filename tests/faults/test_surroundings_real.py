"""Hosts that refuse a resource to loadsim: it runs without it, or names it with the remedy."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from faulty_runs import Left, hurt_run
from real_runs import run_scenario, write_scenario
from refusing import needs_root, needs_seccomp, with_hidden_processes, without, without_network

from loadsim.analysis.findings.queue import retransmit_times
from loadsim.kernel import limits
from loadsim.kernel.limits import HostLimits
from loadsim.kernel.procfs import Process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.real

#: A server with an IPv6 address, without the canary, which has an IPv4 address.
IPV6 = ("--set", "canary=", "--set", "network.address=::1")


def ended(folder: Path, *arguments: str, before: Callable[[], None]) -> Left:
    """Make a run on such a host; it leaves no process and no traceback."""
    with hurt_run(folder, *arguments, before=before) as run:
        left = run.wait_end()
    assert (left.tracebacks, left.orphans) == ([], []), left.stderr
    return left


@needs_seccomp
def test_no_namespace_may_be_made(tmp_path: Path) -> None:
    """Under a seccomp filter, as in a container, the run uses the host's namespace, and says so and why."""
    left = ended(tmp_path, before=without("unshare"))
    summary = left.report()
    assert (left.code, summary["ledger"]["accepted"], summary["balanced"]) == (0, 120, True)
    shown = " ".join(left.stdout.split())
    assert "counters cover the host" in shown
    assert "a seccomp filter or a chroot forbids user namespaces" in shown


@needs_seccomp
def test_a_sysctl_that_no_namespace_can_have(tmp_path: Path) -> None:
    """A setting that cannot be applied is an error before the start, with the remedy."""
    setting = 'sysctl."net.core.somaxconn"=77'
    left = ended(tmp_path, "--set", setting, before=without("unshare"))
    assert left.code == 3
    assert "net.core.somaxconn should be 77" in left.stderr
    assert "docker run --security-opt seccomp=unconfined" in left.stderr


@needs_seccomp
def test_the_kernel_may_not_be_asked_about_sockets(tmp_path: Path) -> None:
    """Without sock_diag a run is an error that names the netlink socket and its errno."""
    left = ended(tmp_path, before=without("socket", socket.AF_NETLINK))
    assert left.code == 3
    assert "cannot read sockets from the kernel (sock_diag, a netlink socket): Operation not permitted" in left.stderr


@needs_seccomp
@pytest.mark.parametrize("arguments", [(), IPV6])
def test_a_kernel_without_ipv6(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Only a scenario with an IPv6 address needs IPv6, and its error has the remedy."""
    left = ended(tmp_path, *arguments, before=without("socket", socket.AF_INET6, errno.EAFNOSUPPORT))
    if not arguments:
        assert left.code == 0, left.stderr
        assert left.report()["ledger"]["accepted"] == 120
    else:
        assert left.code == 3
        assert "cannot listen on ::1 port 0: Address family not supported by protocol" in left.stderr
        assert "choose an IPv4 network.address" in left.stderr


@needs_root
@pytest.mark.parametrize("arguments", [(), IPV6])
def test_loopback_is_down(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Without an interface the remedy is to bring loopback up; the server is not blamed."""
    left = ended(tmp_path, "--set", "network.namespace=host", *arguments, before=without_network)
    shown = " ".join((left.stdout + left.stderr).split())
    assert "ip link set lo up" in shown
    if arguments:
        assert left.code == 3
    else:
        summary = left.report()
        assert (summary["status"], summary["ledger"]["local"]) == ("INCONCLUSIVE", 120)


@needs_root
def test_processes_of_others_are_hidden(tmp_path: Path) -> None:
    """With /proc mounted with hidepid=2 its own processes are visible."""
    left = ended(tmp_path, before=with_hidden_processes)
    summary = left.report()
    assert (left.code, summary["status"]) == (0, "HEALTHY"), left.stderr
    assert summary["metrics"]["fds.max"] > summary["metrics"]["fds.baseline"]


@needs_seccomp
def test_counting_in_the_kernel_is_forbidden(tmp_path: Path) -> None:
    """Without perf a command has no EMFILE metrics, and a notice has the remedy."""
    own = ("server.close_after=", "client.exchange=http", "canary=")
    settings = [word for setting in own for word in ("--set", setting)]
    command = ["--", "python3", "-m", "http.server", "{port}"]
    left = ended(tmp_path, *settings, *command, before=without("perf_event_open"))
    summary = left.report()
    assert left.code == 0, left.stderr
    assert "emfile.count" not in summary["metrics"]
    assert any("EMFILE is not counted" in text and "run loadsim as root" in text for text in summary["notices"])


def test_a_kernel_that_does_not_count_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.2 the size of /proc/PID/fd is 0, and the descriptors are listed instead."""

    class Old:
        st_size = 0

    with subprocess.Popen(["sleep", "60"]) as other:  # noqa: S607
        try:
            with Process(other.pid) as process, monkeypatch.context() as old:
                exact = process.open_fds()
                old.setattr(os, "fstat", lambda _: Old)
                assert process.open_fds() == exact >= 3
        finally:
            other.kill()


def test_a_kernel_without_linear_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.5 this sysctl does not exist, and SYNs are repeated after 1, 3, 7 ... seconds."""
    monkeypatch.setattr(limits, "read_sysctl", lambda _: None)
    assert HostLimits.collect().syn_linear_timeouts == 0
    assert retransmit_times({})[:3] == [1.0, 3.0, 7.0]


def test_the_wall_clock_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that is set back by an hour during a run changes no duration and no order."""
    now, readings = time.time(), 0

    def set_back() -> float:
        nonlocal readings
        readings += 1
        return now - 3600 * readings

    monkeypatch.setattr(time, "time", set_back)
    text = '[server]\nclose_after = "client"\n[client]\nrate = "200/s"\nduration = "500ms"\n'
    ran = run_scenario(write_scenario(tmp_path, text), tmp_path)
    assert readings > 0
    assert (ran.summary.status, ran.summary.ledger["accepted"]) == ("HEALTHY", 100)
    assert 0 < ran.summary.metrics["connect.max_s"] < 1
