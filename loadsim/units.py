"""Durations and rates as people write them ("250ms", "1000/s"), and the capacity of an accept queue.

Owns the units and their spelling, for reading and writing. Knows nothing about scenarios or reports.
"""

from __future__ import annotations

import re

#: Seconds per unit, in the order in which an error lists them.
DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
#: Events per second for one event per unit.
RATE_UNITS = {"/ms": 1000.0, "/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600}

_NUMBER = r"(\d+(?:_\d+)*(?:\.\d+)?)"
_DURATION = re.compile(rf"{_NUMBER}\s*(ns|us|µs|ms|s|min|h)", re.ASCII)
_RATE = re.compile(rf"{_NUMBER}\s*(/ms|/s|/min|/h)")
NANOSECONDS = 1_000_000_000


def nanoseconds(seconds: float) -> int:
    """Return seconds as whole nanoseconds."""
    return round(seconds * NANOSECONDS)


def parse_duration(text: str) -> float:
    """Return the seconds of "250ms", "1.5s" or "2min".

    Raises ValueError with the remedy if the unit is missing or unknown. A sign is not accepted.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'a duration needs a number and a unit ({", ".join(DURATION_UNITS)}), for example "250ms"')
    return float(match[1]) * DURATION_UNITS[match[2]]


def parse_rate(text: str) -> float:
    """Return the events per second of "200/s" or "30/min".

    Raises ValueError with the remedy if the unit is missing or unknown. A sign is not accepted.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'a rate needs a number and a unit ({", ".join(RATE_UNITS)}), for example "200/s"')
    return float(match[1]) * RATE_UNITS[match[2]]


def queue_capacity(backlog: int) -> int:
    """Return the number of connections that an accept queue holds with this effective backlog: the kernel adds one."""
    return backlog + 1


def backlog_for(capacity: int) -> int:
    """Return the smallest backlog whose accept queue holds this number of connections."""
    return max(capacity - 1, 0)


def format_duration(seconds: float) -> str:
    """Return seconds with the unit that keeps one to three digits: "31 us", "4.1 ms", "12 s", "5 min 28 s"."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds >= 48 * 3600:
        return f"{int(seconds // 86_400)} d {int(seconds % 86_400 // 3600)} h"
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if round(seconds) >= 100:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale * 0.9995 or unit == "us":
            return f"{_three_digits(seconds / scale)} {unit}"
    raise AssertionError("unreachable: microseconds take every remaining value")


def format_count(number: float) -> str:
    """Return a count with thousands separators, "4,310"; a median of counts may end in a half, "4,310.5"."""
    return f"{number:,.1f}" if number % 1 == 0.5 else f"{number:,.0f}"


def format_bytes(number: float) -> str:
    """Return bytes with their unit: "17 bytes", "4 kB", "2.1 GB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number / 1e3:.0f} kB" if number >= 1e3 else some(number, "byte")


def some(number: float, noun: str) -> str:
    """Return a number of things: "1 client", "4,310 clients"."""
    return f"{format_count(number)} {noun}" if round(number) == 1 else f"{format_count(number)} {noun}s"


def _three_digits(value: float) -> str:
    """Return a value below 1000: no decimals from 10 on, one from 1 on, else two."""
    if value == 0 or round(value, 2) >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if round(value, 1) >= 1 else f"{value:.2f}"
