"""sse-starlette on uvicorn: a queue per client and an async generator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from benchmarks.servers.burner import Burner
from benchmarks.servers.triggers import text, user_id

queues: set[asyncio.Queue[str]] = set()
by_user: dict[str, asyncio.Queue[str]] = {}
burner = Burner()


async def stream(request: Request) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, Any]]:
        mine: asyncio.Queue[str] = asyncio.Queue()
        user = request.query_params["user_id"]
        queues.add(mine)
        by_user[user] = mine
        try:
            yield {"comment": "hello"}
            while True:
                yield {"data": await mine.get(), "event": "message"}
        finally:
            queues.discard(mine)
            by_user.pop(user, None)

    return EventSourceResponse(events())


async def send(request: Request) -> JSONResponse:
    count = int(request.query_params["n"])
    users = int(request.query_params.get("users", 0))
    started = time.monotonic()
    for number in range(count):
        if users:
            by_user[user_id(number % users)].put_nowait(text())
        else:
            message = text()
            for one in queues:
                one.put_nowait(message)
    return JSONResponse({"took": time.monotonic() - started})


async def burn(request: Request) -> JSONResponse:
    return JSONResponse(burner.turn(request.query_params.get("on")))


async def ping(request: Request) -> PlainTextResponse:
    return PlainTextResponse("pong")


app = Starlette(
    routes=[
        Route("/sse/stream", stream),
        Route("/send", send, methods=["POST"]),
        Route("/burn", burn, methods=["POST"]),
        Route("/ping", ping),
    ]
)
