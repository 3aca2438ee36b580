"""Realistic summaries for the tests of `loadsim.render`, and the comparison with golden files.

`LOADSIM_UPDATE_GOLDEN=1 pytest tests/render tests/compare` updates the golden files: read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

from loadsim.analysis.summary import Band, Compared, Finding, Judged, Mark, Summary, Timeline
from loadsim.fates import FATES, OUTCOMES

GOLDEN = Path(__file__).parent.parent / "data" / "golden"


def golden(name: str, text: str) -> str:
    """Return the text of a golden file; with LOADSIM_UPDATE_GOLDEN, write `text` to it first."""
    path = GOLDEN / name
    if os.environ.get("LOADSIM_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def too_many_open_files() -> Summary:
    """Return a run of 600 clients in 3 s against a server with nofile = 64 that never closes a connection."""
    fds: list[int | None] = [min(8 + round(200 * 0.05 * step), 64) for step in range(102)]
    queue: list[int | None] = [min(max(round(200 * (0.05 * step - 0.28)), 0), 129) for step in range(102)]
    cells = {"accepted": {"ok": 56}, "queued": {"reply_timeout": 129}, "dropped": {"connect_timeout": 415}}
    return Summary(
        scenario="too-many-open-files",
        description="A server that forgets close() meets RLIMIT_NOFILE = 64.",
        seed=7,
        complete=True,
        interrupted=None,
        duration_s=5.1,
        clients=600,
        status="REPRODUCED",
        sentence='"Too many open files" after 0.28 s, because nothing is closed.',
        metrics={
            "attempts.count": 600,
            "fate.accepted": 56,
            "connect.p50_s": 0.000058,
            "connect.p90_s": 0.000081,
            "connect.p99_s": 0.00019,
            "connect.max_s": 0.00042,
            "accept.p50_s": 0.000031,
            "accept.max_s": 0.000057,
            "accept.samples": 56,
            "accept.waiting": 129,
            "accept.waiting_max_s": 4.7,
            "accept.pause_max_s": 4.7,
            "reply.p50_s": 0.00012,
            "reply.max_s": 0.00031,
            "fds.max": 64,
            "fds.end": 64,
            "fds.limit": 64,
            "fds.baseline": 8,
            "queue.max": 129,
            "queue.capacity": 129,
            "emfile.count": 48,
            "listen.overflows": 830,
            "generator.lag.p99_s": 0.00021,
            "generator.cpu": 0.04,
            "generator.local_failures": 0,
            "generator.limited": 0,
        },
        ledger=_ledger(cells),
        outcomes=_outcomes(cells),
        fate_by_outcome=cells,
        balanced=True,
        imbalance=[],
        foreign=0,
        ambiguous=0,
        growth=[
            _band(9, 15, 7, (31, None, 48, 0)),
            _band(16, 31, 16, (30, None, 52, 0)),
            _band(32, 63, 32, (31, None, 57, 0)),
            _band(64, 64, 1, (30, None, 30, 4_700_000), lost=(48, 830)),
        ],
        findings=[
            Finding(
                id="fd-leak",
                title="The server leaked every descriptor it was given.",
                evidence="56 of 56 accepted connections are still open; all 56 clients had left.",
                remedy='close the socket when recv() returns b"". A higher limit buys time only: at this rate '
                "nofile = 65536 lasts 5 min 28 s.",
                fault=True,
            ),
            Finding(
                id="false-connect",
                title='129 clients were told "connected" by a server that could not take them.',
                evidence="The kernel finishes handshakes until the accept queue is full (backlog 128 holds 129). A "
                "successful connect() is not a served client.",
                remedy=None,
                fault=True,
            ),
            Finding(
                id="queue-overflow",
                title="415 clients got no answer: 830 SYNs met a full queue.",
                evidence="",
                remedy="follows from 1. A larger backlog would only hide more clients.",
                fault=True,
            ),
        ],
        thresholds=[
            Judged(text="emfile.count > 0", ok=True, measured="48"),
            Judged(text="fds.max == 64", ok=True, measured="64"),
        ],
        prediction=[
            Compared(name="EMFILE", unit="s", predicted=0.28, measured=0.276),
            Compared(name="queue full", unit="s", predicted=0.925, measured=0.929),
            Compared(name="accepted", unit="", predicted=56, measured=56),
            Compared(name="queued", unit="", predicted=129, measured=129),
            Compared(name="dropped", unit="", predicted=415, measured=415),
        ],
        timeline=Timeline(
            step_s=0.05,
            open_fds=fds,
            fd_limit=64,
            queue=queue,
            queue_capacity=129,
            marks=[Mark(at_s=0.276, label="first EMFILE"), Mark(at_s=0.929, label="queue full: SYNs dropped")],
        ),
        fd_map="fffesseL" + 56 * "W",
        settings={"client": {"connect_timeout": 2.0, "reply_timeout": 2.0}},
    )


def healthy() -> Summary:
    """Return a run of 200 clients, all served, against a server that closes its connections."""
    cells = {"accepted": {"ok": 200}}
    fds: list[int | None] = [8 + (step % 3 == 1) + (step % 7 == 2) for step in range(40)]
    return Summary(
        scenario="healthy",
        description="A server that closes what it opens.",
        seed=1,
        complete=True,
        interrupted=None,
        duration_s=2.0,
        clients=200,
        status="HEALTHY",
        sentence="All 200 clients were served; the server never held more than 10 of its 1,024 descriptors.",
        metrics={
            "fate.accepted": 200,
            "connect.p50_s": 0.000051,
            "connect.p90_s": 0.000068,
            "connect.p99_s": 0.00014,
            "connect.max_s": 0.0003,
            "accept.p50_s": 0.000029,
            "accept.p90_s": 0.000044,
            "accept.p99_s": 0.000086,
            "accept.max_s": 0.00011,
            "accept.samples": 200,
            "accept.waiting": 0,
            "accept.pause_max_s": 0.0001,
            "reply.p50_s": 0.0001,
            "reply.p90_s": 0.00013,
            "reply.p99_s": 0.00022,
            "reply.max_s": 0.00052,
            "fds.max": 10,
            "fds.limit": 1024,
            "queue.max": 2,
            "queue.capacity": 129,
            "emfile.count": 0,
            "listen.overflows": 0,
            "generator.lag.p99_s": 0.00019,
            "generator.cpu": 0.03,
            "generator.local_failures": 0,
            "generator.limited": 0,
        },
        ledger=_ledger(cells),
        outcomes=_outcomes(cells),
        fate_by_outcome=cells,
        balanced=True,
        imbalance=[],
        foreign=0,
        ambiguous=0,
        growth=[
            _band(9, 9, 181, (29, 84, 110, 90)),
            _band(10, 10, 19, (30, None, 95, 100)),
        ],
        findings=[
            Finding(
                id="nothing-found",
                title="Nothing was found.",
                evidence="All 200 clients were accepted and served, all descriptors were given back, and the accept "
                "queue never held more than 2 of 129.",
                remedy=None,
                fault=False,
            )
        ],
        thresholds=[
            Judged(text="outcome.ok == 200", ok=True, measured="200"),
            Judged(text="accept.p99 < 50ms", ok=True, measured="86 us"),
        ],
        prediction=[
            Compared(name="EMFILE", unit="s", predicted=None, measured=None),
            Compared(name="accepted", unit="", predicted=200, measured=200),
        ],
        timeline=Timeline(
            step_s=0.05,
            open_fds=fds,
            fd_limit=1024,
            queue=[int(step % 5 == 3) for step in range(40)],
            queue_capacity=129,
            marks=[],
        ),
        fd_map="fffesseL",
        settings={"client": {"connect_timeout": 2.0, "reply_timeout": 2.0}},
    )


def phantoms() -> Summary:
    """Return a closed loop of 100 clients with backlog 1: 96 are connected to nothing."""
    cells = {"accepted": {"ok": 5}, "queued": {"unfinished": 2}, "phantom": {"reply_timeout": 90, "unfinished": 6}}
    cells["accepted"]["reply_timeout"] = 3
    return Summary(
        scenario="phantom-connections",
        description="SYN cookies make clients believe that they are connected.",
        seed=7,
        complete=True,
        interrupted=None,
        duration_s=6.2,
        clients=106,
        status="REPRODUCED",
        sentence="96 of 106 clients were connected to nothing: the server has no socket for them.",
        metrics={
            "fate.accepted": 8,
            "connect.p50_s": 0.00009,
            "connect.p90_s": 1.02,
            "connect.p99_s": 3.1,
            "connect.max_s": 3.1,
            "accept.p50_s": 1.0,
            "accept.max_s": 2.0,
            "accept.samples": 8,
            "accept.waiting": 2,
            "accept.waiting_max_s": 1.9,
            "accept.pause_max_s": 1.0,
            "reply.p50_s": 1.0,
            "reply.max_s": 2.0,
            "fds.max": 16,
            "fds.limit": 1024,
            "queue.max": 2,
            "queue.capacity": 2,
            "emfile.count": 0,
            "listen.overflows": 412,
            "listen.cookies": 96,
            "generator.lag.p99_s": 0.0004,
            "generator.cpu": 0.02,
            "generator.local_failures": 0,
            "generator.limited": 0,
        },
        ledger=_ledger(cells),
        outcomes=_outcomes(cells),
        fate_by_outcome=cells,
        balanced=True,
        imbalance=[],
        foreign=1,
        ambiguous=0,
        growth=[
            *(_band(n, n, 1, (1_000_000, None, 1_000_000, 1_000_000), lost=(0, 51)) for n in (9, 10)),
            _band(11, 16, 6, (1_000_000, None, 2_000_000, 1_000_000), lost=(0, 310)),
        ],
        findings=[
            Finding(
                id="phantom",
                title="96 clients are connected to nothing: the server has no socket for them.",
                evidence="The queue was full, net.ipv4.tcp_syncookies = 1 answered in its place, and the final ACK "
                "was dropped. Such a client notices only by its own time-out.",
                remedy="raise the backlog from 1 to at least 100: listen(fd, 100), and net.core.somaxconn >= 100 "
                "(here 4,096: fine).",
                fault=True,
            ),
            Finding(
                id="slow-acceptor",
                title="The server accepts one client a second.",
                evidence="accept() takes 1.0 s; meanwhile the queue of 2 was full for 97 % of the time.",
                remedy="accept in a loop of its own, and hand the connections over.",
                fault=True,
            ),
        ],
        thresholds=[Judged(text="fate.phantom > 0", ok=True, measured="96")],
        prediction=[],
        timeline=Timeline(
            step_s=0.1,
            open_fds=[8 + step // 8 for step in range(62)],
            fd_limit=1024,
            queue=[0, *(61 * [2])],
            queue_capacity=2,
            marks=[Mark(at_s=0.001, label="queue full: SYNs dropped")],
        ),
        fd_map="fffesseLEEEEEEWW",
        settings={"client": {"connect_timeout": 5.0, "reply_timeout": 3.0}},
    )


def generator_limited() -> Summary:
    """Return a run whose generator could not keep its schedule: it proves nothing about the server."""
    cells = {
        "accepted": {"ok": 17_204, "reset": 3},
        "local": {"local": 1_212},
        "not_started": {"not_started": 21_581},
    }
    return Summary(
        scenario="reconnect-storm",
        description="Everybody at once.",
        seed=42,
        complete=True,
        interrupted=None,
        duration_s=12.4,
        clients=40_000,
        status="INCONCLUSIVE",
        sentence="The load generator could not keep up: it did not start 22,793 of 40,000 attempts.",
        metrics={
            "fate.accepted": 17_207,
            "accept.samples": 17_207,
            "connect.p50_s": 0.0021,
            "connect.p90_s": 0.0088,
            "connect.p99_s": 0.0221,
            "connect.p999_s": 0.0307,
            "connect.max_s": 0.0412,
            "accept.p50_s": 0.00012,
            "accept.p90_s": 0.0019,
            "accept.p99_s": 0.0031,
            "accept.p999_s": 0.0034,
            "accept.max_s": 0.0071,
            "accept.pause_max_s": 0.0068,
            "fds.max": 4_711,
            "fds.limit": 20_000,
            "queue.max": 212,
            "queue.capacity": 4_097,
            "emfile.count": 0,
            "listen.overflows": 0,
            "generator.lag.p99_s": 0.0214,
            "generator.cpu": 0.98,
            "generator.local_failures": 1_212,
            "generator.limited": 1,
        },
        ledger=_ledger(cells),
        outcomes=_outcomes(cells),
        fate_by_outcome=cells,
        balanced=True,
        imbalance=[],
        foreign=0,
        ambiguous=4,
        growth=[
            _band(9, 63, 1_409, (110, 900, 1_200, 800)),
            _band(64, 127, 622, (110, 1_000, 1_900, 900), grown=True),
            _band(128, 255, 1_800, (120, 1_100, 2_100, 1_400), grown=True),
            _band(256, 511, 2_204, (120, 1_900, 2_600, 2_000), grown=True),
            _band(512, 1_023, 4_003, (130, 2_300, 3_100, 2_800), grown=True),
            _band(1_024, 2_047, 5_111, (120, 3_000, 4_000, 3_600), grown=True),
            _band(2_048, 4_095, 1_847, (120, 3_100, 7_100, 6_800), grown=True),
            _band(4_096, 4_711, 211, (120, 3_100, 3_300, 2_200), grown=True),
        ],
        findings=[
            Finding(
                id="generator-limited",
                title="The load generator could not keep up.",
                evidence="It started attempts up to 21 ms late (p99) where they were planned every 0.1 ms, used 0.98 "
                "of a core, found no port for 1,212 attempts, and did not start 21,581.",
                remedy="add drivers and source addresses: --set client.processes=2 --set client.sources=4, or ask for "
                "less: --set client.rate=4000/s.",
                fault=False,
            )
        ],
        thresholds=[
            Judged(text="fate.accepted == 40000", ok=False, measured="17,207"),
            Judged(text="emfile.count == 0", ok=True, measured="0"),
            Judged(text="canary.availability > 0.99", ok=False, measured="no data"),
        ],
        prediction=[Compared(name="accepted", unit="", predicted=40_000, measured=17_207)],
        timeline=Timeline(
            step_s=0.1,
            open_fds=[min(8 + 80 * step, 4_711) if step != 50 else None for step in range(124)],
            fd_limit=20_000,
            queue=[(step * 37) % 213 for step in range(124)],
            queue_capacity=4_097,
            marks=[],
        ),
        fd_map="fffesseL" + 3_000 * "E" + 1_000 * "." + 703 * "W",
        notices=[
            "Driver 0 could open 1,024 descriptors of the 20,000 it needs: raise the hard limit (ulimit -Hn).",
            "The network namespace is shared with the host: unshare() was refused (EPERM).",
        ],
        settings={"client": {"connect_timeout": 2.0, "reply_timeout": 2.0}},
        namespace="shared",
    )


def _ledger(cells: dict[str, dict[str, int]]) -> dict[str, int]:
    return {fate: sum(cells.get(fate, {}).values()) for fate in FATES}


def _outcomes(cells: dict[str, dict[str, int]]) -> dict[str, int]:
    return {outcome: sum(row.get(outcome, 0) for row in cells.values()) for outcome in OUTCOMES}


def _band(
    first: int,
    last: int,
    accepted: int,
    times_us: tuple[int, int | None, int, int],
    *,
    lost: tuple[int, int] = (0, 0),
    grown: bool = False,
) -> Band:
    """Return a band. Times are p50, p99 and max of the wait, and the longest pause; `lost` are EMFILE and SYNs."""
    p50, p99, longest, pause = times_us
    label = f"{first:,} - {last:,} fds" if last > first else f"{first} fds"
    return Band(
        fds_from=first,
        fds_to=last,
        label="64 = the limit" if first == 64 == last else label,
        growth_point=grown,
        accepted=accepted,
        accept_p50_s=p50 / 1e6,
        accept_p99_s=None if p99 is None else p99 / 1e6,
        accept_max_s=longest / 1e6,
        pause_max_s=pause / 1e6,
        emfile=lost[0],
        overflows=lost[1],
    )
