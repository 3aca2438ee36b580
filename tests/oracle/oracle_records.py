"""A result folder as plain numpy arrays and JSON, read without any code of loadsim.

Owns the codes and flags of the records, copied from their documentation and not imported: a wrong code in loadsim must
not be repeated here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

#: Outcomes by their code in an attempt record.
OUTCOMES = (
    "unfinished",
    "ok",
    "connected",
    "error",
    "eof",
    "reset",
    "refused",
    "connect_timeout",
    "reply_timeout",
    "local",
    "not_started",
)
#: Flags of an attempt: epoll reported its connection; its client closed by RST; its socket was open at the judgement.
RESET_BY_CLIENT, PENDING = 4, 8
#: Flags of an accept record.
AFTER_END, SHED, LEAKED, FAILED = 1, 2, 4, 8
#: tcpi_state of an accepted connection that its client had reset.
CLOSED_STATE = 7
EMFILE = 24
#: `where` and `flags` of a failure record.
IN_HANDLER, IDLE = 1, 1
#: Source addresses of the canary and of its held connections: 127.0.1.1 and 127.0.1.2.
CANARY, HELD = 254, 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One result folder."""

    attempts: NDArray[Any]
    accepts: NDArray[Any]
    failures: NDArray[Any]
    samples: NDArray[Any]
    canary: NDArray[Any]
    held: NDArray[Any]
    facts: dict[str, Any]
    summary: dict[str, Any]
    report: str  # the output of `loadsim run`

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of summary.json by their keys."""
        metrics: dict[str, float] = self.summary["metrics"]
        return metrics

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved scenario."""
        settings: dict[str, Any] = self.facts["settings"]
        return settings

    @property
    def has_exited(self) -> bool:
        """Whether the server ended before the run did."""
        server = self.facts["server"]
        return server["exit_status"] is not None or server["exited_ns"] > 0

    @property
    def end_of_service_ns(self) -> int:
        """When the server exited, or when the run was judged."""
        exited: int = self.facts["server"]["exited_ns"]
        judged: int = self.facts["judged_ns"]
        return min(exited, judged) if exited else judged


def read(folder: Path, report: str = "") -> Recorded:
    """Return the content of a result folder."""
    arrays = {
        name: np.load(folder / f"{name}.npy")
        for name in ("attempts", "accepts", "failures", "samples", "canary", "held")
    }
    facts = json.loads((folder / "manifest.json").read_text())["facts"]
    summary = json.loads((folder / "summary.json").read_text())
    return Recorded(**arrays, facts=facts, summary=summary, report=report)


def source_of(peer: NDArray[Any]) -> int:
    """Return the index of a source address: 127.0.0.1 is 0, 127.0.0.2 is 1, and addresses in .0 and .255 have none."""
    octets = peer.astype("<u4").tobytes()
    if octets[4:] != bytes(12):  # IPv6 has only ::1
        return 0
    return octets[2] * 254 + octets[3] - 1
