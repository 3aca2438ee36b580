"""All findings, by id and by rank."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from loadsim.analysis.rules import acceptor, conduct, exhaustion, generator, host, leaks, overflow, recovery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadsim.analysis.rules.definition import Definition, Rule

_DEFINED: tuple[Definition, ...] = (
    *leaks.FINDINGS,
    *exhaustion.FINDINGS,
    *overflow.FINDINGS,
    *acceptor.FINDINGS,
    *recovery.FINDINGS,
    *conduct.FINDINGS,
    *generator.FINDINGS,
    *host.FINDINGS,
)

#: Every finding by its id, in the order in which `loadsim explain` lists them.
FINDINGS: Mapping[str, Definition] = MappingProxyType({finding.id: finding for finding in _DEFINED})

#: Every rule with its finding, in the order in which a result shows them.
BY_RANK: tuple[tuple[Rule, Definition], ...] = tuple(
    sorted(((rule, finding) for finding in _DEFINED for rule in finding.rules), key=lambda entry: entry[0].rank)
)
