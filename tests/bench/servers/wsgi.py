"""The smallest WSGI application."""


def app(_environ, start_response):  # noqa: ANN001, ANN201, D103 -- as every tutorial has it
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]
