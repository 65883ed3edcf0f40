"""A WSGI application for gunicorn: /slow?ms=N takes N milliseconds."""

import time
from urllib.parse import parse_qs


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        asked = parse_qs(environ["QUERY_STRING"]).get("ms", ["1000"])[0]
        time.sleep(int(asked) / 1000)
    body = b"hello\n"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
