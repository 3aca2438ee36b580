"""The echo server of the asyncio documentation."""

import asyncio
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back all data."""
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main() -> None:
    """Serve until killed."""
    async with await asyncio.start_server(echo, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()


asyncio.run(main())
