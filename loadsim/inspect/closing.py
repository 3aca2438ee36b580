"""What closing a descriptor would do, in a few words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadsim.inspect.model import BOUND, CONNECTED, LISTENING, SYN_SENT
from loadsim.units import format_bytes, some

if TYPE_CHECKING:
    from loadsim.inspect.model import Row

#: Role -> what the last close() does; where nothing is said the descriptor is given back, and nobody notices.
_DOES = {
    "CLOSE-WAIT": "gives the descriptor back: the other side has left already",
    SYN_SENT: "gives up connecting",
    "SYN-RECV": "ends the handshake",
}
_ENDS = "ends the connection"
#: What goes without saying on each of many rows.
PLAIN = {_ENDS, *_DOES.values()}


def closing(row: Row) -> str:
    """Return what closing a row would do; "" where nobody else would notice, or nothing has it open."""
    holders = len(row.others) + len(row.fds) - 1
    if holders > 0 and row.role:
        return f"ends nothing yet: {some(holders, 'more holder')} found"
    if row.role == LISTENING:
        return _closing_listener(row)
    if row.role == CONNECTED and row.fds:
        unread = f", by RST: {format_bytes(row.recv_q)} unread" if row.kind == "TCP" and row.recv_q else ""
        return f"{_ENDS}{unread}"
    if row.role == BOUND and row.local_port:
        return f"frees port {row.local_port}"
    return f"frees {format_bytes(row.held_bytes)}" if row.held_bytes else _DOES.get(row.role, "")


def _closing_listener(row: Row) -> str:
    waiting = row.queued or row.recv_q or 0
    resets = f" and resets the {waiting} that wait" if waiting > 1 else " and resets the one that waits"
    if row.kind != "TCP":
        return "ends the door: nobody can connect any more" + (resets if waiting else "")
    if row.rivals:
        frees = f"leaves port {row.local_port} to {some(row.rivals, 'other listener')}"
    else:
        frees = f"frees port {row.local_port}"
    return frees + (resets if waiting else "")
