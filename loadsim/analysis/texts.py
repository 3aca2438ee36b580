"""The words of `loadsim explain`: for each fate, outcome and family of metrics, what to look at and to do.

Text alone; the texts of findings stand beside their rules.
"""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """Where to look and what to do; "" where there is nothing."""

    look_at: str = ""
    do: str = ""


#: By the first word of a metric's name.
METRIC_TEXTS: dict[str, Text] = {
    "attempts": Text("The plan of the scenario: rate, stages or clients.", ""),
    "connect": Text(
        "attempts.delayed first: a second more is a SYN that was sent again.", "See the finding syn-delay."
    ),
    "accept_least": Text("Beside accept.*: the truth lies between the two.", "Run as root: the kernel then tells it."),
    "connect_service": Text("Beside connect.*: the difference is the generator's own lag.", ""),
    "accept": Text(
        "accept.waiting, always: who was never accepted is in no percentile.", "See the finding slow-accept."
    ),
    "reply": Text("The outcome table: who got no reply is in no percentile.", ""),
    "fds": Text("The picture and the growth table.", "See the findings fd-leak and fd-limit."),
    "emfile": Text("The finding that names who used the descriptors up.", "See fd-leak, fd-limit and emfile-spin."),
    "queue": Text("`ss -ltn` in the same namespace: Recv-Q of Send-Q, which is one less.", "See queue-overflow."),
    "listen": Text("`nstat -az` in the same namespace. These are packets, not clients.", "See queue-overflow."),
    "syn": Text("attempts.delayed: the clients behind these packets.", "See the finding syn-delay."),
    "server": Text("The picture of the time at the limit.", "See emfile-spin and target-ended."),
    "canary": Text("The row of canaries under the picture.", "See the findings outage and no-recovery."),
    "recovery": Text("The marks of the timeline in the picture.", "See the finding recovery."),
    "held": Text("held.unanswered, always: who got no answer is in no percentile.", ""),
    "generator": Text("The line of the generator in the summary.", "See the finding generator-limited."),
    "join": Text("The ledger.", "See foreign-accepts and join-ambiguous."),
}
