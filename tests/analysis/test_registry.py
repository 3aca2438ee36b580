"""The registry of findings is complete and in order."""

from __future__ import annotations

from loadsim.analysis.findings.case import Kind
from loadsim.analysis.findings.registry import BY_RANK, FINDINGS

#: The rank of every rule, as results show their findings.
RANKED = {
    Kind.DOUBT: [
        "interrupted",
        "settings-degraded",
        "watcher-lost",
        "ledger-unbalanced",
        "generator-ended",
        "generator-limited",
        "canary-limited",
    ],
    Kind.FAULT: [
        "target-ended",
        "no-recovery",
        "fd-leak",  # it used up the limit
        "fd-limit",
        "emfile-handler",
        "emfile-spin",
        "false-connect",
        "fd-leak",
        "phantom-connections",  # most of the connected clients
        "slow-accept",  # pauses
        "fd-table-stall",
        "somaxconn-cap",  # the queue was full
        "queue-overflow",
        "slow-accept",
        "phantom-connections",
        "late-admission",
        "queue-abort",
        "shed-clients",
        "syn-delay",
        "outage",
        "clients-failed",
    ],
    Kind.INFORMATION: [
        "nothing-found",
        "recovery",
        "somaxconn-cap",
        "limit-raised",
        "prediction-gap",
        "fates-unknown",
        "foreign-accepts",
        "join-ambiguous",
        "generator-late",
    ],
}


def test_findings_are_shown_by_rank() -> None:
    """Doubts come before faults, causes before their consequences, and information comes last."""
    assert {kind: [finding.id for rule, finding in BY_RANK if rule.kind is kind] for kind in Kind} == RANKED
    assert [kind for kind in Kind for _ in RANKED[kind]] == [rule.kind for rule, _ in BY_RANK]


def test_ids_and_ranks_are_unique() -> None:
    """No finding hides another, and no two rules have the same rank."""
    ranks = [rule.rank for rule, _ in BY_RANK]
    assert len(set(ranks)) == len(ranks) == sum(len(finding.rules) for finding in FINDINGS.values())
    assert len({rule.find for rule, _ in BY_RANK}) == len(BY_RANK)
