"""`inspect` on hosts in trouble: other namespaces, other users, processes that end, names that bite, limits passed."""

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

#: A server in a network namespace of its own, as root or by a user namespace; with one queued client.
APART = """
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
#: Bites: a name and a file name with control characters.
BITES = r"""
import json, os, sys
with open("/proc/self/comm", "w") as comm: comm.write("\x1b[31mred\n\u202e")
file = open("a\x1b]0;b\nc\x9bd", "w")
print(json.dumps({"file": file.fileno()}), flush=True)
sys.stdin.read()
"""
#: Opens more than it may have later.
LOWERED = """
import json, os, resource, sys
many = [os.open("/dev/null", os.O_RDONLY) for _ in range(90)]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(json.dumps({}), flush=True)
sys.stdin.read()
"""


def shown(*arguments: str, width: int = 80, **environ: str) -> str:
    """Return what `loadsim inspect` prints."""
    environ = {"COLUMNS": str(width), **environ}
    result = CliRunner().invoke(main, ["inspect", *arguments], env=environ)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("arguments", [(), ("user",)])
def test_another_network_namespace(arguments: tuple[str, ...]) -> None:
    """A process in another network namespace is shown as one in ours, also where a user namespace owns it."""
    with running(APART, *arguments) as ready:
        if "refused" in ready.said:
            pytest.skip(f"no namespaces here: {ready.said['refused']}")
        seen = take(ready.pid)
        assert seen.enter == f"nsenter -t {ready.pid} -n"
        assert seen.missing == ()
        listener = next(row for row in seen.rows if row.role == "LISTENING")
        assert (listener.local, listener.recv_q, listener.capacity) == ("127.0.0.1:9999", 1, 4)
        waiting = [one.fd for row in seen.waiting if row.other is not None for one in row.other.holders]
        assert waiting == [ready.said["client"]]
        assert "nsenter" in shown(str(ready.pid))


def test_a_namespace_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then /proc/PID/net is read, and a sentence says what is unknown and which command would show it."""

    def refused(pid: int) -> SockDiag:
        raise PermissionError(pid)

    with running(APART) as ready:
        if "refused" in ready.said:
            pytest.skip(f"no namespaces here: {ready.said['refused']}")
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


def test_proc_net_says_what_sock_diag_says(tmp_path: Path) -> None:
    """Both ways to a table give the same sockets, but for what /proc does not know."""
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
        told = {one.inode: (one.kind, one.state, one.name) for one in read_table_of(ready.pid).unix}
    assert tables[0] == tables[1]
    assert len(tables[0]) > 10
    assert {inode: unix[inode] for inode in unix.keys() & told.keys()} == {
        inode: told[inode] for inode in unix.keys() & told.keys()
    }


def test_a_process_that_has_ended() -> None:
    """One that has ended, and one that is gone altogether, are an error with the remedy, not a traceback."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        while process.poll() is None:
            time.sleep(0.01)
    with pytest.raises(ProcessGoneError):
        take(process.pid)
    result = CliRunner().invoke(main, ["inspect", str(process.pid)])
    assert result.exit_code == 3
    assert f"there is no process {process.pid}: loadsim inspect lists all" in result.stderr


def test_a_process_that_ends_while_it_is_read(tmp_path: Path) -> None:
    """Looked at again and again until it is gone, it is either shown whole or gone."""
    with running(ZOO, cwd=str(tmp_path)) as ready:
        os.kill(ready.pid, 15)
        with pytest.raises(ProcessGoneError):
            deque((take(ready.pid).rows[0] for _ in range(1000)), maxlen=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_the_process_of_another_user(tmp_path: Path) -> None:
    """Without the right to its descriptors their number is shown, what is missing, and the command that shows it."""
    with running(ZOO, cwd=str(tmp_path)) as ready:
        reading, writing = os.pipe()
        child = _fork()
        if child == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            seen = take(ready.pid)
            told = {"open": seen.open_fds, "rows": len(seen.rows), "missing": list(seen.missing), "soft": seen.soft}
            os.write(writing, json.dumps(told).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = json.load(pipe)
        os.waitpid(child, 0)
        assert (told["open"], told["soft"]) == (take(ready.pid).open_fds, take(ready.pid).soft)
    assert told["rows"] == 0
    assert "belongs to user 0" in told["missing"][0]
    assert f"sudo loadsim inspect {ready.pid}" in told["missing"][0]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_names_that_bite(tmp_path: Path, width: int) -> None:
    """Control characters in the names of processes and files are shown, not obeyed, and no line is too wide."""
    with running(BITES, cwd=str(tmp_path)) as ready:
        assert find(str(ready.pid)).pids == [ready.pid]
        for text in (shown(str(ready.pid), width=width), shown(width=width)):
            assert [char for char in text if not char.isprintable() and char != "\n"] == []
            assert "\u202e" not in text
            assert max(map(len, text.splitlines())) <= width
        document = json.loads(shown(str(ready.pid), "--json"))
    assert document["process"]["name"].startswith("\x1b[31mred")


def test_more_descriptors_than_the_limit() -> None:
    """A limit lowered on a live process leaves its descriptors: no room, and a sentence that says so."""
    with running(LOWERED) as ready:
        seen = take(ready.pid)
        assert (seen.soft, seen.room, seen.full) == (64, 0, True)
        assert seen.open_fds > seen.soft
        assert seen.beyond == seen.open_fds - 64
        text = " ".join(shown(str(ready.pid), "--over", "0s").split())
    assert f"{seen.beyond} descriptors at or beyond number 64, the limit" in text
    assert f"sudo prlimit --pid {ready.pid} --nofile=1024:" in text


def test_room_is_counted_in_numbers() -> None:
    """A descriptor beyond the limit takes no place below it."""
    script = LOWERED.replace("range(90)", "range(5)").replace(
        "resource.setrlimit", "os.dup2(0, 200); resource.setrlimit"
    )
    with running(script) as ready:
        seen = take(ready.pid)
        below = sum(fd < 64 for row in seen.rows for fd in row.fds)
        assert (seen.beyond, seen.room) == (seen.open_fds - below, 64 - below)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_it_only_reads(tmp_path: Path) -> None:
    """No process is traced or signalled, no descriptor taken, and nothing is executed."""
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
    """What `inspect` imports, its drawing included, is the standard library, click and psutil."""
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
    """A look takes at most four times as long as Python with click alone, which is 150 ms on a slow host."""

    def fastest(*arguments: str) -> float:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - begun)
        return min(times)

    bare = fastest("-c", "import click")
    look = fastest("-m", "loadsim", "inspect", str(os.getpid()), "--over", "0s")
    assert look < 4 * bare, f"{look * 1000:.0f} ms beside {bare * 1000:.0f} ms"


def test_own_limit_is_not_needed(tmp_path: Path) -> None:
    """It looks with a handful of descriptors of its own."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))

    with running(ZOO, cwd=str(tmp_path)) as ready:
        command = [sys.executable, "-m", "loadsim", "inspect", str(ready.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=few)
    assert done.returncode == 0, done.stderr
    assert "LISTENING" in done.stdout
