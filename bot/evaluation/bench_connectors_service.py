"""
The services of bench `connectors`: as little as lets a connector start.

Slack and Telegram in one HTTP server, written out by hand so that it costs the process
that measures next to nothing. It says yes to whatever is asked. Knows no connector.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import orjson
from pydantic import JsonValue

TEAM, BOT, BOT_USER = "T0BENCH", "B0BENCH", "U0BENCH"
TELEGRAM_BOT = 4242

_ANSWERS: Mapping[str, JsonValue] = {
    "/api/auth.test": {
        "ok": True,
        "team": "Bench",
        "team_id": TEAM,
        "user": "chorus",
        "user_id": BOT_USER,
        "bot_id": BOT,
    },
    "/getMe": {
        "ok": True,
        "result": {
            "id": TELEGRAM_BOT,
            "is_bot": True,
            "first_name": "Chorus",
            "username": "chorus_bench_bot",
        },
    },
}
_YES: JsonValue = {"ok": True, "result": True}


@asynccontextmanager
async def services() -> AsyncIterator[str]:
    """Serve both; yield the address."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a connection has a task of its own)
        talks.add(task)
        try:
            while True:
                writer.write(_answer(await _path(reader)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # it hung up
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def _path(reader: asyncio.StreamReader) -> str:
    """Read one request; return its path."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *lines = head.split("\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    await reader.readexactly(int(headers.get("content-length", 0)))
    return request.split(" ")[1].partition("?")[0]


def _answer(path: str) -> bytes:
    found = (answer for end, answer in _ANSWERS.items() if path.endswith(end))
    body = orjson.dumps(next(found, _YES))
    lines = [
        "HTTP/1.1 200 OK",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
