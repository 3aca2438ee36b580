"""The finding about the host: it kept the server from running, and the verdict depends on that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.host import busy_sentence
from loadsim.analysis.rules.case import Found
from loadsim.analysis.rules.definition import Definition

if TYPE_CHECKING:
    from loadsim.analysis.rules.case import Case

HOST_BUSY = "host-busy"


def host_busy(case: Case) -> Found:
    """Return the doubt that a late server explains everything that went wrong, and the host made it late."""
    return Found(
        "The host was busy, and a server that gets no CPU explains everything that went wrong.",
        (busy_sentence(case.numbers) or "").partition(". ")[0] + ".",
        "run it again on a host that does nothing else, or give server and drivers a CPU each.",
    )


FINDINGS = (
    Definition(
        id=HOST_BUSY,
        rules=(),  # `judge` adds it: it depends on all other findings, and on the expectations
        means="The server was ready to run and the kernel gave the CPU to other processes. Clients waited meanwhile, "
        "and the queue may have overflowed: neither says anything about the server.",
        look_at="server.run_wait, server.run_wait_max and host.run_wait, beside the pauses of accepting. In "
        "production: how fast the second number of /proc/PID/schedstat grows, in nanoseconds.",
        do="Stop other work on this machine, or bind server and drivers to CPUs that nothing else uses. Run it again.",
    ),
)
