"""A private network namespace: its own listen queues, TCP counters, ports and sysctls, without root where permitted.

Owns the holder process that keeps it. The conductor never enters one itself; `launch` puts children inside. Must not
know what runs in it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from loadsim.errors import EnvironmentRefusedError
from loadsim.kernel.launch import Child, start_bare
from loadsim.kernel.limits import NAMESPACE_SYSCTLS, WIDE_PORT_RANGE, normal, read_sysctl
from loadsim.kernel.refusals import OUTSIDE, SHARED, explain_refusal, not_in_force
from loadsim.kernel.sockdiag import SockDiag

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

_HOLDER_TIMEOUT_S = 10
_ANSWER_BYTES = 65_536
_MOST_FDS = 3
#: A sysctl that can belong to a network namespace: as root, writing any other would change the host.
_NAMESPACED = re.compile(r"net(\.[a-z0-9_-]+)+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """The network namespace in which a run takes place; valid inside the context manager that gave it."""

    kind: str  # "private" | "shared"
    reason: str = ""  # why it is shared: a sentence that ends with the remedy
    diag: SockDiag  # sees the sockets of this namespace
    net_fd: int | None = None  # None: shared
    user_fd: int | None = None  # None: it needed no user namespace
    holder_pid: int | None = None  # /proc/PID/net is this namespace's; None: shared
    sysctls: dict[str, str] = field(default_factory=dict)  # in force
    not_applied: list[str] = field(default_factory=list)  # what was asked for and is not in force: whole sentences
    notices: list[str] = field(default_factory=list)  # in what else it could not be made as meant: whole sentences

    @property
    def enter_hint(self) -> str:
        """The command with which its owner sees the TCP sockets inside."""
        if self.holder_pid is None:
            return "ss -tan"
        # without the option nsenter becomes uid 0, which is not mapped: only the user's own id is
        user = "" if self.user_fd is None else "-U --preserve-credentials "
        return f"nsenter -t {self.holder_pid} {user}-n ss -tan"


@asynccontextmanager
async def private_namespace(sysctls: Mapping[str, str]) -> AsyncIterator[Namespace]:
    """Give a namespace with the host's sysctls, all ports from 1024 on, and these sysctls; else the shared one.

    It takes about 25 ms, needs no rights where the host permits user namespaces, and ends with the context or with
    the conductor. To be entered in the main thread.
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
    """Give the namespace of the caller; these sysctls are compared with what is in force, never written."""
    asked = {name: normal(value) for name, value in (sysctls or {}).items()}
    in_force = values_of({*NAMESPACE_SYSCTLS, *asked})
    with _own_diag() as diag:
        yield Namespace(
            kind="shared",
            reason=reason or 'network.namespace = "host" was asked for; "private" has counters and limits of its own',
            diag=diag,
            sysctls=in_force,
            not_applied=list(not_in_force(asked, in_force, dict.fromkeys(asked, SHARED))),
        )


def _own_diag() -> SockDiag:
    """Return a sock_diag socket of the caller's namespace; raises EnvironmentRefusedError where there is none."""
    try:
        return SockDiag()
    except OSError as error:
        raise EnvironmentRefusedError(
            f"cannot ask the kernel about its sockets (sock_diag, a netlink socket): {error.strerror}; let the seccomp "
            "profile permit AF_NETLINK (docker run --security-opt seccomp=unconfined), or use a kernel with "
            "CONFIG_INET_DIAG"
        ) from error


def values_of(names: Iterable[str]) -> dict[str, str]:
    """Return those of the caller's sysctls that can be read."""
    return {name: value for name in sorted(names) if (value := read_sysctl(name)) is not None}


class _RefusedError(Exception):
    """There is no private namespace; the message says why, and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Holder:
    """A running holder and what it answered."""

    pid: int
    diag: SockDiag
    net_fd: int
    user_fd: int | None
    values: dict[str, str]  # sysctls in force
    failures: dict[str, int]  # errno of those that could not be written


async def _start_holder(stack: ExitStack, wanted: Mapping[str, str]) -> _Holder:
    """Start a holder that lives, with its descriptors, as long as the stack; raises _RefusedError."""
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
    """Wait for the holder's answer and the descriptors with it; raises _RefusedError, also when there is none."""
    with trio.move_on_after(_HOLDER_TIMEOUT_S):
        await trio.lowlevel.wait_readable(control.fileno())
    try:
        answer, fds, _, _ = socket.recv_fds(control, _ANSWER_BYTES, _MOST_FDS, socket.MSG_DONTWAIT)
    except OSError:  # it has not said anything, or is gone and left our orders unread
        answer, fds = b"", []
    if not fds:
        _, step, code = answer.decode().split() or ("refused", "start", "0")
        raise _RefusedError(explain_refusal(step, int(code), read_sysctl))
    return answer.decode(), fds


def parse_answer(answer: str) -> tuple[dict[str, str], dict[str, int]]:
    """Return the sysctls in force, and the errno of each that could not be written, from the holder's answer."""
    lines = [line.split(" ", 2) for line in answer.splitlines()]
    values = {name: value for kind, name, value in lines if kind == "value"}
    return values, {name: int(code) for kind, name, code in lines if kind == "failed"}
