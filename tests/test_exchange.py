"""The protocols of a connection: bytes in, bytes out."""

from __future__ import annotations

import pytest

from loadsim.exchange import Exchange, Reply, judge, partial, request, request_end, response


@pytest.mark.parametrize("exchange", [Exchange.ECHO, Exchange.HTTP])
def test_half_a_request_is_incomplete_to_a_server(exchange: Exchange) -> None:
    """A server has to wait for the rest of the request."""
    whole = request(exchange, 7)
    half = partial(whole, "half")

    assert 0 < len(half) == len(whole) // 2
    assert whole.startswith(half)
    assert request_end(exchange, half) == 0
    assert (partial(whole, "whole"), partial(whole, "none")) == (whole, b"")


@pytest.mark.parametrize(
    ("received", "expected", "reply"),
    [
        (b"+", "+PONG", Reply.INCOMPLETE),
        (b"+PONG", "+PONG", Reply.OK),
        (b"+PONG\r\n", "+PONG", Reply.OK),
        (b"-", "+PONG", Reply.ERROR),
        (b"+PANIC", "+PONG", Reply.ERROR),
        (b"", "", Reply.INCOMPLETE),
        (b"\xff", "", Reply.OK),
        ("\u00fc".encode(), "\u00fc", Reply.OK),
    ],
)
def test_a_raw_answer_is_judged_by_its_beginning(received: bytes, expected: str, reply: Reply) -> None:
    """The first different byte is an error, because no more may arrive."""
    assert judge(Exchange.RAW, received, 1, expected) is reply


@pytest.mark.parametrize("expected", ["+PONG", ""])
def test_the_simulated_server_answers_any_raw_request(expected: str) -> None:
    """It sends the expected answer, or any; if its handler has no descriptor it sends nothing."""
    said = request(Exchange.RAW, 1, send="PING\r\n")
    answer = response(Exchange.RAW, said, close=True, expected=expected)

    assert said == b"PING\r\n"
    assert request_end(Exchange.RAW, said) == len(said)
    assert judge(Exchange.RAW, answer, 1, expected) is Reply.OK
    assert response(Exchange.RAW, said, close=True, expected=expected, failed=True) == b""
