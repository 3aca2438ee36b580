"""The smallest WSGI application; a request for /leak opens a file after the answer and never closes it."""

import contextlib
import os
import threading

FORGOTTEN = []


def app(environ, start_response):  # noqa: ANN001, ANN201, D103 -- as every tutorial has it
    if environ["PATH_INFO"] == "/leak":
        threading.Timer(0.01, forget).start()
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]


def forget():  # noqa: ANN201, D103 -- the same
    with contextlib.suppress(OSError):
        FORGOTTEN.append(os.open(os.devnull, os.O_RDONLY))
