"""Findings, ranked: reasons to doubt the run first, then causes before what follows from them, then the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.analysis.rules import acceptor, conduct, exhaustion, generator, leaks, overflow, recovery

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadsim.analysis.rules.case import Case, Found

    Rule = Callable[[Case], Found | None]

#: In this order: the first finding opens the result.
_DOUBTS: tuple[Rule, ...] = (
    conduct.interrupted,
    conduct.degraded,
    conduct.watcher_lost,
    conduct.unbalanced,
    generator.lost_drivers,
    generator.limited,
)
_FAULTS: tuple[Rule, ...] = (
    conduct.target_ended,
    recovery.no_recovery,
    leaks.leak_at_limit,
    leaks.honest_load,
    exhaustion.failing_handlers,
    exhaustion.spin,
    exhaustion.false_connects,
    leaks.leak_below_limit,
    overflow.most_are_phantoms,
    acceptor.standstills,
    exhaustion.growth_stalls,
    acceptor.short_backlog,
    overflow.overflow,
    acceptor.long_waits,
    overflow.some_are_phantoms,
    overflow.late_admissions,
    overflow.aborts,
    exhaustion.shed,
    overflow.syn_delays,
    recovery.outage,
)
_INFORMATION: tuple[Rule, ...] = (
    recovery.recovery,
    acceptor.capped_backlog,
    exhaustion.limit_raised,
    conduct.prediction_gap,
    conduct.unknown_fates,
    conduct.foreign_clients,
    conduct.ambiguous_joins,
    generator.late,
)


def diagnose(case: Case) -> list[Found]:
    """Return what happened in a run, the most telling first; never empty."""
    doubts, faults, information = (_apply(rules, case) for rules in (_DOUBTS, _FAULTS, _INFORMATION))
    if not any(found.finding.fault for found in faults):
        faults = _apply((conduct.unexplained_failures,), case) or ([] if doubts else [conduct.nothing(case)])
    return doubts + faults + information


def _apply(rules: tuple[Rule, ...], case: Case) -> list[Found]:
    return [found for rule in rules if (found := rule(case))]
