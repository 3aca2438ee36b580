"""The parts of `inspect` without a kernel: groups, suspects, remedies, lessons, events, text and JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from inspect_samples import file, identity, incident, listener, netcats, snapshot_of, tcp
from jsonschema import Draft202012Validator
from report_samples import golden

from loadsim.inspect.diagnosis import by_hand, closing, growth, lessons, more_than, remedies, suspects
from loadsim.inspect.document import document, overview_schema, process_schema
from loadsim.inspect.groups import Choice, groups_of
from loadsim.inspect.incident import incident as incident_of
from loadsim.inspect.incident import to_toml
from loadsim.inspect.model import OtherEnd, Row, Snapshot
from loadsim.inspect.text import render
from loadsim.inspect.watch import Trend, events
from loadsim.kernel.processes import Holder, parse_unit
from loadsim.kernel.sockets import unix_name
from loadsim.render.drawing import Terminal
from loadsim.scenario.toml import load_text


def page(now: Snapshot, before: Snapshot | None = None, *, width: int = 80, unicode: bool = True) -> str:
    """Return the text on a terminal of this width."""
    shown = Terminal(width=width, color=False, unicode=unicode)
    return render(now, before, shown, choice=Choice())


def two_snapshots() -> tuple[Snapshot, Snapshot]:
    """Return an incident now, and the snapshot two seconds before."""
    return replace(incident(), at_s=2.0), incident(779)


@pytest.mark.parametrize("width", [80, 120])
def test_an_incident_is_shown_as_a_summary(width: int) -> None:
    """The summary of a service at its limit fits both widths."""
    text = page(*two_snapshots(), width=width)
    assert golden(f"inspect-incident-{width}.txt", text) == text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_five_netcats_are_shown_as_rows(width: int) -> None:
    """A small process is shown with its rows, its queued clients, and its clients without a socket."""
    text = page(netcats(), width=width)
    assert golden(f"inspect-netcats-{width}.txt", text) == text
    assert max(map(len, text.splitlines())) <= width


def test_a_client_that_is_not_connected_has_no_connection() -> None:
    """A row in SYN-SENT is drawn as cut, with a descriptor and without one."""
    text = page(snapshot_of([tcp(8, "SYN_SENT", retransmits=1)]))
    assert "10.0.3.7:5432 ──x" in text
    assert "<──>" not in text


def test_ascii_has_the_same_words() -> None:
    """A terminal without Unicode gets the same words with other symbols."""
    text = page(netcats(), unicode=False)
    assert text.isascii()
    words = page(netcats()).replace("<──>", "<-->").replace("──x", "--x").replace("·", "-").split()
    assert text.split() == words


def test_colour_does_not_change_the_text() -> None:
    """Coloured text without its escapes equals plain text."""
    now, before = two_snapshots()
    coloured = render(now, before, Terminal(width=80, color=True, unicode=True), choice=Choice())
    plain = page(now, before)
    for code in ("0", "1", "2", "31", "32", "33", "36", "1;31"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert [line.rstrip() for line in coloured.splitlines()] == plain.splitlines()


def test_groups_add_up() -> None:
    """The groups add up to all descriptors, and their changes to the total change."""
    now, before = two_snapshots()
    groups = groups_of(now, before)
    assert sum(group.fds for group in groups) == now.open_fds
    assert sum(group.change or 0 for group in groups) == now.open_fds - before.open_fds


def test_many_peers_are_folded() -> None:
    """A process with 300 peers has twelve groups and one for the rest, which still add up."""
    rows = [tcp(i, remote=f"10.1.{i}.1:80") for i in range(300)]
    groups = groups_of(snapshot_of(rows), snapshot_of(rows[:200]))
    assert len(groups) == 13
    assert sum(group.fds for group in groups) == 300
    assert sum(group.change or 0 for group in groups) == 100


def test_a_closed_group_counts_as_a_change() -> None:
    """A group without descriptors left still counts in the change."""
    before = snapshot_of([tcp(3), tcp(4, remote="10.0.0.1:6379")])
    after = snapshot_of([tcp(3)])
    assert sum(group.change or 0 for group in groups_of(after, before)) == -1


def test_a_leak_is_named_with_its_peer_and_age() -> None:
    """Connections that only the peer closed are the first suspect."""
    now, before = two_snapshots()
    first = suspects(now, groups_of(now, before))[0]
    assert first.leaks
    assert "781 connections to 10.0.3.7:5432 were closed by the peer but not by checkout-api" in first.sentence
    assert "the oldest has been idle for 14 h" in first.sentence


def test_a_few_connections_in_close_wait_are_not_a_leak() -> None:
    """Two connections in CLOSE_WAIT without growth are not reported."""
    now = snapshot_of([tcp(3, "CLOSE_WAIT"), tcp(4, "CLOSE_WAIT")])
    assert suspects(now, groups_of(now, now)) == []
    assert remedies(now, None, []) == []


def test_many_connections_in_use_are_not_a_leak() -> None:
    """A limit nearly used up by open connections is reported as that, with remedies."""
    now = snapshot_of([tcp(fd) for fd in range(60)], soft=64)
    found = suspects(now, groups_of(now, now))
    assert [one.leaks for one in found] == [False]
    assert "(4 left), mostly by TCP ESTABLISHED to 10.0.3.7:5432: 60" in found[0].sentence
    assert [when for when, _ in remedies(now, None, found)] == ["NOW", "LATER", "NOT"]


def test_remedies_name_pid_limit_time_and_unit() -> None:
    """NOW says how much time it buys, LATER is for the unit, NOT rules out limits of the machine."""
    now, before = two_snapshots()
    found = remedies(now, growth(before, now), suspects(now, groups_of(now, before)))
    texts = dict(found)
    assert texts["NOW"].startswith("sudo prlimit --pid 4242 --nofile=8192:524288 (about 1 h 59 min at 1.0/s")
    assert "systemctl edit checkout-api.service -> [Service] LimitNOFILE=8192" in texts["LATER"]
    assert "fs.file-nr 9,120" in texts["NOT"]
    assert "inotify (12 of 128 instances)" in texts["NOT"]


@pytest.mark.parametrize(("limit", "asked"), [(64, 1024), (1024, 8192), (1000, 8192), (1_048_576, 8_388_608)])
def test_the_next_limit(limit: int, asked: int) -> None:
    """The next limit is eight times the old one, rounded up to a power of two, at least 1,024."""
    assert more_than(limit) == asked


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (listener(3, 80), "frees port 80"),
        (listener(3, 80, queued=1, recv_q=1), "frees port 80 and resets 1 queued client"),
        (
            listener(3, 80, queued=7, recv_q=7, rivals=1),
            "leaves port 80 to 1 other listener and resets 7 queued clients",
        ),
        (tcp(3), "ends the connection"),
        (tcp(3, recv_q=12), "ends the connection, by RST: 12 bytes unread"),
        (tcp(3, others=(Holder(7, "nc", 3),)), "ends nothing yet: 1 more holder found"),
        (tcp(3, fds=(3, 4, 5)), "ends nothing yet: 2 more holders found"),
        (tcp(3, "CLOSE_WAIT"), "frees the descriptor: the peer has already closed"),
        (file(3, "/tmp/x (deleted)", held_bytes=4000), "frees 4 kB"),  # noqa: S108 - never opened
        (file(3, "/etc/hosts"), ""),
        (Row(fds=(), inode=0, kind="TCP", role="QUEUED"), ""),
    ],
)
def test_the_effect_of_closing(row: Row, says: str) -> None:
    """Closing frees a port and resets queued clients, ends a connection, or has no effect yet."""
    assert closing(row) == says


def test_lessons_explain_the_rows() -> None:
    """Two to five sentences explain rows that are on the screen."""
    taught = lessons(netcats())
    assert 2 <= len(taught) <= 5
    text = " ".join(taught)
    assert "fd 3 listens and never carries data; fd 4 is an accepted connection." in text
    assert "inode 12134646 here, 12159488 at the other end" in text
    assert "The accept queue of listen(fd, 1) holds 2 (backlog + 1)" in text
    assert "close(3) frees port 9999 and resets 2 queued clients; fd 4 stays open" in text
    assert lessons(snapshot_of([])) != []


def test_by_hand_names_the_three_commands() -> None:
    """The commands run in the namespace of the process."""
    assert by_hand(netcats(), None) == [
        "ls -l /proc/3211711/fd",
        "ss -tanpe 'sport = :9999 or dport = :9999'",
        "lsof -nPi :9999",
    ]
    assert by_hand(replace(netcats(), enter="nsenter -t 3211711 -n"), None)[1].startswith("nsenter -t 3211711 -n ss ")
    assert by_hand(incident(), None)[1] == "ss -tanpe | grep 'pid=4242,'"


def test_each_change_is_one_event() -> None:
    """Opened, closed and changed descriptors, queues and the limit give one event each."""
    server = listener(3, 80)
    before = snapshot_of([server, tcp(4, local_port=80), file(5, "/etc/hosts")], soft=5)
    grown = replace(server, recv_q=3)
    now = snapshot_of(
        [grown, tcp(4, "CLOSE_WAIT", local_port=80), tcp(5), tcp(6), file(0, "/dev/null", fds=(0, 1))], soft=5
    )
    happened = [(one.kind, one.fd) for one in events(before, now)]
    assert happened == [
        ("closed", 5),
        ("changed", 4),
        ("opened", 5),
        ("opened", 6),
        ("opened", 0),
        ("opened", 1),
        ("queue", 3),
    ]
    full = snapshot_of([server, *(tcp(fd) for fd in (0, 1, 2, 4))], soft=5)
    assert [one.kind for one in events(before, full)][-1] == "limit"
    assert [one.kind for one in events(full, before)][-1] == "relief"
    assert events(now, now) == []


def test_a_reused_number_is_two_events() -> None:
    """The same number with another inode is another descriptor."""
    before, now = snapshot_of([tcp(4, inode=1)]), snapshot_of([tcp(4, inode=2)])
    assert [(one.kind, one.fd) for one in events(before, now)] == [("closed", 4), ("opened", 4)]


def test_the_pace_ignores_the_time_before_the_growth() -> None:
    """The estimate for a process that was quiet and then leaks ten a second is right."""
    trend = Trend()
    for step in range(20):
        trend.add(step * 0.2, 6)
    assert (pace := trend.pace(58)) is not None
    assert (round(pace.per_s, 3), pace.left_s) == (0.0, None)
    for step in range(1, 11):
        trend.add(3.8 + step * 0.2, 6 + 2 * step)
    pace = trend.pace(38)
    assert pace is not None
    assert pace.left_s == pytest.approx(3.8, rel=0.1)
    assert Trend().pace(1) is None


@pytest.mark.parametrize(
    ("choice", "fds"),
    [
        (Choice(kind="tcp"), [3, 4]),
        (Choice(kind="socket"), [3, 4]),
        (Choice(kind="terminal"), [0]),
        (Choice(state="close-wait"), []),
        (Choice(state="established"), [4]),
        (Choice(state="LISTENING"), [3]),
        (Choice(port=39010), []),
        (Choice(port=9999), [3, 4]),
        (Choice(sort="queue"), [3, 0, 4]),
        (Choice(sort="idle"), [4, 0, 3]),
    ],
)
def test_rows_are_filtered_and_ordered(choice: Choice, fds: list[int]) -> None:
    """Rows are filtered by kind, by state or role in either spelling, and by port at either end."""
    assert [row.fds[0] for row in choice.of(netcats().rows)] == fds


@pytest.mark.parametrize("now", [incident(), netcats(), snapshot_of([])])
def test_the_document_matches_its_schema(now: Snapshot) -> None:
    """Every field of the JSON is in the schema."""
    for before in (None, replace(now, at_s=-2.0)):
        made = json.loads(json.dumps(document(now, before, Choice())))
        Draft202012Validator.check_schema(process_schema())
        assert [error.message for error in Draft202012Validator(process_schema()).iter_errors(made)] == []
    Draft202012Validator.check_schema(overview_schema())


def test_the_document_has_the_effect_of_closing() -> None:
    """Each row has the effect of closing it as a field."""
    rows = document(netcats(), None, Choice(sort="fd"))["rows"]
    assert rows[1]["closing"] == "frees port 9999 and resets 2 queued clients"


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "x.service"),
        ("12:pids:/system.slice/docker-4f.scope\n0::/\n", "docker-4f.scope"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_is_the_innermost_of_the_cgroup(cgroup: str, unit: str) -> None:
    """The unit is the innermost service or scope of the cgroup, if there is one."""
    assert parse_unit(cgroup) == unit


@pytest.mark.parametrize(
    ("raw", "name"), [(b"/run/x.sock\0", "/run/x.sock"), (b"\0abs", "@abs"), (b"\0a\0b", "@a@b"), (b"\xff", "\\xff")]
)
def test_unix_names(raw: bytes, name: str) -> None:
    """A path ends at its zero byte, an abstract name begins with one."""
    assert unix_name(raw) == name


def test_the_names_of_a_process() -> None:
    """A process is found by comm, argv[0] with and without its folder, unit with and without its suffix."""
    called = identity(argv=("/usr/bin/python3", "-m", "x"), unit="api.service", name="python3").called
    assert called == {"python3", "/usr/bin/python3", "api.service", "api"}


def test_a_phantom_has_no_other_end() -> None:
    """A local connection without a socket at its other end is shown as that."""
    now = snapshot_of([tcp(4, remote="127.0.0.1:9", remote_port=9, other=OtherEnd(where="none"))])
    assert "no socket at the other end" in page(now)


def grown(leaked: int, *, other_listeners: int, opens: int) -> list[Snapshot]:
    """Return two snapshots two seconds apart, with the connections leaked and opened between them."""
    left = [
        tcp(10 + i, "CLOSE_WAIT", local_port=8080, remote=f"10.0.0.1:{i + 1}", idle_s=9.0 - i) for i in range(leaked)
    ]
    first = snapshot_of([listener(3, 8080)], soft=64, other_listeners=other_listeners)
    last = snapshot_of([listener(3, 8080), *left], soft=64, other_listeners=other_listeners)
    return [first, replace(last, at_s=2.0, passive_opens=opens)]


@pytest.mark.parametrize(("other_listeners", "leak"), [(0, 0.25), (1, 1.0)])
def test_the_share_that_leaks(other_listeners: int, leak: float) -> None:
    """Arrivals are the namespace's PassiveOpens if the process is the only listener, else the connections found."""
    found = incident_of(grown(10, other_listeners=other_listeners, opens=40), 11)
    assert (found.leak, found.leak_of, found.growth_per_s) == (leak, "connection", 5.0)
    assert found.backlog == 128


def test_growth_from_the_ages_of_leaked_connections() -> None:
    """The idle times of a process at its limit give its earlier growth."""
    now = grown(9, other_listeners=1, opens=0)[1]
    found = incident_of([replace(now, at_s=0.0), now], 11)
    assert found.growth_per_s == pytest.approx(1.0)
    assert "its growth, as no client was accepted meanwhile" in to_toml(found, now, {}, 11)


def test_leaks_of_other_descriptors() -> None:
    """Leaked files and outgoing connections count as extra descriptors of a request."""
    before = snapshot_of([listener(3, 80)])
    files = [file(10 + i, f"/srv/{i}") for i in range(6)]
    found = incident_of([before, replace(snapshot_of([listener(3, 80), *files]), at_s=2.0, passive_opens=12)], 11)
    assert (found.leak_of, found.leak) == ("extra", 0.5)
    text = to_toml(found, before, {"net.core.somaxconn": "4096", "net.ipv4.tcp_rmem": "1 2 3"}, 11)
    scenario = load_text(text)
    assert (scenario.server.extra_fds, scenario.server.leak_of) == (1, "extra")
    assert scenario.sysctl["net.ipv4.tcp_rmem"] == "1 2 3"


def test_names_do_not_break_the_file() -> None:
    """Any process name gives a valid scenario file."""
    snapshots = grown(10, other_listeners=0, opens=10)
    for name in ('"]\n[x', "\x1b[31m", "", "\u202eabc"):
        now = replace(snapshots[1], process=identity(name=name, unit=f"{name}.service"))
        text = to_toml(incident_of(snapshots, 11), now, {}, 11)
        assert load_text(text).server.leak == 1.0
        assert text.isascii()
        assert {char for char in text if not char.isprintable()} == {"\n"}
