"""Why there is no private network namespace, or a sysctl is not in force, as sentences that end with the remedy.

Pure: tables from where the kernel said no, with which errno, and which sysctls were set, to words.
"""

from __future__ import annotations

import errno
import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_ROOT = "run loadsim as root"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """One way to be refused a namespace; `code` 0 fits every errno, `setting` must have that value."""

    step: str
    code: int
    setting: tuple[str, str] | None
    why: str
    remedy: str


#: The first row that fits is what is said. Steps are those of `holder`, and "start" for the holder itself.
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
            "end what holds them (lsns -t net), or raise user.max_user_namespaces and user.max_net_namespaces",
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
            "AppArmor takes the rights away from unprivileged user namespaces"
            " (kernel.apparmor_restrict_unprivileged_userns is 1, Ubuntu 23.10 and later)",
            f"sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or {_ROOT}",
        )
        for step in ("uid_map", "loopback")
    ),
    _Refusal(
        "uid_map", 0, None, "the new user namespace was given no rights", f"look at dmesg for who denied it, or {_ROOT}"
    ),
    _Refusal(
        "loopback", 0, None, "its loopback interface cannot be used", f"look at dmesg for who denied it, or {_ROOT}"
    ),
    _Refusal(
        "start", 0, None, "the process that keeps it did not start", "see above for what it printed, and try again"
    ),
)
_FALLBACK = _Refusal("", 0, None, "the kernel refused it", _ROOT)


def explain_refusal(step: str, code: int, read_sysctl: Callable[[str], str | None]) -> str:
    """Return why there is no private namespace, given where and with which errno (0: none) it was refused."""
    row = next((row for row in _REFUSALS if _fits(row, step, code, read_sysctl)), _FALLBACK)
    reason = f" ({os.strerror(code)})" if code else ""
    return f"no private network namespace, because {row.why}{reason}; {row.remedy}"


def _fits(row: _Refusal, step: str, code: int, read_sysctl: Callable[[str], str | None]) -> bool:
    if row.step != step or row.code not in (0, code):
        return False
    return row.setting is None or read_sysctl(row.setting[0]) == row.setting[1]


#: Stand for an errno where nothing was written: the namespace is the host's, the sysctl is none of a namespace.
SHARED = -1
OUTSIDE = -2
#: Why a sysctl is not in force, by the errno of writing it; 0: it was written.
_NOT_WRITTEN = {
    0: ("the kernel keeps its own", "ask for a value that it accepts"),
    SHARED: (
        "loadsim never writes the host's own",
        "set it with sudo sysctl -w {setting}, or use a private namespace",
    ),
    OUTSIDE: ("it belongs to the whole host", "set it there: sudo sysctl -w {setting}"),
    errno.ENOENT: ("no network namespace of this kernel has it", "check its spelling, or set it on the host"),
    errno.EINVAL: ("the kernel refuses that value", "ask for one in its range"),
    errno.ERANGE: ("the kernel refuses that value", "ask for one in its range"),
    errno.EROFS: ("/proc/sys is read-only, as in containers", "docker run --sysctl {setting}, or --privileged"),
    errno.EACCES: ("it cannot be written inside a namespace", "set it on the host: sudo sysctl -w {setting}"),
    errno.EPERM: ("it cannot be written inside a namespace", "set it on the host: sudo sysctl -w {setting}"),
}
_OTHER_ERRNO = ("the kernel refuses it", "leave it out")


def not_in_force(wanted: Mapping[str, str], in_force: Mapping[str, str], failures: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence for each wanted sysctl that has another value, or none; `failures`: errno by name."""
    for name, value in wanted.items():
        if in_force.get(name) != value:
            why, remedy = _NOT_WRITTEN.get(failures.get(name, 0), _OTHER_ERRNO)
            setting = shlex.quote(f"{name}={value}")  # some values are several numbers
            is_now = f"is {in_force[name]}" if name in in_force else "does not exist here"
            yield f"{name} should be {value} and {is_now}: {why}; {remedy.format(setting=setting)}"
