"""The result of the analysis of one run: the shapes of `summary.json`, which every report shows, and its schema."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from loadsim.metrics import METRICS

FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that happened: a sentence, its evidence, and what to do."""

    id: str  # stable, for `loadsim explain`
    title: str  # one sentence
    evidence: str  # sentences with numbers
    remedy: str | None  # what to change, with the setting; None if there is nothing to do
    fault: bool  # a fault of the server or its settings; False: information, or a doubt about the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What happened while the server had this many open descriptors."""

    fds_from: int
    fds_to: int  # inclusive
    label: str  # "16 - 31 fds", "64 = the limit"
    growth_point: bool  # the kernel enlarged the fd table on entering this band
    accepted: int
    accept_p50_s: float | None
    accept_p99_s: float | None  # None below 100 accepts
    accept_max_s: float | None
    pause_max_s: float | None  # longest time between two accepts of this band while clients waited
    emfile: int
    overflows: int | None  # SYNs and ACKs lost at a full queue; None: not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A marked moment on the time axis."""

    at_s: float
    label: str  # "first EMFILE", "queue full: SYNs dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The run in equal steps: for each step the largest value seen; None where nothing was read."""

    step_s: float
    open_fds: list[int | None]
    fd_limit: int | None
    queue: list[int | None]
    queue_capacity: int | None  # effective backlog + 1; None if it changes
    marks: list[Mark]
    canary: list[bool | None] = field(default_factory=list)  # whether all that started in it were answered; [] = none


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One threshold and its result."""

    text: str  # as written: "emfile.count > 0"
    ok: bool
    measured: str  # with its unit: "48", "1.2 ms", "no data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One predicted number beside the measured one."""

    name: str  # "EMFILE", "queue full", "accepted" ...
    unit: str  # "s" | "" for counts
    predicted: float | None
    measured: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The whole result of one run."""

    scenario: str
    description: str
    seed: int
    complete: bool
    interrupted: str | None
    duration_s: float
    clients: int  # attempts of the plan
    status: str  # REPRODUCED | HEALTHY | FAILED | INCONCLUSIVE
    sentence: str  # the first finding in one sentence
    metrics: dict[str, float]  # by name with the unit suffix ("accept.p99_s"); absent = no samples
    ledger: dict[str, int]  # fate -> attempts, all fates, zeros too
    outcomes: dict[str, int]  # outcome -> attempts
    fate_by_outcome: dict[str, dict[str, int]]  # only cells that are not 0
    balanced: bool
    imbalance: list[str]  # sentences, one for each sum that does not balance
    foreign: int  # accepts that no attempt explains
    ambiguous: int  # accepts that fit several attempts equally well
    growth: list[Band]
    findings: list[Finding]
    thresholds: list[Judged]
    prediction: list[Compared]
    timeline: Timeline
    fd_map: str
    notices: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)  # the resolved scenario, as in record.facts.Facts
    namespace: str = "private"  # "shared": the counters include the whole host

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dump, `format` first."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Summary:
        """Return the summary that `to_json` wrote."""
        known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        known["growth"] = [Band(**band) for band in known["growth"]]
        known["findings"] = [Finding(**finding) for finding in known["findings"]]
        known["thresholds"] = [Judged(**judged) for judged in known["thresholds"]]
        known["prediction"] = [Compared(**compared) for compared in known["prediction"]]
        timeline = known["timeline"]
        known["timeline"] = Timeline(**{**timeline, "marks": [Mark(**mark) for mark in timeline["marks"]]})
        return cls(**known)


_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def summary_schema() -> dict[str, Any]:
    """Return the schema of summary.json; every metric is described under its key."""
    schema = json_schema(Summary, "loadsim summary.json", FORMAT)
    schema["properties"]["metrics"] = {
        "type": "object",
        "description": "Absent: no samples. Times are seconds.",
        "properties": {one.json_key: {"type": "number", "description": one.definition} for one in METRICS.values()},
        "additionalProperties": False,
    }
    return schema


def json_schema(shape: type, title: str, version: int) -> dict[str, Any]:
    """Return the JSON Schema of a document: the shape of a dataclass, and the version of its format."""
    from pydantic import TypeAdapter  # noqa: PLC0415 -- 0.2 s that only the schema needs

    made = TypeAdapter(shape).json_schema()
    properties = {"format": {"const": version, "description": "The version of this format."}, **made["properties"]}
    required = ["format", *made.get("required", ())]
    return {"$schema": _DRAFT, **made, "title": title, "properties": properties, "required": required}
