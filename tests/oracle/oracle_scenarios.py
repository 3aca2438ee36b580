"""Seeded random scenarios over all settings of the simulated server, each about a second long."""

from __future__ import annotations

import json
import random
from typing import Any

#: Raise this with each change of the generator, because a seed and a number then make a different scenario.
_GENERATOR = 1
_POLICIES = ("sleep", "backoff", "spin", "shed", "until_close", "exit")
_THRESHOLDS = (
    "emfile.count == 0",
    "outcome.ok > 0",
    "fate.dropped == 0",
    "attempts.served >= 99 %",
    "connect.p50 < 5ms",
    "queue.full_share < 50 %",
    "fds.max < 40",
)


def scenario(seed: int, number: int) -> str:
    """Return the text of one scenario, which depends only on the two numbers."""
    chance = random.Random(f"{_GENERATOR} {seed} {number}")  # noqa: S311  # no secret
    client = _client(chance)
    canary = _canary(chance, client)
    server = _server(chance, client, holds=bool(canary.get("held")))
    if "leak_of" in server:
        server.setdefault("leak", 0.3)
    tables = {"server": server, "client": client}
    sysctl = _sysctl(chance)
    tables |= {"sysctl": sysctl} if sysctl else {}
    steps = _steps(chance, server)
    tables |= {"timeline": {"steps": steps}} if steps else {}
    tables |= {"canary": canary} if canary else {}
    if chance.random() < 0.3:
        tables["thresholds"] = {"expect": chance.sample(_THRESHOLDS, 2)}
    head = {"schema": 1, "name": f"oracle-{seed}-{number}", "seed": chance.randrange(1000)}
    return _lines(head) + "".join(f"\n[{name}]\n{_lines(table)}" for name, table in tables.items())


def _server(chance: random.Random, client: dict[str, Any], *, holds: bool) -> dict[str, Any]:
    server: dict[str, Any] = {
        "backlog": chance.choice((0, 1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 128, 4096)),
        "on_emfile": chance.choice(_POLICIES),
    }
    if chance.random() < 0.7:
        server["nofile"] = chance.choice((11, 12, 13, 14, 16, 20, 24, 32, 40, 64, 100, 200, 300))
    if chance.random() < 0.4:
        server["leak"] = chance.choice((0.02, 0.1, 0.2, 0.5, 0.97, 1.0))
    if chance.random() < 0.2:
        server["extra_fds"] = chance.choice((1, 2, 3, 10))
        if chance.random() < 0.4:
            server["leak_of"] = "extra"
    endings = ["0s", "0s", "client", "20ms", "50ms", "300ms"]
    server["close_after"] = "client" if holds else chance.choice(endings)
    server |= _slowness(chance)
    if client["exchange"] == "none" and server["close_after"] == "client" and "hold" not in client:
        client["hold"] = "30ms"
    return server


def _slowness(chance: random.Random) -> dict[str, Any]:
    server: dict[str, Any] = {}
    if chance.random() < 0.25:
        server["accept_delay"] = chance.choice(("200us", "1ms", "5ms", "20ms", "80ms"))
    if chance.random() < 0.2:
        server["pause"], server["pause_every"] = chance.choice(
            (("20ms", "100ms"), ("100ms", "300ms"), ("200ms", "500ms"), ("250ms", "260ms"))
        )
    if chance.random() < 0.5:
        server["emfile_delay"] = chance.choice(("5ms", "20ms", "50ms", "250ms", "700ms"))
    if chance.random() < 0.1:
        server["idle_threads"] = chance.choice((1, 4))
    if chance.random() < 0.1:
        server["prewarm_fds"] = chance.choice((64, 256, 1024))
    return server


def _client(chance: random.Random) -> dict[str, Any]:
    exchange = chance.choice(("hello", "echo", "echo", "http", "raw", "none"))
    client: dict[str, Any] = {"exchange": exchange}
    if exchange == "raw":
        client["send"], client["expect"] = chance.choice((("PING\r\n", "+PONG"), ("x", ""), ("GET / \r\n\r\n", "E")))
    client |= _arrivals(chance)
    if chance.random() < 0.4:
        client["hold"] = chance.choice(("5ms", "30ms", "100ms", "400ms"))
    if exchange in ("echo", "http", "raw") and chance.random() < 0.15:
        client["request"] = chance.choice(("half", "none"))
        client.setdefault("hold", "60ms")
    client["close"] = chance.choice(("fin", "fin", "rst"))
    client["connect_timeout"] = chance.choice(("100ms", "300ms", "600ms", "1300ms"))
    client["reply_timeout"] = chance.choice(("100ms", "300ms", "600ms"))
    if chance.random() < 0.2:
        client["sources"] = chance.choice((2, 5, 50))
    if chance.random() < 0.15:
        client["processes"] = 2
    return client


def _arrivals(chance: random.Random) -> dict[str, Any]:
    kind = chance.random()
    if kind < 0.5:
        arrivals: dict[str, Any] = {"rate": f"{chance.choice((10, 50, 100, 200, 400, 400, 1000))}/s"}
        arrivals["duration"] = chance.choice(("300ms", "500ms", "800ms"))
        if chance.random() < 0.3:
            arrivals["arrivals"] = "poisson"
        if chance.random() < 0.15:
            arrivals["max_in_flight"] = chance.choice((5, 20))
        return arrivals
    if kind < 0.7:
        stages = [
            {"for": chance.choice(("100ms", "200ms", "300ms")), "rate": rate}
            for rate in chance.sample(("20/s", "100/s", "50/s..500/s", "800/s", "600/s..20/s"), chance.choice((2, 3)))
        ]
        return {"stages": stages}
    clients = chance.choice((2, 5, 20, 50, 100))
    if chance.random() < 0.5:
        return {"clients": clients, "attempts": clients * chance.choice((1, 2, 5))}
    return {"clients": clients, "duration": chance.choice(("200ms", "400ms"))}


def _sysctl(chance: random.Random) -> dict[str, Any]:
    sysctl: dict[str, Any] = {}
    if chance.random() < 0.1:
        sysctl["net.ipv4.tcp_abort_on_overflow"] = 1
    if chance.random() < 0.2:
        sysctl["net.ipv4.tcp_syncookies"] = chance.choice((0, 2))
    if chance.random() < 0.1:
        sysctl["net.core.somaxconn"] = chance.choice((4, 64))
    if chance.random() < 0.1:
        sysctl["net.ipv4.ip_local_port_range"] = chance.choice(("20000 20010", "30000 31000"))
    return sysctl


def _steps(chance: random.Random, server: dict[str, Any]) -> list[dict[str, Any]]:
    if chance.random() < 0.65:
        return []
    steps = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        step: dict[str, Any] = {"at": chance.choice(("50ms", "150ms", "300ms", "500ms", "900ms"))}
        change = chance.choice(("nofile", "backlog", "release"))
        if change == "nofile":
            step["nofile"] = chance.choice((12, 20, 64, 500))
        elif change == "backlog":
            step["backlog"] = chance.choice((0, 2, 20, 200))
        else:
            step["release"] = chance.choice((0.3, 0.5, 1.0))
        steps.append(step)
    if any("nofile" in step for step in steps):
        server.setdefault("nofile", 40)
    return steps


def _canary(chance: random.Random, client: dict[str, Any]) -> dict[str, Any]:
    if client["exchange"] == "none" or chance.random() < 0.6:
        return {}
    canary: dict[str, Any] = {
        "every": chance.choice(("50ms", "100ms", "250ms")),
        "timeout": chance.choice(("50ms", "200ms", "400ms")),
        "linger": chance.choice(("0ms", "200ms", "500ms")),
    }
    if client["exchange"] != "hello" and chance.random() < 0.4:
        canary["held"] = chance.choice((1, 2, 5))
    return canary


def _lines(table: dict[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _key(key: str) -> str:
    return f'"{key}"' if "." in key else key


def _value(value: object) -> str:
    """Return a value as TOML: strings and numbers as in JSON, inline tables for dicts."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return json.dumps(value)
