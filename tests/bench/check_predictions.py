"""Whether the predictions of `loadsim check` come true: small random scenarios are predicted, run and compared.

    LOADSIM_CHECK_RUNS=50 LOADSIM_CHECK_SEED=1 pytest tests/bench/check_predictions.py -s

Not for CI; needs an idle machine. 50 runs, the default, take about three minutes. The scenarios have few free
descriptors, a backlog below 4, or a closed loop, where a delay of milliseconds matters. Root is not needed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from cli_runs import run
from witnesses import show

from loadsim.scenario.model import Scenario
from loadsim.scenario.toml import to_toml

if TYPE_CHECKING:
    from pathlib import Path

    from loadsim.analysis.dataset import Dataset

#: All runs together may take minutes.
pytestmark = [pytest.mark.real, pytest.mark.timeout(0)]

RUNS = int(os.environ.get("LOADSIM_CHECK_RUNS", "50"))
SEED = int(os.environ.get("LOADSIM_CHECK_SEED", "1"))
#: The allowed error of a predicted count or time: this fraction, or these seconds or clients.
SHARE, SECONDS, CLIENTS = 0.10, 0.05, 2.0


def test_predictions(tmp_path: Path) -> None:
    """No predicted "never" happens; predicted numbers that are off by more than 10 % are printed."""
    chance = random.Random(SEED)  # noqa: S311 -- scenarios, not secrets
    made: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for number in range(RUNS):
        scenario = a_scenario(chance, number)
        path = tmp_path / f"{scenario.name}.toml"
        path.write_text(to_toml(scenario))
        data = run(str(path), tmp_path / scenario.name).data
        claims = judged(data)
        made.update(name for name, _, _ in claims)
        wrong = [(name, says) for name, holds, says in claims if not holds]
        broken.update(name for name, _ in wrong)
        if wrong:
            show(f"  {kind_of(scenario)}: {'; '.join(says for _, says in wrong)}")
    show(f"\n{RUNS} runs, seed {SEED}; claims made and broken:")
    for name in sorted(made):
        show(f"  {name:<18} {made[name]:>5} {broken[name]:>5}")
    show(f"  {'in all':<18} {made.total():>5} {broken.total():>5}")
    assert not any(count for name, count in broken.items() if name.startswith("never"))


def a_scenario(chance: random.Random, number: int) -> Scenario:
    """Return a scenario of at most two seconds with scarce descriptors or queue places."""
    few_fds, closed = chance.random() < 0.6, chance.random() < 0.4
    backlog = chance.choice([0, 1, 2, 3]) if not few_fds or chance.random() < 0.4 else chance.choice([16, 128, 1024])
    exchange = chance.choice(["hello", "echo", "http"] if closed else ["hello", "hello", "echo", "http", "none"])
    server: dict[str, Any] = {
        "backlog": backlog,
        "nofile": 11 + chance.randint(2, 40) if few_fds else 256,
        "on_emfile": chance.choice(["sleep", "backoff", "shed", "until_close"]),
        "close_after": chance.choice(["client", "0s", "50ms", "200ms"]),
        "extra_fds": chance.choice([0, 0, 0, 1]),
        "leak": chance.choice([0.0, 0.0, 0.0, 0.25, 1.0]),
    }
    load: dict[str, Any] = {
        "exchange": exchange,
        "close": chance.choice(["fin", "rst"]),
        "connect_timeout": chance.choice(["200ms", "800ms", "2s"]),
        "reply_timeout": chance.choice(["200ms", "1200ms"]),
        "hold": chance.choice(["0s", "0s", "20ms"]),
    }
    if closed:
        load |= {"clients": chance.choice([1, 2, 5, 20]), "attempts": chance.choice([50, 150, 2000])}
    else:
        rate = chance.choice([20, 100, 300, 500])
        load |= {"rate": f"{rate}/s", "duration": "1s", "arrivals": chance.choice(["constant", "poisson"])}
    values = {"name": f"p{number}", "seed": chance.randrange(1000), "server": server, "client": load}
    return Scenario.model_validate(values)


Claim = tuple[str, bool, str]  # its kind, whether it held, and the predicted and the measured value


def judged(data: Dataset) -> list[Claim]:
    """Return each claim with its measured value, computed here from the recording."""
    facts, metrics = data.recording.facts, counted(data)
    predicted = facts.prediction or {}
    claims: list[Claim] = []
    for event, at in metrics["first"].items():
        if event in predicted["never"]:
            claims.append((f"never {event}", at is None, f"never {event}: {at} s"))
        if (moment := predicted[f"{event}_at_s"]) is not None:
            near = at is not None and abs(at - moment) <= max(SHARE * moment, SECONDS)
            claims.append((f"{event} at", near, f"{event} at {moment:.2f} s: {at}"))
    for fate, count in predicted["fates"].items():
        seen = metrics["fates"][fate]
        near = abs(seen - count) <= max(SHARE * max(count, seen), CLIENTS)
        claims.append((f"fate {fate}", near, f"{fate} {count:.0f}: {seen}"))
    return claims


def counted(data: Dataset) -> dict[str, Any]:
    """Return the first time of each event, None for never, and the fates."""
    failures = data.recording.failures
    wanted = failures[(failures["errno"] == 24) & ((failures["flags"] & 1) == 0)]
    emfile = data.clock.at(int(wanted["first"].min())) if len(wanted) else None
    return {"first": {"emfile": emfile, "queue_full": data.queue_full_at_s}, "fates": data.ledger.fates()}


def kind_of(scenario: Scenario) -> str:
    """Return the special settings of a scenario in one line."""
    server, client = scenario.server, scenario.client
    pace = f"{client.clients} clients" if client.clients else f"{client.rate:.0f}/s {client.arrivals}"
    return (
        f"{scenario.name} backlog {server.backlog} nofile {server.nofile} {server.on_emfile} {pace} {client.exchange}"
    )
