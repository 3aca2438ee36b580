"""`inspect` in hard cases: other namespaces, other users, ending processes, control characters, lowered limits."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from inspected import ZOO, running

from loadsim.commands import main
from loadsim.inspect import snapshot
from loadsim.inspect.snapshot import take
from loadsim.inspect.targets import find
from loadsim.kernel.procfs import ProcessGoneError
from loadsim.kernel.sockdiag import SockDiag, _fork
from loadsim.kernel.sockets import read_table, read_table_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

#: A server in a private network namespace, as root or through a user namespace, with one queued client.
NAMESPACED = """
import json, os, socket, sys
from loadsim.kernel import libc
flags = libc.CLONE_NEWNET if os.geteuid() == 0 and len(sys.argv) < 2 else libc.CLONE_NEWNET | libc.CLONE_NEWUSER
try:
    libc.leave_namespaces(flags)
except OSError as error:
    print(json.dumps({"refused": str(error)}), flush=True); sys.exit()
import fcntl, struct
with socket.socket() as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh22x", b"lo", 1))
listener = socket.create_server(("127.0.0.1", 9999), backlog=3)
client = socket.create_connection(listener.getsockname())
print(json.dumps({"client": client.fileno()}), flush=True)
sys.stdin.read()
"""
#: Has a name and an open file with control characters.
CONTROL_CHARACTERS = r"""
import json, os, sys
with open("/proc/self/comm", "w") as comm: comm.write("\x1b[31mred\n\u202e")
file = open("a\x1b]0;b\nc\x9bd", "w")
print(json.dumps({"file": file.fileno()}), flush=True)
sys.stdin.read()
"""
#: Lowers its limit below the number of its open descriptors.
LOWERED = """
import json, os, resource, sys
many = [os.open("/dev/null", os.O_RDONLY) for _ in range(90)]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(json.dumps({}), flush=True)
sys.stdin.read()
"""


def printed(*arguments: str, width: int = 80, **environ: str) -> str:
    """Return the output of `loadsim inspect`."""
    environ = {"COLUMNS": str(width), **environ}
    result = CliRunner().invoke(main, ["inspect", *arguments], env=environ)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("arguments", [(), ("user",)])
def test_another_network_namespace(arguments: tuple[str, ...]) -> None:
    """A process in another network namespace is shown like one in ours, even if a user namespace owns it."""
    with running(NAMESPACED, *arguments) as ready:
        if "refused" in ready.report:
            pytest.skip(f"no namespaces here: {ready.report['refused']}")
        seen = take(ready.pid)
        assert seen.enter == f"nsenter -t {ready.pid} -n"
        assert seen.missing == ()
        listener = next(row for row in seen.rows if row.role == "LISTENING")
        assert (listener.local, listener.recv_q, listener.capacity) == ("127.0.0.1:9999", 1, 4)
        waiting = [one.fd for row in seen.waiting if row.other is not None for one in row.other.holders]
        assert waiting == [ready.report["client"]]
        assert "nsenter" in printed(str(ready.pid))


def test_a_namespace_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its /proc/PID/net is read; a sentence names the unknown values and the command that shows them."""

    def refused(pid: int) -> SockDiag:
        raise PermissionError(pid)

    with running(NAMESPACED) as ready:
        if "refused" in ready.report:
            pytest.skip(f"no namespaces here: {ready.report['refused']}")
        full = take(ready.pid)
        monkeypatch.setattr(snapshot, "diag_of", refused)
        seen = take(ready.pid)
    assert [row.inode for row in seen.rows] == [row.inode for row in full.rows]
    assert [row.role for row in seen.rows] == [row.role for row in full.rows]
    assert [row.other for row in seen.rows] == [row.other for row in full.rows]
    listener = next(row for row in seen.rows if row.role == "LISTENING")
    assert (listener.recv_q, listener.capacity, listener.drops, listener.full) == (1, None, None, False)
    assert len(seen.missing) == 1
    assert "limits of accept queues, drops and idle times are unknown" in seen.missing[0]
    assert f"sudo loadsim inspect {ready.pid}" in seen.missing[0]


def test_proc_net_agrees_with_sock_diag(tmp_path: Path) -> None:
    """Both sources give the same sockets in all fields that /proc has."""
    with running(ZOO, cwd=str(tmp_path)) as ready, SockDiag() as diag:
        inodes = {row.inode for row in take(ready.pid).rows if row.kind == "TCP" and row.state not in {"", "CLOSE"}}
        tables = [
            {
                (one.protocol, one.family, one.state, one.ends, one.mapped, one.rqueue, one.inode)
                for one in table.inet
                if one.inode in inodes
            }
            for table in (read_table(diag), read_table_of(ready.pid))
        ]
        unix = {one.inode: (one.kind, one.state, one.name) for one in read_table(diag).unix}
        unix_of_proc = {one.inode: (one.kind, one.state, one.name) for one in read_table_of(ready.pid).unix}
    assert tables[0] == tables[1]
    assert len(tables[0]) > 10
    both = unix.keys() & unix_of_proc.keys()  # sockets of other processes may open and close meanwhile
    assert {inode: unix[inode] for inode in both} == {inode: unix_of_proc[inode] for inode in both}


def test_a_process_that_has_ended() -> None:
    """A process that has ended is an error with a remedy, not a traceback."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        while process.poll() is None:
            time.sleep(0.01)
    with pytest.raises(ProcessGoneError):
        take(process.pid)
    result = CliRunner().invoke(main, ["inspect", str(process.pid)])
    assert result.exit_code == 3
    assert f"process {process.pid} does not exist: loadsim inspect lists all" in result.stderr


def test_a_process_that_ends_while_it_is_read(tmp_path: Path) -> None:
    """Every snapshot of an ending process is complete or raises ProcessGoneError."""
    with running(ZOO, cwd=str(tmp_path)) as ready:
        os.kill(ready.pid, 15)
        with pytest.raises(ProcessGoneError):
            deque((take(ready.pid).rows[0] for _ in range(1000)), maxlen=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_the_process_of_another_user(tmp_path: Path) -> None:
    """Without the right to read its descriptors, their number and the command that shows them are printed."""
    with running(ZOO, cwd=str(tmp_path)) as ready:
        reading, writing = os.pipe()
        child = _fork()
        if child == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            seen = take(ready.pid)
            report = {"open": seen.open_fds, "rows": len(seen.rows), "missing": list(seen.missing), "soft": seen.soft}
            os.write(writing, json.dumps(report).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            report = json.load(pipe)
        os.waitpid(child, 0)
        assert (report["open"], report["soft"]) == (take(ready.pid).open_fds, take(ready.pid).soft)
    assert report["rows"] == 0
    assert "belongs to user 0" in report["missing"][0]
    assert f"sudo loadsim inspect {ready.pid}" in report["missing"][0]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_names_with_control_characters(tmp_path: Path, width: int) -> None:
    """Control characters in names of processes and files are escaped, and no line is too wide."""
    with running(CONTROL_CHARACTERS, cwd=str(tmp_path)) as ready:
        assert find(str(ready.pid)).pids == [ready.pid]
        for text in (printed(str(ready.pid), width=width), printed(width=width)):
            assert [char for char in text if not char.isprintable() and char != "\n"] == []
            assert "\u202e" not in text
            assert max(map(len, text.splitlines())) <= width
        document = json.loads(printed(str(ready.pid), "--json"))
    assert document["process"]["name"].startswith("\x1b[31mred")


def test_more_descriptors_than_the_limit() -> None:
    """A lowered limit closes no descriptors: none is free, and a sentence reports those beyond the limit."""
    with running(LOWERED) as ready:
        seen = take(ready.pid)
        assert (seen.soft, seen.free_fds, seen.full) == (64, 0, True)
        assert seen.open_fds > seen.soft
        assert seen.beyond == seen.open_fds - 64
        text = " ".join(printed(str(ready.pid), "--over", "0s").split())
    assert f"{seen.beyond} descriptors with a number at or above the limit, 64" in text
    assert f"sudo prlimit --pid {ready.pid} --nofile=1024:" in text


def test_the_limit_applies_to_numbers() -> None:
    """A descriptor beyond the limit uses no number below it."""
    script = LOWERED.replace("range(90)", "range(5)").replace(
        "resource.setrlimit", "os.dup2(0, 200); resource.setrlimit"
    )
    with running(script) as ready:
        seen = take(ready.pid)
        below = sum(fd < 64 for row in seen.rows for fd in row.fds)
        assert (seen.beyond, seen.free_fds) == (seen.open_fds - below, 64 - below)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_it_only_reads(tmp_path: Path) -> None:
    """No process is traced or signalled, no descriptor is copied from another process, nothing is executed."""
    log = tmp_path / "strace.log"
    with running(ZOO, cwd=str(tmp_path)) as ready:
        inspect = [sys.executable, "-m", "loadsim", "inspect", str(ready.pid)]
        calls = "trace=ptrace,pidfd_getfd,pidfd_send_signal,kill,tkill,tgkill,execve,process_vm_readv,process_vm_writev"
        traced = subprocess.run(
            ["strace", "-f", "-o", str(log), "-e", calls, *inspect],  # noqa: S607
            capture_output=True,
            check=False,
        )
        if traced.returncode and not log.exists():
            pytest.skip("strace is not permitted here")
    called = [line for line in log.read_text().splitlines() if "+++" not in line]
    assert [re.sub(r"^\d+ +", "", line).split("(")[0] for line in called] == ["execve"]


def test_nothing_heavy_is_imported() -> None:
    """`inspect` imports only the standard library, click and psutil."""
    script = (
        "import sys; from click.testing import CliRunner; from loadsim.commands import main; import os\n"
        "result = CliRunner().invoke(main, ['inspect', str(os.getppid())])\n"
        "assert result.exit_code == 0, result.output\n"
        "assert CliRunner().invoke(main, ['inspect']).exit_code == 0\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    foreign = set(done.stdout.split()) - sys.stdlib_module_names - {"click", "loadsim", "psutil"}
    assert {name for name in foreign if not name.startswith(("_", "sitecustomize"))} == set()


def test_it_starts_at_once() -> None:
    """`inspect` takes at most four times as long as an import of click, which takes 150 ms on a slow host."""

    def fastest(*arguments: str) -> float:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - begun)
        return min(times)

    bare = fastest("-c", "import click")
    inspecting = fastest("-m", "loadsim", "inspect", str(os.getpid()), "--over", "0s")
    assert inspecting < 4 * bare, f"{inspecting * 1000:.0f} ms, and {bare * 1000:.0f} ms for the import"


def test_own_limit_is_not_needed(tmp_path: Path) -> None:
    """16 descriptors are enough for `inspect` itself."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))

    with running(ZOO, cwd=str(tmp_path)) as ready:
        command = [sys.executable, "-m", "loadsim", "inspect", str(ready.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=few)
    assert done.returncode == 0, done.stderr
    assert "LISTENING" in done.stdout
