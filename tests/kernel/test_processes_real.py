"""A process is read correctly from /proc, also when it ends."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from loadsim.kernel.limits import Limits
from loadsim.kernel.processes import Names, identify, name_of, names_of
from loadsim.kernel.procfs import Process, ProcessGoneError, TcpCounters

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real

#: Opens 300 descriptors, uses 0.2 s of CPU time in a second thread, and reports itself ready.
CHILD = """
import os, sys, threading, time
while os.open("/dev/null", os.O_RDONLY) < 299: pass
def work():
    while time.process_time() < 0.2: pass
thread = threading.Thread(target=work)
thread.start()
thread.join()
while len(os.listdir("/proc/self/task")) > 1: pass
print("ready", flush=True)
sys.stdin.read()
"""

#: Closes all descriptors, standard output last.
BARE = "import os, time; os.closerange(2, 20_000); os.close(0); os.close(1); time.sleep(60)"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process with 300 open descriptors that has used 0.2 s of CPU time."""
    command = [sys.executable, "-I", "-S", "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_readings(child: subprocess.Popen[bytes]) -> None:
    """Descriptors, limits, threads and sizes agree with other sources."""
    limits = Limits(*resource.prlimit(child.pid, resource.RLIMIT_NOFILE))
    with Process(child.pid) as process:
        assert process.alive()
        assert process.open_fds() == 300
        assert process.fd_numbers() == list(range(300))
        assert process.fd_link(299) == "/dev/null"
        assert process.fd_link(300) == ""
        assert process.limits() == limits
        assert process.fd_size() == 512
        assert process.threads() == 1
        assert process.rss() == psutil.Process(child.pid).memory_info().rss


def test_limits_of_a_live_process(child: subprocess.Popen[bytes]) -> None:
    """A limit lowered on a live process is read back, and descriptors beyond it still count."""
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (100, 200))
    with Process(child.pid) as process:
        assert (process.limits(), process.open_fds()) == (Limits(soft=100, hard=200), 300)


def test_cpu_time(child: subprocess.Popen[bytes]) -> None:
    """CPU time includes ended threads and agrees with the ticks in /proc/PID/stat."""
    times = psutil.Process(child.pid).cpu_times()
    ticks_ns = round((times.user + times.system) * 1e9)
    with Process(child.pid) as process:
        cpu_ns = process.cpu_ns()
    assert cpu_ns >= 200_000_000
    assert abs(cpu_ns - ticks_ns) <= 4 * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def test_zombie(child: subprocess.Popen[bytes]) -> None:
    """A zombie has ended: it has no descriptors, but its CPU time can still be read."""
    with Process(child.pid) as process:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not process.alive()
        assert process.cpu_ns() >= 200_000_000
        with pytest.raises(ProcessGoneError):
            process.open_fds()


def test_nothing_open() -> None:
    """A process without descriptors is not taken for a zombie."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", BARE], stdout=subprocess.PIPE) as bare:
        assert bare.stdout is not None
        bare.stdout.read()
        with Process(bare.pid) as process:
            assert (process.open_fds(), process.fd_numbers(), process.alive()) == (0, [], True)
        bare.kill()


def test_gone(child: subprocess.Popen[bytes]) -> None:
    """Every reading of a reaped process raises ProcessGoneError."""
    with Process(child.pid) as process:
        child.kill()
        child.wait()
        assert not process.alive()
        readings = (process.open_fds, process.fd_numbers, process.limits, process.cpu_ns, process.rss, process.fd_size)
        for reading in readings:
            with pytest.raises(ProcessGoneError):
                reading()


def test_free_pid(child: subprocess.Popen[bytes]) -> None:
    """A free pid raises ProcessGoneError and leaves no descriptor open."""
    child.kill()
    child.wait()
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - only names
    with pytest.raises(ProcessGoneError):
        Process(child.pid)
    with pytest.raises(ProcessGoneError):
        TcpCounters(child.pid)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - only names


def test_counters_outlive_the_process(child: subprocess.Popen[bytes]) -> None:
    """Open counters can be read after the end of the process."""
    with TcpCounters(child.pid) as counters:
        child.kill()
        child.wait()
        assert counters.read().listen_overflows >= 0
    counters.close()


def started(pid: int) -> Names:
    """Return the names of a process once it has arguments: Popen returns a moment before exec() has set them."""
    until = time.monotonic() + 10
    while not (names := names_of(pid)).argv and time.monotonic() < until:
        time.sleep(0.001)
    return names


def test_names_of_a_process(tmp_path: Path) -> None:
    """A name that the kernel cut is completed, and a byte that is not UTF-8 is escaped."""
    program = tmp_path / "a-name-of-more-than-15-characters"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60", "0"], stdin=subprocess.DEVNULL) as process:
        names = started(process.pid)
        process.kill()
    assert names.name == program.name
    assert names.argv == (str(program), "60", "0")
    with subprocess.Popen([sys.executable, "-c", "input()", b"\xff"], stdin=subprocess.PIPE) as process:
        assert started(process.pid).argv[-1] == r"\xff"
        process.kill()


def test_identity_of_a_process() -> None:
    """Owner and age of this process are correct, and the age is not rounded to seconds."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    begun_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    own = identify(os.getpid())
    ended_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    started_s = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) * tick_s
    assert own.uid == os.geteuid()
    assert begun_s - started_s - tick_s <= own.up_s <= ended_s - started_s + tick_s
    assert own.argv == tuple(os.fsdecode(word) for word in Path("/proc/self/cmdline").read_bytes()[:-1].split(b"\0"))


def test_an_ended_process_has_no_identity() -> None:
    """A zombie, a free pid and an impossible pid all raise ProcessGoneError."""
    with subprocess.Popen(["/bin/true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        for pid in (process.pid, 10**30):
            with pytest.raises(ProcessGoneError):
                identify(pid)
    with pytest.raises(ProcessGoneError):
        names_of(process.pid)
    assert name_of(process.pid) == "?"
