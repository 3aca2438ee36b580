"""The process that keeps a private network namespace: it creates and reports it, and waits for the conductor's end.

Runs without site-packages and imports as little as possible: `_socket`, not `socket` with its enums, which cost 10 ms
of 25. Its orders are its arguments: the conductor's pid, then NAME=VALUE for each sysctl. Its reply is one message on
standard input, a socket. It has these lines and, attached, descriptors of the namespace, of a sock_diag socket inside
it, and of the user namespace if one was needed.

    refused STEP ERRNO      there is no namespace; this is the only line
    value NAME VALUE        a sysctl in force
    failed NAME ERRNO       a sysctl that could not be written
"""

from __future__ import annotations

import _socket
import array
import errno
import fcntl
import os
import struct

from loadsim.kernel import libc

_NETLINK_SOCK_DIAG = 4
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 1
#: Buckets of the namespace's own table of connections. Without one it shares the host's table of often 262,144 buckets.
#: Each read of the sockets walks all of them, which costs 2.5 ms of a core without preemption (Linux 6.18).
_BUCKETS = "16384"
_IFREQ_FLAGS = struct.Struct("16sH14x")


class _RefusedError(Exception):
    """The namespace cannot be created; the arguments are the step and the errno."""


def main(arguments: list[str]) -> None:
    """Create the namespace, reply, and wait until the other end of standard input is closed."""
    try:  # noqa: SIM105  # importing contextlib costs milliseconds here
        _keep(arguments)
    except (BrokenPipeError, ConnectionResetError, ProcessLookupError):
        pass  # the conductor was killed meanwhile


def _keep(arguments: list[str]) -> None:
    parent, *sysctls = arguments
    control = _socket.socket(fileno=0)
    try:
        fds = _make_namespace()
        libc.die_with_parent(int(parent))
    except _RefusedError as refused:
        control.send("refused {} {}".format(*refused.args).encode())
        return
    lines = [line for order in sysctls for line in _apply(*order.split("=", 1))]
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))
    control.sendmsg(["\n".join(lines).encode()], [rights])
    for fd in fds:
        os.close(fd)
    control.recv(1)


def _make_namespace() -> list[int]:
    """Enter new namespaces and set loopback up; return descriptors of network, sock_diag, user namespace."""
    fds = []
    if _leave():
        fds.append(os.open("/proc/self/ns/user", os.O_RDONLY))
    _shrink_connection_table()
    try:
        _raise_loopback()
        diag = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    except OSError as error:
        raise _RefusedError("loopback", error.errno) from error
    return [os.open("/proc/self/ns/net", os.O_RDONLY), diag.detach(), *fds]


def _leave() -> bool:
    """Leave the host's network namespace; True if that needed a user namespace (without CAP_SYS_ADMIN)."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        libc.leave_namespaces(libc.CLONE_NEWNET)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise _RefusedError("unshare", error.errno) from error
    else:
        return False
    step = "unshare_user"
    try:
        libc.leave_namespaces(libc.CLONE_NEWUSER | libc.CLONE_NEWNET)
        step = "uid_map"
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")  # the same ids: processes inside see their normal user
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    except OSError as error:
        raise _RefusedError(step, error.errno) from error
    return True


def _shrink_connection_table() -> None:
    """Move to a child namespace with a private table (Linux 6.1), sized by a sysctl of its parent."""
    try:
        _write("/proc/sys/net/ipv4/tcp_child_ehash_entries", _BUCKETS)
        libc.leave_namespaces(libc.CLONE_NEWNET)
    except OSError:  # the present namespace works too, but its sockets are slower to read
        pass


def _raise_loopback() -> None:
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    _, flags = _IFREQ_FLAGS.unpack(fcntl.ioctl(probe, _SIOCGIFFLAGS, _IFREQ_FLAGS.pack(b"lo", 0)))
    fcntl.ioctl(probe, _SIOCSIFFLAGS, _IFREQ_FLAGS.pack(b"lo", flags | _IFF_UP))
    probe.close()


def _apply(name: str, value: str) -> list[str]:
    """Set a sysctl unless it already has that value; return the lines of the reply."""
    path = "/proc/sys/net/" + name.removeprefix("net.").replace(".", "/")  # others belong to the host
    lines = []
    try:
        if _read(path) != value:
            _write(path, value)
    except OSError as error:
        lines.append(f"failed {name} {error.errno}")
    try:  # noqa: SIM105  # importing contextlib costs milliseconds here
        lines.append(f"value {name} {_read(path)}")
    except OSError:
        pass  # no namespace of this kernel has it; the line above reports that
    return lines


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return " ".join(os.read(fd, 4096).decode().split())
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
