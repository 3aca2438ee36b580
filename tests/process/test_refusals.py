"""What Linux refuses becomes a sentence that ends with the remedy."""

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
    """Each way to be refused a namespace names its cause, and after it what to change."""
    said, _, advice = explain_refusal(*step_and_errno, settings.get).partition("; ")
    assert why in said
    assert remedy in advice


@pytest.mark.parametrize(
    ("code", "why", "remedy"),
    [
        (0, "keeps its own", "a value that it accepts"),
        (SHARED, "never writes the host's own", "sysctl -w net.core.somaxconn=8"),
        (OUTSIDE, "belongs to the whole host", "sysctl -w net.core.somaxconn=8"),
        (errno.ENOENT, "no network namespace of this kernel has it", "spelling"),
        (errno.EINVAL, "refuses that value", "range"),
        (errno.EROFS, "read-only, as in containers", "docker run --sysctl net.core.somaxconn=8"),
        (errno.EPERM, "cannot be written", "sysctl -w net.core.somaxconn=8"),
        (errno.EIO, "the kernel refuses it", "leave it out"),
    ],
)
def test_sysctls_not_in_force(code: int, why: str, remedy: str) -> None:
    """A sysctl with another value is named with both values, the cause, and what to change."""
    (sentence,) = not_in_force(
        {"net.core.somaxconn": "8"}, {"net.core.somaxconn": "4096"}, {"net.core.somaxconn": code}
    )
    said, _, advice = sentence.partition("; ")
    assert said.startswith("net.core.somaxconn should be 8 and is 4096: ")
    assert why in said
    assert remedy in advice


def test_values_of_several_numbers_are_quoted() -> None:
    """The advice can be pasted into a shell."""
    (sentence,) = not_in_force({"net.ipv4.tcp_mem": "1 2 3"}, {}, {"net.ipv4.tcp_mem": SHARED})
    assert "sysctl -w 'net.ipv4.tcp_mem=1 2 3'" in sentence


def test_sysctls_that_do_not_exist() -> None:
    """A name that nothing has is said not to exist."""
    (sentence,) = not_in_force({"net.core.somaxcon": "8"}, {}, {"net.core.somaxcon": errno.ENOENT})
    assert sentence.startswith("net.core.somaxcon should be 8 and does not exist here: ")


def test_sysctls_in_force() -> None:
    """Nothing is said of a sysctl that has the wanted value, even where writing it failed."""
    assert list(not_in_force({"a": "1"}, {"a": "1", "b": "2"}, {"a": errno.EROFS})) == []
