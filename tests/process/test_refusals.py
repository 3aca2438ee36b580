"""Refusals of the kernel become sentences that end with the remedy."""

from __future__ import annotations

import errno

import pytest

from loadsim.process.netns import OUTSIDE, SHARED, explain_refusal, not_in_force

APPARMOR = {"kernel.apparmor_restrict_unprivileged_userns": "1"}


@pytest.mark.parametrize(
    ("step_and_errno", "settings", "why", "remedy"),
    [
        (
            ("unshare_user", errno.EPERM),
            {"kernel.unprivileged_userns_clone": "0"},
            "kernel.unprivileged_userns_clone is 0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (("unshare_user", errno.EPERM), {}, "seccomp", "seccomp=unconfined"),
        (("unshare_user", errno.EINVAL), {}, "without user namespaces, or the holder has threads", "as root"),
        (
            ("unshare_user", errno.ENOSPC),
            {"user.max_user_namespaces": "0"},
            "user.max_user_namespaces is 0",
            "sysctl -w user.max_user_namespaces=1000",
        ),
        (
            ("unshare", errno.ENOSPC),
            {"user.max_user_namespaces": "9", "user.max_net_namespaces": "0"},
            "user.max_net_namespaces is 0",
            "sysctl -w user.max_net_namespaces=1000",
        ),
        (("unshare", errno.ENOSPC), {"user.max_net_namespaces": "9"}, "reached its limit", "lsns -t net"),
        (("unshare", errno.EINVAL), {}, "without network namespaces", "CONFIG_NET_NS"),
        (("uid_map", errno.EPERM), APPARMOR, "AppArmor", "apparmor_restrict_unprivileged_userns=0"),
        (("loopback", errno.EPERM), APPARMOR, "AppArmor", "apparmor_restrict_unprivileged_userns=0"),
        (("uid_map", errno.EPERM), {}, "no rights", "dmesg"),
        (("loopback", errno.EPERM), {}, "loopback", "dmesg"),
        (("start", 0), {}, "did not start", "try again"),
        (("unshare", errno.ENOMEM), {}, "the kernel refused it (Cannot allocate memory)", "as root"),
    ],
)
def test_refused_namespaces(step_and_errno: tuple[str, int], settings: dict[str, str], why: str, remedy: str) -> None:
    """A refused namespace is explained by its cause, followed by the remedy."""
    cause, _, advice = explain_refusal(*step_and_errno, settings.get).partition("; ")
    assert why in cause
    assert remedy in advice


@pytest.mark.parametrize(
    ("code", "why", "remedy"),
    [
        (0, "keeps its own value", "a value that it accepts"),
        (SHARED, "never writes sysctls of the host", "sysctl -w net.core.somaxconn=8"),
        (OUTSIDE, "belongs to the host", "sysctl -w net.core.somaxconn=8"),
        (errno.ENOENT, "no network namespace of this kernel has it", "spelling"),
        (errno.EINVAL, "refuses that value", "range"),
        (errno.EROFS, "read-only, as in containers", "docker run --sysctl net.core.somaxconn=8"),
        (errno.EPERM, "cannot be written", "sysctl -w net.core.somaxconn=8"),
        (errno.EIO, "the kernel refuses it", "remove it from the scenario"),
    ],
)
def test_sysctls_not_in_force(code: int, why: str, remedy: str) -> None:
    """A sysctl with another value is reported with both values, the cause and the remedy."""
    (sentence,) = not_in_force(
        {"net.core.somaxconn": "8"}, {"net.core.somaxconn": "4096"}, {"net.core.somaxconn": code}
    )
    cause, _, advice = sentence.partition("; ")
    assert cause.startswith("net.core.somaxconn should be 8 but is 4096: ")
    assert why in cause
    assert remedy in advice


def test_values_of_several_numbers_are_quoted() -> None:
    """The remedy can be pasted into a shell."""
    (sentence,) = not_in_force({"net.ipv4.tcp_mem": "1 2 3"}, {}, {"net.ipv4.tcp_mem": SHARED})
    assert "sysctl -w 'net.ipv4.tcp_mem=1 2 3'" in sentence


def test_sysctls_that_do_not_exist() -> None:
    """An unknown sysctl is reported as that."""
    (sentence,) = not_in_force({"net.core.somaxcon": "8"}, {}, {"net.core.somaxcon": errno.ENOENT})
    assert sentence.startswith("net.core.somaxcon should be 8 but does not exist here: ")


def test_sysctls_in_force() -> None:
    """A sysctl with the wanted value is not reported, even if writing it failed."""
    assert list(not_in_force({"a": "1"}, {"a": "1", "b": "2"}, {"a": errno.EROFS})) == []
