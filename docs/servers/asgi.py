"""An ASGI application for uvicorn: /slow?ms=N takes N milliseconds."""

import asyncio
from urllib.parse import parse_qs


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/slow":
        asked = parse_qs(scope["query_string"].decode()).get("ms", ["1000"])[0]
        await asyncio.sleep(int(asked) / 1000)
    body = b"hello\n"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
