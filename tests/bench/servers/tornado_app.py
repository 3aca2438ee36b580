"""Tornado's hello world."""

import asyncio
import sys

import tornado.web


class Main(tornado.web.RequestHandler):
    """Says ok."""

    def get(self) -> None:
        """Say it."""
        self.write("ok")


async def main() -> None:
    """Serve until killed."""
    tornado.web.Application([(r"/", Main)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
