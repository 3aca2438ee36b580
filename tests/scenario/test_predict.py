"""Predictions, and questions that are reported as not predicted."""

from __future__ import annotations

from typing import Any

import pytest

from loadsim.scenario.model import Scenario
from loadsim.scenario.predict import Headroom, Prediction, predict, settled_at
from loadsim.scenario.server import Server

#: The capacity of nofile = 64 with 8 descriptors used by the server, and of backlog 128.
HEADROOM = Headroom(free_fds=56, queue=129)


def predicted(
    server: dict[str, Any] | None = None,
    client: dict[str, Any] | None = None,
    *,
    headroom: Headroom = HEADROOM,
    seed: int = 1,
) -> Prediction:
    """Return the prediction for 600 clients at 200/s, by default."""
    load = {"rate": "200/s", "duration": "3s", **(client or {})}
    values = {key: value for key, value in load.items() if value is not None}
    return predict(Scenario.model_validate({"seed": seed, "server": server or {}, "client": values}), headroom)


def test_a_server_that_leaks_everything_meets_its_limit_then_its_queue_then_nobody() -> None:
    """56 descriptors at 200/s last 0.28 s, 129 places in the queue 0.645 s more, and 415 are dropped."""
    prediction = predicted({"leak": 1.0})

    assert prediction == Prediction(
        emfile_at_s=0.28,
        queue_full_at_s=0.92,
        fates={"accepted": 56, "queued": 129, "dropped": 415},
        ends_at_s=4.995,
    )


def test_a_server_that_closes_everything_accepts_everything() -> None:
    """All are accepted, and neither limit is reached."""
    prediction = predicted()

    assert prediction == Prediction(fates={"accepted": 600}, ends_at_s=2.995, never=["emfile", "queue_full"])


@pytest.mark.parametrize("policy", ["sleep", "backoff", "spin", "until_close"])
def test_policies_that_wait_end_alike_where_nothing_is_ever_closed(policy: str) -> None:
    """With each of these policies no descriptor becomes free again."""
    assert predicted({"leak": 1.0, "on_emfile": policy}).fates == {"accepted": 56, "queued": 129, "dropped": 415}


def test_a_server_that_sheds_lets_nobody_wait() -> None:
    """After the limit every client is turned away at once, and the queue stays empty."""
    prediction = predicted({"leak": 1.0, "on_emfile": "shed"})

    assert (prediction.emfile_at_s, prediction.fates) == (0.28, {"accepted": 56, "shed": 544})
    assert prediction.never == ["queue_full"]


def test_how_a_dying_server_divides_its_clients_is_left_open() -> None:
    """The time of the exit is known; orphaned or refused is a race."""
    prediction = predicted({"leak": 1.0, "on_emfile": "exit"})

    assert (prediction.emfile_at_s, prediction.fates) == (0.28, {})
    assert "timing decides how many clients" in prediction.unpredicted[0]


def test_half_a_leak_takes_twice_as_long() -> None:
    """Error diffusion: 56 descriptors are gone after about 112 accepts."""
    prediction = predicted({"leak": 0.5})

    assert prediction.emfile_at_s == pytest.approx(0.56, abs=0.01)
    assert prediction.fates["accepted"] == pytest.approx(112, abs=2)
    assert sum(prediction.fates.values()) == 600


def test_a_leak_that_hangs_on_its_phase_is_not_predicted() -> None:
    """With three descriptors the phase moves the moment by a third."""
    assert predicted({"leak": 0.1}, headroom=Headroom(free_fds=1, queue=129)).fates == {}


def test_a_leak_in_the_handler_fails_requests_and_never_the_accept() -> None:
    """Two descriptors a request leak from 57: the 28th is the last to succeed, all are accepted."""
    server = {"leak": 1.0, "leak_of": "extra", "extra_fds": 2}
    prediction = predicted(server, {"exchange": "http"}, headroom=Headroom(free_fds=57, queue=129))

    assert (prediction.emfile_at_s, prediction.fates) == (0.14, {"accepted": 600})
    assert prediction.never == ["queue_full"]


def test_a_failed_handler_that_cannot_say_so_hangs_up() -> None:
    """With echo the client of a failed handler sees the end of the stream at once, despite its hold time."""
    server = {"leak": 1.0, "leak_of": "extra", "extra_fds": 2, "close_after": "client"}
    client = {"exchange": "echo", "hold": "1ms", "duration": "1s"}

    assert predicted(server, client, headroom=Headroom(free_fds=57, queue=129)).ends_at_s == pytest.approx(0.995)


def test_leaked_connections_take_their_extras_along() -> None:
    """56 descriptors hold 18 connections of three; the last two take requests that fail, then accept fails."""
    prediction = predicted({"leak": 1.0, "extra_fds": 2})

    assert prediction.emfile_at_s == 18 / 200
    assert prediction.fates == {"accepted": 20, "queued": 129, "dropped": 451}


def test_honest_load_within_the_limit_is_accepted() -> None:
    """200/s held for 0.2 s are 40 at once, and 10 more if they leave 50 ms late: fewer than 56 minus two spare ones."""
    prediction = predicted({"close_after": "client"}, {"hold": "200ms"})

    assert (prediction.fates, prediction.never) == ({"accepted": 600}, ["emfile", "queue_full"])
    assert prediction.ends_at_s == pytest.approx(3.195)


def test_honest_load_near_the_limit_has_no_claim() -> None:
    """Held for 0.25 s they are 50 at once, and 60 if they leave 50 ms late: EMFILE is not predicted."""
    prediction = predicted({"close_after": "client"}, {"hold": "250ms"})

    assert (prediction.emfile_at_s, prediction.never, prediction.fates) == (None, ["queue_full"], {"accepted": 600})
    assert prediction.unpredicted == ["whether descriptors run out: a delay of 50 ms makes the difference"]


def test_honest_load_above_the_limit_has_a_moment_but_no_fates() -> None:
    """Held for 0.5 s they would be 100: the 57th meets the limit, and then timing decides."""
    prediction = predicted({"close_after": "client"}, {"hold": "500ms"})

    assert (prediction.emfile_at_s, prediction.fates) == (0.28, {})
    assert "timing decides which clients get a descriptor" in prediction.unpredicted[0]


def test_a_server_that_closes_early_needs_fewer_descriptors() -> None:
    """The first side that closes ends the use of a descriptor."""
    assert predicted({"close_after": "100ms"}, {"hold": "10s"}).fates == {"accepted": 600}


def test_a_queue_is_full_when_its_last_place_is_taken() -> None:
    """At 5/s that is 0.2 s before a client is turned away; a queue with one place more than it takes is never full."""
    load, headroom = {"rate": "5/s", "duration": "1s", "reply_timeout": "200ms"}, Headroom(free_fds=1, queue=2)

    assert predicted({"leak": 1.0}, load, headroom=headroom).queue_full_at_s == pytest.approx(0.4)
    assert predicted({"leak": 1.0}, load, headroom=Headroom(free_fds=1, queue=4)).never == []
    assert predicted({"leak": 1.0}, load, headroom=Headroom(free_fds=1, queue=5)).never == ["queue_full"]


def test_a_slow_acceptor_fills_the_queue_by_the_difference_of_the_rates() -> None:
    """200/s arrive, 98/s are accepted (10 ms and the wake-up): 129 places last 1.27 s; later fates are open."""
    prediction = predicted({"accept_delay": "10ms"})

    assert prediction.queue_full_at_s == pytest.approx(129 / (200 - 1 / 0.0102), abs=0.02)
    assert prediction.fates == {}
    assert "timing" in prediction.unpredicted[0]


def test_clients_that_never_send_a_second_syn_are_simply_dropped() -> None:
    """With a connect time-out below 1 s the first SYN decides, and the ledger balances."""
    prediction = predicted({"accept_delay": "10ms"}, {"connect_timeout": "500ms"})

    assert sum(prediction.fates.values()) == 600
    assert prediction.fates["dropped"] == pytest.approx(600 - 3 / 0.0102 - 129, abs=3)


def test_what_is_still_in_the_queue_when_the_last_client_leaves_is_queued() -> None:
    """Clients wait 0.2 s for a reply; the server is far behind when the last has gone, and accepts 0.2 s longer."""
    prediction = predicted({"accept_delay": "10ms"}, {"duration": "1s", "reply_timeout": "200ms"})

    assert prediction.ends_at_s == pytest.approx(1.195)
    assert prediction.fates == {"accepted": 137, "queued": 63}


def test_a_server_whose_descriptors_still_change_may_accept_for_longer() -> None:
    """Each accept that leaks delays the end, by at most two seconds."""
    patient, server = {"duration": "1s", "reply_timeout": "200ms"}, {"leak": 1.0, "accept_delay": "20ms"}
    headroom = Headroom(free_fds=500, queue=500)

    assert predicted(server, patient, headroom=headroom).fates == {"accepted": 159, "queued": 41}


def test_a_pause_collects_what_arrives_meanwhile() -> None:
    """100 ms at 1,000/s are 100 clients, and 150 if the pause is longer: 256 places hold them, 65 do not."""
    server, client = {"pause": "100ms", "pause_every": "500ms"}, {"rate": "1000/s", "duration": "1s"}

    assert predicted(server, client, headroom=Headroom(free_fds=256, queue=257)).fates == {"accepted": 1000}
    assert predicted(server, client).fates == {}
    assert predicted(server, client, headroom=Headroom(free_fds=56, queue=65)).queue_full_at_s == pytest.approx(0.564)


def test_an_unheard_exchange_ends_with_its_hold() -> None:
    """Exchange none does not wait for the server."""
    assert predicted({"leak": 1.0}, {"exchange": "none"}).ends_at_s == pytest.approx(4.995)
    assert predicted({}, {"exchange": "none"}).ends_at_s == pytest.approx(2.995)


def test_the_load_ends_with_the_last_client_not_with_the_latest() -> None:
    """The last queued client gives up long after the last dropped one."""
    prediction = predicted({"leak": 1.0}, {"connect_timeout": "500ms", "reply_timeout": "4s"})

    assert prediction.ends_at_s == pytest.approx(184 / 200 + 4)


def test_a_stop_at_max_in_flight_is_not_predicted() -> None:
    """The number of clients not started depends on the end of others."""
    assert "max_in_flight" in predicted({"leak": 1.0}, {"max_in_flight": 100}).unpredicted[0]


def test_above_an_easy_rate_nothing_is_predicted() -> None:
    """The speed of the server cannot be computed."""
    assert predicted({}, {"rate": "6000/s"}).unpredicted == [
        "above 5,000/s the result depends on the speed of the server"
    ]


def test_very_many_attempts_are_not_walked_through() -> None:
    """A prediction takes at most a moment."""
    assert "that are computed" in predicted({}, {"rate": "1000/s", "duration": "1h"}).unpredicted[0]


def test_poisson_arrivals_are_predicted_by_their_own_schedule() -> None:
    """The seed decides the schedule and so the time of the event."""
    one, other = (predicted({"leak": 1.0}, {"arrivals": "poisson"}, seed=seed) for seed in (1, 2))

    assert one.emfile_at_s is not None
    assert other.emfile_at_s is not None
    assert one.emfile_at_s == pytest.approx(0.28, abs=0.12)
    assert one.emfile_at_s != other.emfile_at_s


@pytest.mark.parametrize(
    ("server", "client", "headroom"),
    [
        ({"close_after": "200ms"}, {"rate": "500/s", "duration": "1s", "close": "rst"}, Headroom(free_fds=2, queue=17)),
        ({"on_emfile": "shed", "extra_fds": 1}, {"rate": "500/s", "duration": "1s"}, Headroom(free_fds=3, queue=200)),
        (
            {"close_after": "client"},
            {"rate": "300/s", "duration": "1s", "exchange": "none"},
            Headroom(free_fds=9, queue=99),
        ),
    ],
)
def test_a_few_free_descriptors_are_no_never(
    server: dict[str, Any], client: dict[str, Any], headroom: Headroom
) -> None:
    """A prompt server closes each connection before the next one; a late server needs too many descriptors."""
    prediction = predicted(server, client, headroom=headroom)

    assert (prediction.emfile_at_s, "emfile" in prediction.never) == (None, False)


@pytest.mark.parametrize("queue", [1, 2, 4])
def test_a_queue_of_a_few_places_is_no_never(queue: int) -> None:
    """500/s fill four places within 10 ms, and a scheduler may stop a server for longer."""
    prediction = predicted({}, {"rate": "500/s", "duration": "1s"}, headroom=Headroom(free_fds=200, queue=queue))

    assert (prediction.queue_full_at_s, prediction.never, prediction.fates) == (None, ["emfile"], {})


def test_a_limit_that_is_only_just_reached_is_no_claim() -> None:
    """200/s held for 0.285 s are 57 at once, and 47 if the server closes 50 ms early."""
    prediction = predicted({"close_after": "client"}, {"hold": "285ms"})

    assert (prediction.emfile_at_s, prediction.never) == (None, [])


# closed loop


def test_a_closed_loop_of_a_leaking_server_ends_where_it_must() -> None:
    """The speed is not predicted, the fates are."""
    client = {"rate": None, "clients": 20, "duration": None, "attempts": 300}
    prediction = predicted({"leak": 1.0}, client)

    assert prediction.fates == {"accepted": 56, "queued": 129, "dropped": 115}
    assert (prediction.emfile_at_s, len(prediction.unpredicted)) == (None, 1)


def test_a_closed_loop_over_a_time_fills_the_queue_if_there_is_time_enough() -> None:
    """Each client tries again after its reply time-out; the number of drops depends on speed."""
    client = {"rate": None, "clients": 100, "duration": "10s"}

    assert predicted({"leak": 1.0}, client).fates == {"accepted": 56, "queued": 129}
    assert predicted({"leak": 1.0}, {**client, "duration": "3s"}).fates == {}


def test_a_closed_loop_with_room_for_all_is_healthy() -> None:
    """With three descriptors per client and two spare ones, 15 clients fit into 56, 20 do not."""
    client = {"rate": None, "clients": 15, "duration": None, "attempts": 1000}

    assert predicted({}, client) == Prediction(fates={"accepted": 1000}, never=["emfile", "queue_full"])
    assert predicted({}, {**client, "clients": 20}).never == []
    assert predicted({}, {**client, "reply_timeout": "100ms"}).never == []


def test_a_closed_loop_that_overflows_a_moving_queue_is_not_predicted() -> None:
    """The cases are more clients than queue places, and a slow acceptor."""
    client = {"rate": None, "clients": 200}

    assert predicted({"leak": 1.0}, client).fates == {}
    assert predicted({"accept_delay": "1s"}, {**client, "clients": 5}).fates == {}


@pytest.mark.parametrize("portion", ["half", "none"])
def test_clients_that_never_ask_stay_in_the_table(portion: str) -> None:
    """They are never served, so no handler opens or closes anything; each takes one descriptor."""
    server = {"extra_fds": 3, "leak": 0.5, "leak_of": "extra"}
    silent = {"rate": "100/s", "duration": "500ms", "exchange": "http", "request": portion, "hold": "2s"}

    assert predicted(server, silent) == Prediction(
        fates={"accepted": 50}, ends_at_s=2.49, never=["emfile", "queue_full"]
    )
    assert predicted(server, {**silent, "duration": "1s"}).emfile_at_s == 0.56


@pytest.mark.parametrize(
    ("every", "pause", "changed", "settled"),
    [
        (0.5, 0.0, 1.0, 1.2),
        (2.0, 1.5, 0.3, 0.5),  # the first pause begins after `pause_every`
        (2.0, 1.5, 1.9, 3.6),  # half of the time passed before the pause
        (2.0, 1.5, 2.1, 3.7),
        (2.0, 1.9, 2.1, 3.95),  # it never runs for 200 ms
        (1.0, 0.95, 0.99, 1.965),
    ],
)
def test_descriptors_do_not_settle_during_a_pause(every: float, pause: float, changed: float, settled: float) -> None:
    """A server closes nothing during a pause, so only the time outside of pauses counts."""
    server = Server.model_validate({"pause": f"{pause * 1000:.0f}ms", "pause_every": f"{every * 1000:.0f}ms"})
    assert settled_at(server, changed) == pytest.approx(settled)


@pytest.mark.parametrize("every", ["100ms", "300ms", "350ms", "700ms", "800ms"])
def test_descriptors_settle_after_any_pause(every: str) -> None:
    """Descriptors that change at a multiple of a pause's interval settle less than two intervals later."""
    server = Scenario.model_validate(
        {"server": {"pause": "50ms", "pause_every": every}, "client": {"rate": "1/s"}}
    ).server
    for number in range(200):
        changed_at = number * server.pause_every
        assert changed_at < settled_at(server, changed_at) < changed_at + 2 * server.pause_every + 1
