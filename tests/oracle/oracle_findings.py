"""Whether the findings of a run agree with its metrics: exclusive pairs, and the numbers in sentences."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from oracle_join import joined
from oracle_records import AFTER_END, LEAKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from oracle_records import Recorded


class _Values(dict[str, float]):
    """Metrics by their keys; an absent one counts as 0."""

    def __missing__(self, key: str) -> float:
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A finding, and a condition that must not hold in a run with this finding."""

    finding: str
    condition: str
    holds: Callable[[_Values, Recorded], bool]


def _pair(finding: str, condition: str, holds: Callable[[_Values, Recorded], bool]) -> Contradiction:
    return Contradiction(finding=finding, condition=condition, holds=holds)


def _server(recorded: Recorded) -> dict[str, Any]:
    server: dict[str, Any] = recorded.settings["server"]
    return server


def _connected_unserved(m: _Values) -> float:
    return m["fate.queued"] + m["fate.orphaned"] + m["fate.phantom"] + m["fate.aborted"] + m["outcome.reply_timeout"]


def _came(m: _Values, recorded: Recorded) -> float:
    """Return the number of connections of the load, of canaries and of held clients."""
    return m["attempts.count"] + len(recorded.canary) + m["held.count"]


def _failed(m: _Values) -> float:
    names = ("error", "eof", "reset", "refused", "connect_timeout", "reply_timeout", "unfinished")
    return sum(m[f"outcome.{name}"] for name in names)


def _has_fault(recorded: Recorded) -> bool:
    return any(finding["fault"] for finding in recorded.summary["findings"])


#: No finding may contradict a metric of its run.
CONTRADICTIONS = (
    _pair("fd-leak", "fds.leaked is 0", lambda m, _: m["fds.leaked"] <= 0),
    _pair("fd-leak", "the server leaks nothing", lambda _, r: _server(r)["leak"] == 0),
    _pair("fd-limit", "no call failed with EMFILE", lambda m, _: m["emfile.count"] == 0),
    _pair("fd-limit", "the advised limit is in force", lambda m, r: _advised(r, "fd-limit") <= m["fds.limit"]),
    _pair("queue-overflow", "the advised backlog is in force", lambda _, r: _advises_less(r)),
    _pair("fd-limit", "fds.max is below fds.limit", lambda m, _: m["fds.max"] < m["fds.limit"]),
    _pair("emfile-handler", "emfile.handler is 0", lambda m, _: m["emfile.handler"] == 0),
    _pair("emfile-spin", "emfile.accept is 0", lambda m, _: m["emfile.accept"] == 0),
    _pair("emfile-spin", "the server waits after EMFILE", lambda _, r: _server(r)["on_emfile"] in ("backoff", "exit")),
    _pair("emfile-spin", "the server sheds", lambda _, r: _server(r)["on_emfile"] == "shed"),
    _pair("emfile-spin", "CPU at the limit is below 0.1 cores", lambda m, _: m["server.cpu_at_limit"] < 0.1),
    _pair("false-connect", "no connected client was left unserved", lambda m, _: _connected_unserved(m) == 0),
    _pair("queue-overflow", "listen.overflows is 0", lambda m, _: m["listen.overflows"] == 0),
    _pair("queue-overflow", "queue.max is below queue.capacity", lambda m, _: m["queue.max"] < m["queue.capacity"]),
    _pair("queue-overflow", "queue.full_share is 0", lambda m, _: m["queue.full_share"] == 0),
    _pair("queue-abort", "fate.aborted is 0", lambda m, _: m["fate.aborted"] == 0),
    _pair("phantom-connections", "fate.phantom is 0", lambda m, _: m["fate.phantom"] == 0),
    _pair("late-admission", "accept.late is 0", lambda m, _: m["accept.late"] == 0),
    _pair("syn-delay", "attempts.delayed is 0", lambda m, _: m["attempts.delayed"] == 0),
    _pair("syn-delay", "no connect took 0.9 s", lambda m, _: m["connect.max_s"] < 0.9),
    _pair("syn-delay", "no packet was dropped at the listener", lambda m, _: m["listen.drops"] == 0),
    _pair("slow-accept", "accept.pause_max is below 1 ms", lambda m, _: m["accept.pause_max_s"] < 0.001),
    _pair("slow-accept", "more clients wait than connected", lambda m, r: m["accept.waiting"] > _came(m, r)),
    _pair("fd-table-stall", "fds.growth_stall is absent", lambda m, _: m["fds.growth_stall_s"] == 0),
    _pair("somaxconn-cap", "somaxconn is as large as the backlog", lambda _, r: not _is_capped(r)),
    _pair("shed-clients", "fate.shed is 0", lambda m, _: m["fate.shed"] == 0),
    _pair("target-ended", "the server ran to the end", lambda _, r: not r.has_exited),
    _pair("no-recovery", "recovery.time is present", lambda m, _: "recovery.time_s" in m),
    _pair("recovery", "recovery.time is absent", lambda m, _: "recovery.time_s" not in m),
    _pair("outage", "every canary was answered", lambda m, _: m["canary.availability"] in (0, 1) and not _is_out(m)),
    _pair("outage", "it ends before a server that died", lambda m, r: m["canary.longest_outage_s"] < _dead_s(r) / 2),
    _pair("clients-failed", "no client failed", lambda m, _: _failed(m) == 0),
    _pair("limit-raised", "fds.limit is not above nofile", lambda m, r: m["fds.limit"] <= (_server(r)["nofile"] or 0)),
    _pair("prediction-gap", "nothing was predicted", lambda _, r: not r.summary["prediction"]),
    _pair("fates-unknown", "fate.unknown is 0", lambda m, _: m["fate.unknown"] == 0),
    _pair("foreign-accepts", "join.foreign is 0", lambda m, _: m["join.foreign"] == 0),
    _pair("foreign-accepts", "the namespace is private", lambda _, r: r.facts["namespace"] == "private"),
    _pair("join-ambiguous", "join.ambiguous is 0", lambda m, _: m["join.ambiguous"] == 0),
    _pair("ledger-unbalanced", "the ledger is balanced", lambda _, r: bool(r.summary["balanced"])),
    _pair("settings-degraded", "every setting was in force", lambda _, r: not r.facts["degraded"]),
    _pair("settings-degraded", "the server ended before the step", lambda _, r: r.has_exited),
    _pair("interrupted", "the run is complete", lambda _, r: bool(r.summary["complete"])),
    _pair("generator-limited", "generator.limited is 0", lambda m, _: m["generator.limited"] == 0),
    _pair("nothing-found", "a fault was found", lambda _, r: _has_fault(r)),
    _pair("nothing-found", "calls failed with EMFILE", lambda m, _: m["emfile.count"] > 0),
    _pair("nothing-found", "SYNs were dropped", lambda m, _: m["fate.dropped"] > 0),
    _pair("nothing-found", "descriptors leaked", lambda m, _: m["fds.leaked"] > 0),
    _pair("nothing-found", "clients failed", lambda m, _: _failed(m) > m["outcome.unfinished"]),
)


#: The value that a remedy advises, as in "raise nofile to about 58" or "a backlog of about 18".
_ADVICE = re.compile(r"(?:raise nofile to|a backlog of) about ([\d,]+)")


def _advised(recorded: Recorded, finding: str) -> float:
    """Return the value in the remedy of a finding; infinity where it names none."""
    remedies = (one["remedy"] or "" for one in recorded.summary["findings"] if one["id"] == finding)
    match = _ADVICE.search(" ".join(remedies))
    return math.inf if match is None else float(match[1].replace(",", ""))


def _advises_less(recorded: Recorded) -> bool:
    backlogs = [_server(recorded)["backlog"]]
    backlogs += [step["asked"] for step in recorded.facts["steps"] if step["change"] == "backlog"]
    somaxconn = int(recorded.facts["sysctls"]["net.core.somaxconn"])
    return bool(_advised(recorded, "queue-overflow") < min(somaxconn, *backlogs))


def _is_capped(recorded: Recorded) -> bool:
    most = int(recorded.facts["sysctls"]["net.core.somaxconn"])
    asked = [_server(recorded)["backlog"]]
    asked += [step["asked"] for step in recorded.facts["steps"] if step["change"] == "backlog"]
    return bool(max(asked) > most)


def _is_out(m: _Values) -> bool:
    return m["canary.silent"] + m["canary.unreachable"] + m["canary.turned_away"] > 0


def _dead_s(recorded: Recorded) -> float:
    """Return how long the run continued without its server, minus the time to the next canary."""
    exited = recorded.facts["server"]["exited_ns"]
    canary = recorded.settings["canary"]
    if not exited or not canary:
        return 0.0
    dead: float = (recorded.facts["load_end_ns"] - exited) / 1e9 - canary["every"]
    return dead


def contradictions(recorded: Recorded) -> list[str]:
    """Return the findings of a run that its metrics contradict, and the broken predictions of "never"."""
    metrics = _Values(recorded.metrics)
    found = {finding["id"] for finding in recorded.summary["findings"]}
    wrong = [
        f"{pair.finding}, although {pair.condition}"
        for pair in CONTRADICTIONS
        if pair.finding in found and pair.holds(metrics, recorded)
    ]
    return wrong + list(_status(recorded)) + list(_nevers(recorded, metrics))


def _status(recorded: Recorded) -> Iterator[str]:
    """Yield the contradictions between the status and the thresholds or findings."""
    status = recorded.summary.get("status", recorded.summary.get("verdict"))
    has_failed = any(not threshold["ok"] for threshold in recorded.summary["thresholds"])
    if (status == "FAILED") != has_failed and status != "INCONCLUSIVE":
        yield f"{status}, although {'a threshold failed' if has_failed else 'no threshold failed'}"
    if status == "HEALTHY" and _has_fault(recorded):
        yield "HEALTHY, although a fault was found"
    if status == "REPRODUCED" and not _has_fault(recorded):
        yield "REPRODUCED, although no fault was found"


def _nevers(recorded: Recorded, metrics: _Values) -> Iterator[str]:
    """Yield each predicted "never" that happened."""
    if recorded.has_exited or recorded.metrics["generator.limited"]:
        return
    for never, name in (("emfile", "emfile.count"), ("queue_full", "listen.overflows")):
        if never in (recorded.facts["prediction"] or {}).get("never", ()) and metrics[name] > 0:
            yield f"prediction: {never} never, although {name} is {metrics[name]:,.0f}"


# numbers in sentences

_DURATION = r"(?:\d+ d(?: \d+ h)?|\d+ h(?: \d+ min)?|\d+ min(?: \d+ s)?|[\d,.]*\d ?(?:us|ms|s)\b)"
_TOKEN = re.compile(rf"(?<![\w.:-])({_DURATION}|\d[\d,]*(?:\.\d+)?(?: ?%|/s| MB| kB| cores?\b| a second)?)(?![\w:])")
_SCALES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}

#: Sentences with numbers that are not from this run: finding, pattern, reason.
EXPLAINED = (
    ("*", r"nofile = \d+ lasts [\d.]+ .*", "an extrapolation of the leak to a limit"),
    ("emfile-spin", r"nginx retries [^.]*", "the behaviour of other servers"),
    ("emfile-spin", r"wait 100 ms", "general advice"),
    ("slow-accept", r"of \d+ ms or more", "the length above which a pause counts"),
    ("*", r"net\.[\w.]+ (?:>= |= )?\d+", "a sysctl"),
    ("*", r"about \d[\d,]* (?:gather|would have held all)", "an estimate: a rate times a pause"),
    ("queue-overflow", r"listen\(fd, \d+\)", "advice"),
    ("*", r"(?:backlog of|backlog >= [^,]*, here|nofile to) about \d[\d,]*", "advice"),
    ("*", r"about 1\.0 s|1\.0 s late", "the kernel's time-out of a SYN"),
    ("*", r"errno \d+", "an error code"),
    ("*", r"in \d+ connections|twice|once", "a word"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All numbers that a sentence may contain, by their kind."""

    counts: set[float]
    times: set[float]
    rates: set[float]
    percents: set[float]


def unexplained(recorded: Recorded) -> list[str]:
    """Return every number in a finding that is not in summary.json and does not follow from it in one step."""
    pool = _pool(recorded)
    wrong = []
    for finding in recorded.summary["findings"]:
        for text in (finding["title"], finding["evidence"], finding["remedy"]):
            rest = text or ""
            for which, pattern, _ in EXPLAINED:
                if which in ("*", finding["id"]):
                    rest = re.sub(pattern, " ", rest)
            wrong += [
                f'{finding["id"]}: {token} in "{text}"'
                for token in _TOKEN.findall(rest)
                if not is_explained(pool, token)
            ]
    return wrong


def is_explained(pool: Pool, token: str) -> bool:
    """Return whether a number of a sentence is in the pool, to the digits that are shown."""
    number = re.match(r"[\d,]*\d(?:\.\d+)?", token)
    assert number is not None, token
    digits = number[0].replace(",", "")
    value, half = float(digits), 0.5 * 10.0 ** -len(digits.partition(".")[2])
    if re.fullmatch(_DURATION, token):
        parts = re.findall(r"([\d.]+) ?(us|ms|min|s|h|d)", token.replace(",", ""))
        value, half = sum(float(one) * _SCALES[unit] for one, unit in parts), half * _SCALES[parts[-1][1]]
        return any(abs(value - one) <= half * 1.01 for one in pool.times)
    if token.endswith("%"):
        return any(abs(value - one) <= half * 1.01 for one in pool.percents)
    if token.endswith(("/s", "a second")):
        return any(abs(value - one) <= max(half * 1.01, value * 0.01) for one in pool.rates)
    if token.endswith(("MB", "kB", "core", "cores")):
        scale = 1e6 if token.endswith("MB") else 1e3 if token.endswith("kB") else 1.0
        return any(abs(value - one / scale) <= half * 1.01 for one in pool.counts | pool.rates)
    return any(abs(value - one) <= half * 1.01 for one in pool.counts | pool.rates)


def _pool(recorded: Recorded) -> Pool:
    metrics, summary, facts = recorded.metrics, recorded.summary, recorded.facts
    settings = list(_numbers(recorded.settings))
    is_count = {
        key: not key.endswith(("_s", ".rate", "share", "served", "availability", "cpu", "run_wait")) for key in metrics
    }
    counts = {float(value) for key, value in metrics.items() if is_count[key]}
    counts |= {float(one) for one in settings} | {float(len(recorded.canary))}
    counts.add(float(((recorded.accepts["flags"] & LEAKED) > 0).sum()))
    counts |= {float(len(recorded.accepts)), float(((recorded.accepts["flags"] & AFTER_END) == 0).sum())}
    counts |= {float(one) for row in summary["growth"] for one in _numbers(row)}
    counts |= {metrics.get("server.cpu", 0.0), metrics.get("server.cpu_at_limit", 0.0)}
    counts |= {one for step in facts["steps"] for one in (step["asked"], step["before"], step["after"]) if one}
    counts |= {float(one) for one in _numbers(facts["server"])}
    counts |= {float(value) for value in facts["sysctls"].values() if value.isdigit()}
    counts.add(float(_at_once(recorded)))
    one_step = {a + b for a, b in itertools.combinations(sorted(counts), 2)}
    one_step |= {abs(a - b) for a, b in itertools.combinations(sorted(counts), 2)}
    times = {value for key, value in metrics.items() if key.endswith("_s")} | set(settings)
    times |= {summary["duration_s"], (facts["judged_ns"] - facts["start_ns"]) / 1e9}
    times |= {mark["at_s"] for mark in summary["timeline"]["marks"]}
    times |= {(facts["server"]["exited_ns"] - facts["start_ns"]) / 1e9}
    times |= _pauses(recorded) | {
        row[key] for row in summary["growth"] for key in row if key.endswith("_s") and row[key]
    }
    accepted = recorded.accepts["accepted"][(recorded.accepts["flags"] & AFTER_END) == 0]
    times.add((float(accepted.max(initial=facts["start_ns"])) - facts["start_ns"]) / 1e9)
    times |= {
        (float(recorded.attempts[one].max(initial=0)) - facts["start_ns"]) / 1e9 for one in ("intended", "started")
    }
    times |= {abs(a - b) for a, b in itertools.combinations(sorted(times), 2)}
    long = [one for one in times if one > 0.05]
    rates = {value for key, value in metrics.items() if key.endswith("rate")} | set(settings)
    rates |= {count / seconds for count in sorted(counts) for seconds in long}
    shares = {100 * metrics[key] for key in metrics if key.endswith(("share", "served", "availability", "run_wait"))}
    shares |= {100 * one for one in settings if one <= 1}
    served = int(((recorded.accepts["flags"] & AFTER_END) == 0).sum())
    wholes = [metrics["attempts.count"], metrics["fate.accepted"], served]
    shares |= {100 * count / whole for count in sorted(counts) for whole in wholes if whole}
    return Pool(counts=counts | one_step, times=times, rates=rates, percents=shares)


def _at_once(recorded: Recorded) -> int:
    """Return the largest number of clients at a time, from connect() to close()."""
    rows = recorded.attempts[recorded.attempts["started"] > 0]
    ended = np.where(rows["ended"] > 0, rows["ended"], recorded.facts["judged_ns"])
    events = sorted([(int(at), 1) for at in rows["started"]] + [(int(at), -1) for at in ended])
    return max(itertools.accumulate((change for _, change in events), initial=0))


def _pauses(recorded: Recorded) -> set[float]:
    """Return the sum of the pauses of at least 20 ms in which clients waited, with 10 ms tolerance either way."""
    accepts = [one for one in joined(recorded) if one.client is not None and not one.is_after_end]
    before, total = recorded.facts["start_ns"], 0
    for one in accepts:
        pause = one.at - max(before, one.entered[1])
        total += pause if pause >= 20_000_000 else 0
        before = one.at
    return {total / 1e9 + error * 0.001 for error in range(-10, 11)}


def _numbers(values: Mapping[str, Any]) -> Iterator[float]:
    """Yield every number in nested tables."""
    for value in values.values():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, list):
            yield from _numbers({str(at): one for at, one in enumerate(value)})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield float(value)
