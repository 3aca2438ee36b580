"""Options of a run that are not settings of the scenario: where results go, and what the command line permits.

No scenario file can set them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a run that are not settings of the scenario."""

    out: Path
    argv: Sequence[str] = ()
    allow_degraded: bool = False
    allow_remote: bool = False  # the load may leave this host
    allow_public: bool = False  # and go to a public address
    allow_heavy: bool = False  # and exceed 1,000 clients/s or 60 s there
    folder: Path | None = None  # the result folder, made already, of a run that is one of many; None: a new one
