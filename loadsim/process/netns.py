"""A private network namespace with its own listen queues, TCP counters, ports and sysctls, usually without root.

Owns the sentences that explain why there is none, or why a sysctl is not in force.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import socket
import subprocess
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.limits import NAMESPACE_SYSCTLS, WIDE_PORT_RANGE, normal, read_sysctl
from loadsim.kernel.sockdiag import SockDiag
from loadsim.process.launch import Child, Namespace, start_bare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping


_ROOT = "run loadsim as root"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A cause for a refused namespace; `code` 0 matches every errno, `setting` must have the given value."""

    step: str
    code: int
    setting: tuple[str, str] | None
    why: str
    remedy: str


#: The first match counts. The steps are from `holder`; "start" is the start of the holder itself.
_REFUSALS = (
    _Refusal(
        "unshare_user",
        errno.EPERM,
        ("kernel.unprivileged_userns_clone", "0"),
        "kernel.unprivileged_userns_clone is 0",
        f"sudo sysctl -w kernel.unprivileged_userns_clone=1, or {_ROOT}",
    ),
    _Refusal(
        "unshare_user",
        errno.EPERM,
        None,
        "a seccomp filter or a chroot forbids user namespaces, as containers do",
        "docker run --security-opt seccomp=unconfined (or --cap-add SYS_ADMIN)",
    ),
    _Refusal(
        "unshare_user",
        errno.EINVAL,
        None,
        "this kernel is built without user namespaces, or the holder has threads",
        _ROOT,
    ),
    *(
        _Refusal(step, errno.ENOSPC, (name, "0"), f"{name} is 0", f"sudo sysctl -w {name}=1000")
        for step in ("unshare", "unshare_user")
        for name in ("user.max_user_namespaces", "user.max_net_namespaces")
    ),
    *(
        _Refusal(
            step,
            errno.ENOSPC,
            None,
            "the number of namespaces has reached its limit",
            "end their processes (lsns -t net), or raise user.max_user_namespaces and user.max_net_namespaces",
        )
        for step in ("unshare", "unshare_user")
    ),
    _Refusal(
        "unshare",
        errno.EINVAL,
        None,
        "this kernel is built without network namespaces",
        "use a kernel with CONFIG_NET_NS",
    ),
    *(
        _Refusal(
            step,
            0,
            ("kernel.apparmor_restrict_unprivileged_userns", "1"),
            "AppArmor removes the rights of unprivileged user namespaces"
            " (kernel.apparmor_restrict_unprivileged_userns is 1, Ubuntu 23.10 and later)",
            f"sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or {_ROOT}",
        )
        for step in ("uid_map", "loopback")
    ),
    _Refusal("uid_map", 0, None, "the new user namespace has no rights", f"find in dmesg what denied them, or {_ROOT}"),
    _Refusal("loopback", 0, None, "its loopback interface cannot be used", f"find in dmesg what denied it, or {_ROOT}"),
    _Refusal("start", 0, None, "the process that keeps it did not start", "see its output above, and try again"),
)
_FALLBACK = _Refusal("", 0, None, "the kernel refused it", _ROOT)


def explain_refusal(step: str, code: int, read_sysctl: Callable[[str], str | None]) -> str:
    """Return why there is no private namespace: the holder's step that failed, and its errno or 0."""
    row = next((row for row in _REFUSALS if _fits(row, step, code, read_sysctl)), _FALLBACK)
    reason = f" ({os.strerror(code)})" if code else ""
    return f"no private network namespace, because {row.why}{reason}; {row.remedy}"


def _fits(row: _Refusal, step: str, code: int, read_sysctl: Callable[[str], str | None]) -> bool:
    if row.step != step or row.code not in (0, code):
        return False
    return row.setting is None or read_sysctl(row.setting[0]) == row.setting[1]


#: Used in place of an errno if nothing was written: the namespace, or the sysctl, belongs to the host.
SHARED = -1
OUTSIDE = -2
#: Errno of writing a sysctl (0: it was written) -> why it is not in force, and the remedy.
_NOT_WRITTEN = {
    0: ("the kernel keeps its own value", "use a value that it accepts"),
    SHARED: (
        "loadsim never writes sysctls of the host",
        "set it with sudo sysctl -w {setting}, or use a private namespace",
    ),
    OUTSIDE: ("it belongs to the host", "set it there: sudo sysctl -w {setting}"),
    errno.ENOENT: ("no network namespace of this kernel has it", "check its spelling, or set it on the host"),
    errno.EINVAL: ("the kernel refuses that value", "use one in its range"),
    errno.ERANGE: ("the kernel refuses that value", "use one in its range"),
    errno.EROFS: ("/proc/sys is read-only, as in containers", "docker run --sysctl {setting}, or --privileged"),
    errno.EACCES: ("it cannot be written inside a namespace", "set it on the host: sudo sysctl -w {setting}"),
    errno.EPERM: ("it cannot be written inside a namespace", "set it on the host: sudo sysctl -w {setting}"),
}
_OTHER_ERRNO = ("the kernel refuses it", "remove it from the scenario")


def not_in_force(wanted: Mapping[str, str], in_force: Mapping[str, str], failures: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence for each wanted sysctl that is not in force; `failures` maps names to errnos."""
    for name, value in wanted.items():
        if in_force.get(name) != value:
            why, remedy = _NOT_WRITTEN.get(failures.get(name, 0), _OTHER_ERRNO)
            setting = shlex.quote(f"{name}={value}")  # some values have spaces
            is_now = f"is {in_force[name]}" if name in in_force else "does not exist here"
            yield f"{name} should be {value} but {is_now}: {why}; {remedy.format(setting=setting)}"


_HOLDER_TIMEOUT_S = 10
_ANSWER_BYTES = 65_536
_MOST_FDS = 3
#: Sysctls that can belong to a network namespace; as root, writing any other would change the host.
_NAMESPACED = re.compile(r"net(\.[a-z0-9_-]+)+", re.IGNORECASE)


@asynccontextmanager
async def private_namespace(sysctls: Mapping[str, str]) -> AsyncIterator[Namespace]:
    """Yield a namespace with these sysctls, the host's other ones, and all ports from 1024; or the shared one.

    It takes about 25 ms, needs no rights if the host permits user namespaces, and ends with the context or with
    the conductor. Enter it in the main thread.
    """
    asked = {name: normal(value) for name, value in sysctls.items()}
    default = values_of(NAMESPACE_SYSCTLS) | WIDE_PORT_RANGE
    like_host = {name: value for name, value in default.items() if name not in asked}
    with ExitStack() as stack:
        try:
            holder = await _start_holder(stack, like_host | asked)
        except _RefusedError as refused:
            reason = str(refused)
        else:
            in_force = holder.values | values_of(set(asked) - set(holder.values))
            yield Namespace(
                kind="private",
                diag=holder.diag,
                net_fd=holder.net_fd,
                user_fd=holder.user_fd,
                holder_pid=holder.pid,
                sysctls=in_force,
                not_applied=list(not_in_force(asked, in_force, holder.failures)),
                notices=list(not_in_force(like_host, in_force, holder.failures)),
            )
            return
    async with shared_namespace(sysctls, reason=reason) as shared:
        yield shared


@asynccontextmanager
async def shared_namespace(sysctls: Mapping[str, str] | None = None, *, reason: str = "") -> AsyncIterator[Namespace]:
    """Yield the caller's namespace; these sysctls are compared with the values in force, never written."""
    asked = {name: normal(value) for name, value in (sysctls or {}).items()}
    in_force = values_of({*NAMESPACE_SYSCTLS, *asked})
    with _own_diag() as diag:
        yield Namespace(
            kind="shared",
            reason=reason or 'network.namespace = "host" is set; "private" has its own counters and limits',
            diag=diag,
            sysctls=in_force,
            not_applied=list(not_in_force(asked, in_force, dict.fromkeys(asked, SHARED))),
        )


def _own_diag() -> SockDiag:
    """Open a sock_diag socket in the caller's namespace; raises EnvironmentRefusedError if that is refused."""
    try:
        return SockDiag()
    except OSError as error:
        raise EnvironmentRefusedError(
            f"cannot read sockets from the kernel (sock_diag, a netlink socket): {error.strerror}; let the seccomp "
            "profile permit AF_NETLINK (docker run --security-opt seccomp=unconfined), or use a kernel with "
            "CONFIG_INET_DIAG"
        ) from error


def values_of(names: Iterable[str]) -> dict[str, str]:
    """Return the values of these sysctls in the caller's namespace, without unreadable ones."""
    return {name: value for name in sorted(names) if (value := read_sysctl(name)) is not None}


class _RefusedError(Exception):
    """There is no private namespace; the message gives the reason and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    """A running holder and its reply."""

    pid: int
    diag: SockDiag
    net_fd: int
    user_fd: int | None
    values: dict[str, str]  # sysctls in force
    failures: dict[str, int]  # errnos of sysctls that could not be written


async def _start_holder(stack: ExitStack, wanted: Mapping[str, str]) -> _Holder:
    """Start a holder that ends, with its descriptors, when the stack closes; raises _RefusedError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.enter_context(ours)
    sysctls = [f"{name}={value}" for name, value in wanted.items() if _NAMESPACED.fullmatch(name)]
    orders = [str(os.getpid()), *sysctls]
    with theirs:
        try:
            process = start_bare("holder", orders, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        except OSError as error:
            raise _RefusedError(explain_refusal("start", error.errno or 0, read_sysctl)) from error
    child = stack.enter_context(Child(process))
    answer, fds = await _wait_answer(ours)
    for fd in fds[:1] + fds[2:]:
        stack.callback(os.close, fd)
    net_fd, diag_fd, *user_fd = fds
    values, failures = parse_answer(answer)
    outside = [name for name in wanted if not _NAMESPACED.fullmatch(name)]
    return _Holder(
        pid=child.pid,
        diag=stack.enter_context(SockDiag(socket.socket(fileno=diag_fd))),
        net_fd=net_fd,
        user_fd=user_fd[0] if user_fd else None,
        values=values,
        failures=failures | dict.fromkeys(outside, OUTSIDE),
    )


async def _wait_answer(control: socket.socket) -> tuple[str, list[int]]:
    """Wait for the holder's reply and its descriptors; raises _RefusedError, also without a reply."""
    with trio.move_on_after(_HOLDER_TIMEOUT_S):
        await trio.lowlevel.wait_readable(control.fileno())
    try:
        answer, fds, _, _ = socket.recv_fds(control, _ANSWER_BYTES, _MOST_FDS, socket.MSG_DONTWAIT)
    except OSError:  # no reply yet, or it has ended without reading its orders
        answer, fds = b"", []
    if not fds:
        _, step, code = answer.decode().split() or ("refused", "start", "0")
        raise _RefusedError(explain_refusal(step, int(code), read_sysctl))
    return answer.decode(), fds


def parse_answer(answer: str) -> tuple[dict[str, str], dict[str, int]]:
    """Return from a holder's reply the sysctls in force, and the errno of each that could not be written."""
    lines = [line.split(" ", 2) for line in answer.splitlines()]
    values = {name: value for kind, name, value in lines if kind == "value"}
    return values, {name: int(code) for kind, name, code in lines if kind == "failed"}
