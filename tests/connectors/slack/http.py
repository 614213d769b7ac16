"""
The stand-in's HTTP: how a call is read and answered, and what goes wrong with it.

Knows no method of the Web API.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict, deque
from collections.abc import Callable
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from tests.connectors.slack.blocks import Json
from tests.connectors.slack.faults import (
    DropAfter,
    DropBefore,
    Error,
    ErrorAfter,
    Fault,
    Fine,
    Garbled,
    Held,
    RateLimited,
    Redirect,
    Slow,
    Status,
)


class Faults:
    """The faults that are still to come, in a line for each thing that is asked."""

    def __init__(self) -> None:
        self._left: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def add(self, what: str, *faults: Fault) -> None:
        self._left[what].extend(faults)

    async def answered(
        self, what: str, request: web.Request, done: Callable[[], web.Response]
    ) -> web.StreamResponse:
        """Do what was asked, unless the next fault in line keeps it from being done."""
        faults = self._left[what]
        fault = faults.popleft() if faults else Fine()
        refused = _refused(fault, request)
        if refused is not None:
            return refused
        match fault:
            case Slow(seconds):
                await asyncio.sleep(seconds)
            case Held(go, came):
                came.set()
                await go.wait()
        answer = done()
        match fault:
            case DropAfter():
                return _drop(request)
            case ErrorAfter(code):
                return answer_with({"ok": False, "error": code})
            case Garbled():
                assert isinstance(answer.body, bytes)
                cut = answer.body[: len(answer.body) // 2]
                return web.Response(body=cut, content_type="application/json")
        return answer


def _refused(fault: Fault, request: web.Request) -> web.StreamResponse | None:
    """Return what is answered where a fault keeps the call from being done."""
    match fault:
        case RateLimited(seconds):
            limited = {"ok": False, "error": "ratelimited"}
            headers = {"Retry-After": str(seconds)}
            return answer_with(limited, status=429, headers=headers)
        case Error(code, more):
            return answer_with({"ok": False, "error": code, **more})
        case Status(status):
            page = "<html>upstream</html>"
            return web.Response(status=status, text=page, content_type="text/html")
        case DropBefore():
            return _drop(request)
        case Redirect(url):
            return web.Response(status=307, headers={"Location": url})
    return None


def answer_with(
    answer: Json, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(answer),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def _drop(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def arguments_of(request: web.Request) -> Json:
    """Return all that was given: in the address, as a form or as JSON."""
    given: Json = dict(request.query)
    body = await request.read()
    if request.content_type == "application/json" and body:
        given |= orjson.loads(body)
    elif request.content_type == "application/x-www-form-urlencoded":
        given |= dict(parse_qsl(body.decode(), keep_blank_values=True))
    return given


def token_of(request: web.Request, arguments: Json) -> str | None:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind == "Bearer":
        return token
    return arguments.get("token")


def client_of(request: web.Request, arguments: Json) -> tuple[str, str]:
    """Return who asks for a token: by HTTP's own way, or in the form."""
    kind, _, encoded = request.headers.get("authorization", "").partition(" ")
    if kind == "Basic":
        client_id, _, secret = base64.b64decode(encoded).decode().partition(":")
        return client_id, secret
    return str(arguments.get("client_id")), str(arguments.get("client_secret"))
