"""What the command line says about how to run: where results go, and what it permits. No file can say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says about how to run, besides the scenario."""

    out: Path
    argv: Sequence[str] = ()
    allow_degraded: bool = False
    allow_remote: bool = False  # the load may leave this host
    yes_public: bool = False  # and go to an address of the public internet
    allow_heavy: bool = False  # and be more than a server of somebody else should get by mistake
    folder: Path | None = None  # the result folder, made already, of a run that is one of many; None: a new one
