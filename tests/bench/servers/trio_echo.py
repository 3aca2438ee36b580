"""An echo server as trio's tutorial has it."""

import sys

import trio


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes."""
    async for data in stream:
        await stream.send_all(data)


trio.run(trio.serve_tcp, echo, int(sys.argv[1]))
