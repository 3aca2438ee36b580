"""Twisted's hello world."""

import sys

from twisted.internet import reactor
from twisted.web import resource, server


class Main(resource.Resource):
    """Says ok."""

    isLeaf = True  # noqa: N815 -- Twisted's name

    def render_GET(self, _request: server.Request) -> bytes:  # noqa: N802 -- Twisted's name
        """Say it."""
        return b"ok"


reactor.listenTCP(int(sys.argv[1]), server.Site(Main()), interface="127.0.0.1")
reactor.run()
