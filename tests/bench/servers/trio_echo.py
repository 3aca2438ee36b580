"""The echo server of the trio tutorial."""

import sys

import trio


async def echo(stream: trio.SocketStream) -> None:
    """Send back all data."""
    async for data in stream:
        await stream.send_all(data)


trio.run(trio.serve_tcp, echo, int(sys.argv[1]))
