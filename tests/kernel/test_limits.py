"""Limits, sysctls and facts about the host are read as plain values."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from loadsim.kernel.limits import HostLimits, Limits, host_facts, normal, own_nofile, read_sysctl, sysctl_path

pytestmark = pytest.mark.real


def test_own_nofile() -> None:
    """The limits of this process agree with getrlimit()."""
    assert own_nofile() == Limits(*resource.getrlimit(resource.RLIMIT_NOFILE))


def test_raise_own_nofile() -> None:
    """The soft limit is raised to the hard one, and the result is returned."""
    code = """
import resource
from loadsim.kernel.limits import Limits, raise_own_nofile, set_own_nofile
set_own_nofile(Limits(soft=50, hard=70))
print(raise_own_nofile(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "Limits(soft=70, hard=70) (70, 70)\n"


def test_sysctls() -> None:
    """A sysctl is read by its full name, with one space between numbers; an unknown one is None."""
    assert sysctl_path("net.core.somaxconn") == Path("/proc/sys/net/core/somaxconn")
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert read_sysctl("net.ipv4.ip_local_port_range") == " ".join(ports)
    assert read_sysctl("net.core.somaxcon") is None


def test_values_are_compared_by_their_numbers() -> None:
    """Values with tabs and spaces between the same numbers are equal."""
    assert normal(" 4096\t131072 \n") == normal("4096 131072")


def test_host_limits() -> None:
    """The host's limits are read from the kernel; sysctls in force in a namespace take precedence."""
    here = HostLimits.collect()
    assert (here.nofile_soft, here.nofile_hard) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert str(here.somaxconn) == read_sysctl("net.core.somaxconn")
    assert here.cpus == len(os.sched_getaffinity(0))
    inside = HostLimits.collect({"net.core.somaxconn": "8", "net.ipv4.ip_local_port_range": "1024 65535"})
    assert (inside.somaxconn, inside.port_low, inside.port_high) == (8, 1024, 65535)
    assert inside.syn_retries == here.syn_retries


def test_host_facts() -> None:
    """The facts about the host are JSON values from the kernel."""
    facts = json.loads(json.dumps(host_facts()))
    assert facts["kernel"] == os.uname().release
    assert facts["cpus"] == os.cpu_count()
    assert facts["sysctls"]["net.core.somaxconn"] == read_sysctl("net.core.somaxconn")
    assert len(facts["load_average"]) == 3
    assert facts["cpu_model"]
