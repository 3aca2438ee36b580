"""What a connection says: bytes in, bytes out."""

from __future__ import annotations

import pytest

from loadsim.exchange import Exchange, partial, request, request_end


@pytest.mark.parametrize("exchange", [Exchange.ECHO, Exchange.HTTP])
def test_half_a_request_is_none_to_a_server(exchange: Exchange) -> None:
    """However often a server looks, it has to wait for the rest."""
    whole = request(exchange, 7)
    half = partial(whole, "half")

    assert 0 < len(half) == len(whole) // 2
    assert whole.startswith(half)
    assert request_end(exchange, half) == 0
    assert (partial(whole, "whole"), partial(whole, "none")) == (whole, b"")
