"""
Web: where services reach the connectors that they speak to by HTTP.

Reads a request whole, has the connector of its path answer it, and sends that. Knows
no service, no signature and no event, and never logs what was asked. Trust that a
connector sees at most `LARGEST` bytes, as they came; that the service has an answer
within its patience; and that the only 5xx is 503, with which it comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import chain
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from bot.errors import ConfigError, StoreError, place_of
from bot.interfaces import (
    AnswersRequests,
    Connector,
    Named,
    WebRequest,
    WebResponse,
)
from bot.serving import Limits, Serving, TooLarge, whole_body

logger = logging.getLogger(__name__)

LARGEST = 1024 * 1024  # bytes of a body; the services send some tens of thousands
ANSWER_S = 2.5  # Slack takes a request for lost after 3 s
BODY_S = 5.0
AGAIN_S = 5  # what is told to a service that is to come again

METHODS = ("GET", "POST")
STATUSES = range(200, 500)  # what a connector may answer
PORTS = "name another port, or 0 for any free one"

LIMITS = Limits(
    line_bytes=8192,  # the way back from an installation has a long query
    field_bytes=8192,
    headers=128,  # proxies add theirs
    head_s=5.0,
    # Longer than nginx (60 s) and Caddy (120 s) keep theirs: what they send on a
    # connection that we are just closing is lost.
    idle_s=150.0,
)


class Answering(Named, AnswersRequests, Protocol):
    """A connector to which its service speaks by HTTP."""


def routes(connectors: Iterable[Connector]) -> dict[str, Answering]:
    """Map paths to the connectors that answer there; ConfigError where two do."""
    found: dict[str, Answering] = {}
    for connector in connectors:
        if not isinstance(connector, AnswersRequests):
            continue
        for path in connector.paths:
            other = found.setdefault(path, connector)
            if other is not connector:
                raise ConfigError(
                    f"connectors: {other.name!r} and {connector.name!r} both answer "
                    f"at {path!r}; give one of them another path in its settings"
                )
    return found


class Web:
    """
    A context manager; inside it `url` is listened on, and inside `answering` the
    connectors answer. Before and after that a service is told to come again.
    """

    def __init__(  # noqa: PLR0913 (where, who and how long)
        self,
        *,
        host: str,
        port: int,
        routes: Mapping[str, Answering],
        limits: Limits = LIMITS,
        answer_s: float = ANSWER_S,
        body_s: float = BODY_S,
    ) -> None:
        self._routes = routes
        self._answer_s = answer_s
        self._body_s = body_s
        self._open = False
        self._under_way: set[asyncio.Task[object]] = set()
        self._serving = Serving(
            section="web",
            host=host,
            port=port,
            ports=PORTS,
            respond=self._respond,
            limits=limits,
        )

    @property
    def url(self) -> str:
        return self._serving.url

    async def __aenter__(self) -> Self:
        await self._serving.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._serving.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Let the connectors answer; at the end, what is being answered is finished."""
        self._open = True
        try:
            yield
        finally:
            self._open = False
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=self._answer_s)

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        try:
            return await self._answered(request)
        except _Refused as refused:
            return refused.response()
        # A connector's mistake, or ours: the service shall come again, and what the
        # exception says may quote a message.
        except Exception as error:  # noqa: BLE001
            logger.error(  # noqa: TRY400
                "a request was not answered: %s", place_of(error)
            )
            return _come_again().response()

    async def _answered(self, request: web.BaseRequest) -> web.Response:
        connector = self._routes.get(request.path)
        if connector is None:
            raise _Refused(404, "not found")
        if request.method not in METHODS:
            raise _Refused(
                405, "only GET and POST", headers={"Allow": ", ".join(METHODS)}
            )
        asked = _asked(request, await self._body(request))
        if not self._open:
            raise _come_again()
        return _sent(connector, await self._answer(connector, asked))

    async def _body(self, request: web.BaseRequest) -> bytes:
        """
        Read the body as it came. One that is compressed is refused: no service sends
        one, its signature would be over what nobody here has checked, and a few bytes
        could become gigabytes.
        """
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused(415, "send it uncompressed")
        try:
            async with asyncio.timeout(self._body_s):
                return await whole_body(request, LARGEST)
        except TooLarge:
            told = f"at most {LARGEST} bytes"
            raise _Refused(413, told, closes=True) from None
        except TimeoutError:
            raise _Refused(408, "too slow", closes=True) from None
        # It hung up, or sent chunks that are none; RuntimeError: it hung up earlier.
        except (OSError, RuntimeError, web.RequestPayloadError):
            raise _Refused(400, "not whole", closes=True) from None

    async def _answer(self, connector: Answering, asked: WebRequest) -> WebResponse:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (this is a coroutine)
        self._under_way.add(task)
        try:
            async with asyncio.timeout(self._answer_s):
                return await connector.respond(asked)
        except StoreError:  # it is counted and logged where Redis is asked
            raise _come_again() from None
        except TimeoutError:
            logger.warning(
                "%s did not answer a request within %g s",
                connector.name,
                self._answer_s,
            )
            raise _come_again() from None
        finally:
            self._under_way.discard(task)


class _Refused(Exception):
    """What a client is told in place of a connector's answer."""

    def __init__(
        self,
        status: int,
        said: str,
        *,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(said)
        self._status = status
        self._said = said
        self._headers = headers
        self._closes = closes

    def response(self) -> web.Response:
        response = web.Response(
            status=self._status, text=f"{self._said}\n", headers=self._headers
        )
        if self._closes:
            response.force_close()
        return response


def _come_again() -> _Refused:
    return _Refused(503, "come again", headers={"Retry-After": str(AGAIN_S)})


def _asked(request: web.BaseRequest, body: bytes) -> WebRequest:
    return WebRequest(
        method=request.method,
        path=request.path,
        query={name: _readable(value) for name, value in request.query.items()},
        headers={
            name.lower(): _readable(value) for name, value in request.headers.items()
        },
        body=body,
    )


def _readable(text: str) -> str:
    """Replace what stands for bytes that are no UTF-8: no encoder takes it."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _sent(connector: Answering, answer: WebResponse) -> web.Response:
    """Have the service come again where the connector's answer is none."""
    if answer.status not in STATUSES:
        logger.error("%s answered a request with %s", connector.name, answer.status)
        raise _come_again()
    if not all(map(str.isprintable, chain.from_iterable(answer.headers.items()))):
        logger.error("%s answered with a header that is none", connector.name)
        raise _come_again()
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
