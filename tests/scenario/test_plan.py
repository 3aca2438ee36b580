"""The needs of a run against the limits, the warnings, and the specs of the child processes."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest

from loadsim.scenario.client import Client
from loadsim.scenario.fields import carried, plain_name
from loadsim.scenario.model import Scenario
from loadsim.scenario.plan import Host, Need, Plan, PlanWarning, make_plan, part
from loadsim.scenario.server import Server
from loadsim.scenario.specs import ClientSettings, LoadSpec, ServerSettings, ServerSpec, Spec, source_address

if TYPE_CHECKING:
    from loadsim.scenario.fields import Table

HOST = Host(nofile_hard=20_000, port_first=1024, port_last=65_535, cpus=2)


def plan(host: Host = HOST, *, baseline_fds: int = 8, **tables: Any) -> Plan:  # noqa: ANN401 -- tables of a file
    """Return the plan of 600 clients at 200/s, by default."""
    return make_plan(Scenario.model_validate({"client": {"rate": "200/s"}, **tables}), host, baseline_fds=baseline_fds)


def test_an_ordinary_scenario_has_no_warning() -> None:
    """A scenario that fits the host has no warnings."""
    assert plan().warnings == []


def test_the_plan_counts_what_is_needed() -> None:
    """600 connections may leak, and 600 may be in flight, each from its own port."""
    made = plan(server={"leak": 1.0, "nofile": 64})

    assert made.expected_attempts == 600
    assert (made.server_fds, made.driver_fds, made.ports) == (Need(608, 64), Need(628, 20_000), Need(600, 64_512))
    assert (made.queue_capacity, made.processes) == (129, 2)
    assert (made.expected_s, made.length_s) == (4.995, 7.0)
    assert (made.attempts_capacity, made.accepts_capacity) == (601, 600 + 1024)


def test_the_server_needs_what_is_open_at_once() -> None:
    """200/s held for a second are about 200 connections of three descriptors, and 21 more if the server is late."""
    made = plan(server={"close_after": "client", "extra_fds": 2}, client={"rate": "200/s", "hold": "1s"})

    assert made.server_fds == Need(8 + 201 * 3, 1024, 20 * 3 + 3)


@pytest.mark.parametrize(
    ("server", "client", "need"),
    [
        ({"close_after": "200ms"}, {"clients": 20, "attempts": 150, "exchange": "echo"}, Need(8 + 20, 1024, 40)),
        ({"extra_fds": 1}, {"clients": 5, "attempts": 12}, Need(8 + 10, 1024, 14)),
        ({"backlog": 30}, {"clients": 5, "attempts": 90, "exchange": "none"}, Need(8 + 5, 1024, 31)),
    ],
)
def test_a_closed_loop_has_a_connection_for_each_client_and_more(
    server: dict[str, Any], client: dict[str, Any], need: Need
) -> None:
    """A client connects again before the server has closed; clients that expect no reply also fill the queue."""
    assert plan(server=server, client={"rate": None, **client}).server_fds == need


def test_a_pause_lets_clients_in_together() -> None:
    """500/s that are closed at once are 101 after a pause of 200 ms, and 151 if the server is late."""
    made = plan(server={"pause": "200ms", "pause_every": "1s"}, client={"rate": "500/s"})

    assert made.server_fds == Need(8 + 101, 1024, 50 + 1)


def test_an_estimate_is_enough_only_with_its_margin() -> None:
    """A number between estimate and margin is neither met nor lacking."""
    needs = Need(60, 70), Need(60, 70, 10), Need(60, 70, 11), Need(71, 70)

    assert [need.is_met for need in needs] == [True, True, False, False]
    assert [need.is_lacking for need in needs] == [False, False, False, True]


def test_a_leak_in_a_closed_loop_without_end_has_no_bound() -> None:
    """A leak in a closed loop without a number of attempts has no bound."""
    made = plan(server={"leak": 0.1}, client={"clients": 10})

    assert (made.server_fds, made.expected_attempts) == (Need(None, 1024), None)
    assert not made.server_fds.is_met


def test_somaxconn_limits_the_queue() -> None:
    """The kernel takes the smaller of backlog and somaxconn, plus one."""
    assert plan(server={"backlog": 9000}).queue_capacity == 4097
    assert plan(server={"backlog": 4096}).warnings == []
    assert len(plan(server={"backlog": 4097}).warnings) == 1


def test_each_source_address_has_all_ports() -> None:
    """Two source addresses have twice the ports."""
    assert plan(client={"rate": "200/s", "sources": 2}).ports.available == 2 * 64_512


def test_the_reserved_descriptor_counts() -> None:
    """`shed` holds one more descriptor from the start."""
    fates = plan(server={"leak": 1.0, "nofile": 64, "on_emfile": "shed"}).prediction.fates

    assert fates["accepted"] == 55


@pytest.mark.parametrize(
    ("host", "tables", "sentence", "remedy"),
    [
        (
            HOST,
            {"server": {"nofile": 20_001}},
            "server.nofile = 20,001 is above the hard limit of 20,000 open files",
            "lower server.nofile, or raise the hard limit (ulimit -Hn, LimitNOFILE=) to 20,001",
        ),
        (
            HOST,
            {"server": {"prewarm_fds": 30_000}},
            "server.prewarm_fds = 30,000 is above the hard limit of 20,000 open files",
            "lower server.prewarm_fds, or raise the hard limit (ulimit -Hn, LimitNOFILE=) to 30,000",
        ),
        (
            HOST,
            {"server": {"nofile": 8}},
            "the server itself needs about 8 descriptors, so with a limit of 8 it cannot accept any client",
            "set server.nofile above 8, unless this is intended",
        ),
        (
            HOST,
            {"server": {"backlog": 9000}},
            "the kernel reduces the backlog of 9000 to net.core.somaxconn = 4096 without an error",
            'set "net.core.somaxconn" = 9000 in [sysctl], or server.backlog to 4096',
        ),
        (
            HOST,
            {"client": {"rate": "5000/s", "max_in_flight": 40_000, "hold": "4s", "duration": "8s"}},
            (
                "each driver may need 40,028 descriptors, and its hard limit is 20,000: it will start no more "
                "clients than that allows"
            ),
            "set client.processes to 3, raise the hard limit (ulimit -Hn), or lower the load",
        ),
        (
            dataclasses.replace(HOST, port_last=1123),
            {},
            "600 local ports may be needed at once, 100 are available",
            "set client.sources to 6, or widen net.ipv4.ip_local_port_range",
        ),
        (
            dataclasses.replace(HOST, port_last=1323),
            {"server": {"close_after": "client"}},
            (
                "clients that close by FIN leave their ports in TIME_WAIT: above about 150/s (half of 300 ports a "
                "second) the generator slows down without any failure"
            ),
            'set client.close = "rst", client.sources to 2, or widen net.ipv4.ip_local_port_range',
        ),
        (
            HOST,
            {"client": {"rate": "30000/s", "duration": "100ms"}},
            "30,000 attempts/s are more than 1 driver can start: about 20,000/s each",
            "set client.processes to 2 on a machine with as many free CPUs, or lower the rate",
        ),
        (
            HOST,
            {"client": {"rate": "200/s", "processes": 2}},
            "3 busy processes share 2 CPUs: latencies will include waiting for a CPU",
            "set client.processes to 1, or allow for that in the latencies",
        ),
        (
            HOST,
            {"client": {"rate": "200/s", "max_in_flight": 10}, "server": {"leak": 1.0, "nofile": 64}},
            "more than 10 clients would be in flight at once: further arrivals are not started",
            "raise client.max_in_flight, or lower the rate, client.hold or the time-outs",
        ),
        (
            HOST,
            {"client": {"rate": "1/s", "duration": "1h"}},
            "this may take 1 h 0 min",
            "lower client.duration, client.attempts or the time-outs; Ctrl-C ends a run early and keeps its results",
        ),
        (
            HOST,
            {"client": {"clients": 100, "duration": "9min"}},
            "3.5 GB are reserved for the records of up to 27,000,000 attempts",
            "set client.attempts, shorten client.duration, or choose an --out on a larger disk",
        ),
        (
            HOST,
            {"sysctl": {"net.core.somaxcon": 4}},
            "net.core.somaxcon is not a known sysctl",
            "did you mean net.core.somaxconn?",
        ),
        (
            HOST,
            {"sysctl": {"net.ipv4.tcp_mem": "1 2 3"}},
            "net.ipv4.tcp_mem belongs to the whole host, not to a network namespace",
            "remove it from [sysctl], and set it with sysctl -w on the host",
        ),
    ],
)
def test_each_warning_ends_with_its_remedy(host: Host, tables: dict[str, Any], sentence: str, remedy: str) -> None:
    """The warning names the setting, its value and the value needed."""
    assert plan(host, **tables).warnings == [PlanWarning(sentence=sentence, remedy=remedy)]


def test_nothing_is_predicted_where_the_generator_may_run_out() -> None:
    """A clamped generator would not do what the scenario describes."""
    made = plan(dataclasses.replace(HOST, nofile_hard=100))

    assert made.prediction.unpredicted == ["the generator itself may run out of descriptors or ports"]


def test_no_scenario_reserves_space_without_end() -> None:
    """The longest closed loop of the most drivers still has a bound."""
    made = plan(client={"clients": 1000, "processes": 64, "duration": "24h"})

    assert made.attempts_capacity * 64 <= 50_000_064
    assert made.accepts_capacity <= 50_001_024
    assert made.failures_capacity <= 300 * 3600


def test_held_connections_bound_a_long_closed_loop() -> None:
    """Space is reserved for further attempts after early closes and after a release of clients."""
    long = {"clients": 10_000, "hold": "1s", "duration": "5min"}
    released = plan(client=long, timeline={"steps": [{"at": "1s", "release": 0.5}]})

    assert plan(client=long).accepts_capacity == 301 * 10_000 + 1024
    assert released.accepts_capacity == 302 * 10_000 + 1024
    assert plan(client={"clients": 10, "hold": "1s", "duration": "60s"}).accepts_capacity == 1_000_000 + 1024
    assert plan(client={"clients": 10, "hold": "1s", "duration": "3s"}).accepts_capacity == 150_000 + 1024


def test_held_connections_bound_the_ports() -> None:
    """Ten clients that hold for a second need no more than 40 ports in three, at any speed."""
    assert plan(client={"clients": 10, "hold": "1s"}, server={"close_after": "client"}).ports.needed == 40


def test_a_closed_loop_of_attempts_ends_at_the_latest_when_each_has_timed_out() -> None:
    """Ten clients connect five times each, for four seconds."""
    assert plan(client={"clients": 10, "attempts": 50}).length_s == pytest.approx(20.05)


def test_specs_carry_the_whole_scenario_to_the_children() -> None:
    """Both specs travel as JSON and carry the settings of the scenario."""
    made = plan(
        seed=5,
        server={"nofile": 64, "close_after": "client", "on_emfile": "spin"},
        client={"rate": "200/s", "attempts": 10, "exchange": "echo", "sources": 3, "processes": 2},
        network={"port": 99},
    )
    server = made.server_spec(accepts_path="a", failures_path="f")
    load = made.load_spec(1, port=1234, attempts_path="t")

    assert (server.port, server.nofile, server.close_after_s, server.seed) == (99, 64, None, 5)
    assert made.server_spec(accepts_path="a", failures_path="f", port=0).port == 0
    assert (load.port, load.share, load.attempts, load.sources) == (1234, 1, 10, 3)
    assert (load.stages, load.duration_s) == ([[0.05, 200.0, 200.0]], 0.05)
    assert load.attempts_capacity >= 5
    assert ServerSpec.of(json.loads(json.dumps(dataclasses.asdict(server)))) == server
    assert LoadSpec.of(json.loads(json.dumps(dataclasses.asdict(load)))) == load


#: Settings of [server] for another kind of server, and settings of [client] that the plan converts.
_NOT_SIMULATED = {"command", "pid", "address", "start_timeout"}
_PLANNED = {"rate", "stages", "clients", "duration", "max_in_flight"}


@pytest.mark.parametrize(
    ("table", "view", "others"), [(Server, ServerSettings, _NOT_SIMULATED), (Client, ClientSettings, _PLANNED)]
)
def test_every_setting_crosses_under_its_name_and_unit(table: type[Table], view: type[Spec], others: set[str]) -> None:
    """A declared setting is a field of the spec with the declared type, and `_s` at the end if it is a duration."""
    declared = {plain_name(table, name): field for name, field in table.model_fields.items() if name not in others}
    fields = get_type_hints(view)
    assert fields.keys() == declared.keys()
    for name, field in declared.items():
        choices = get_origin(field.annotation) is Literal
        assert (str if choices else _plain(field.annotation)) == fields[name], name


def _plain(annotation: Any) -> object:  # noqa: ANN401 -- any annotation
    """Return a type without its metadata: `Annotated[float, ...] | None` is `float | None`."""
    parts = [_plain(part) for part in get_args(annotation) if isinstance(part, type) or get_origin(part)]
    if get_origin(annotation) is Annotated:
        return parts[0]
    return functools.reduce(operator.or_, parts) if parts else annotation


def test_a_setting_crosses_with_its_value() -> None:
    """A duration is text with a unit in the scenario, and seconds in the spec."""
    server = Server.model_validate({"emfile_delay": "250ms", "close_after": "client", "pause": "10ms"})
    values = carried(server, ServerSettings)
    assert (values["emfile_delay_s"], values["close_after_s"], values["pause_s"]) == (0.25, None, 0.01)


def test_clients_are_shared_without_loss() -> None:
    """Seven clients on three drivers are 3 + 2 + 2."""
    made = plan(client={"clients": 7, "processes": 3})
    specs = [made.load_spec(share, port=1, attempts_path="t") for share in range(3)]

    assert [spec.clients for spec in specs] == [3, 2, 2]
    assert sum(part(20_000, share, 3) for share in range(3)) == 20_000
    assert specs[0].stages == []


def test_a_prediction_travels_as_json() -> None:
    """The prediction is stored beside the measurement."""
    prediction = plan(server={"leak": 1.0, "nofile": 64}).prediction

    assert json.loads(json.dumps(dataclasses.asdict(prediction)))["fates"]["queued"] == 129


def test_source_addresses_skip_network_and_broadcast_endings() -> None:
    """127.0.x.1 to .254, then the next x."""
    assert [source_address(index) for index in (0, 253, 254)] == ["127.0.0.1", "127.0.0.254", "127.0.1.1"]


def test_whoever_asks_for_nothing_is_planned_as_one_descriptor_for_its_hold() -> None:
    """The server cannot close earlier; the drivers get the setting, and the canary sends whole requests."""
    client = {"rate": "100/s", "exchange": "http", "request": "none", "hold": "1s"}
    made = plan(client=client, server={"extra_fds": 3, "close_after": "0s"}, canary={})

    assert made.server_fds.needed == 8 + 101
    assert made.load_spec(0, port=1, attempts_path="").request == "none"
    assert made.canary_spec(port=1, path="").request == "whole"
