"""
Serving: HTTP on one address, for whoever has answers.

Knows no path and no page. Trust that a client that sends too slowly, too much, or
something that is no HTTP costs little and for a short time, and is told nothing about
us; and that an address that cannot be had is one sentence for the operator.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from bot.errors import ConfigError, place_of

logger = logging.getLogger(__name__)

LINGER_S = 1.0  # a body that nobody wants is read and thrown away for as long as this
SHUTDOWN_S = 0.5  # for answers that are on their way

# What an answer is made from; raises nothing.
Respond = Callable[[web.BaseRequest], Awaitable[web.Response]]


class TooLarge(Exception):
    """A body is longer than may be."""


async def whole_body(request: web.BaseRequest, most: int) -> bytes:
    """
    Return a request's body; TooLarge when it is over `most` bytes. How long that may
    take is for whoever waits, and so is what aiohttp raises for a broken one.
    """
    if (request.content_length or 0) > most:
        raise TooLarge
    if request.headers.get("Expect", "").lower() == "100-continue":
        # The word that a client may wait for before it sends a body.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun
    body = bytearray()
    while part := await request.content.readany():
        body += part
        if len(body) > most:
            raise TooLarge
    return bytes(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What a client may cost: the bytes of its request line, the bytes and the number of
    its headers, the seconds until a request's head is whole, and those that a
    connection is kept for the next request. Beyond `connections`, the one that has
    been open longest and is owed no answer makes room.
    """

    line_bytes: int
    field_bytes: int
    headers: int
    head_s: float
    idle_s: float
    connections: int = 512  # half of the files that a process may have open on Linux


class Serving:
    """
    A context manager; inside it `respond` answers every request at `url`. `section` is
    the configuration's that has `host` and `port`; `ports` says what else may be
    written there.
    """

    def __init__(  # noqa: PLR0913 (where, who and how long)
        self,
        *,
        section: str,
        host: str,
        port: int,
        ports: str,
        respond: Respond,
        limits: Limits,
    ) -> None:
        self.url = ""
        self._section = section
        self._host = host
        self._port = port
        self._ports = ports
        self._respond = respond
        self._limits = limits
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        server = _Server(self._respond, self._limits)
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except (OSError, ValueError) as error:  # ValueError: no host name at all
            await self._runner.cleanup()
            raise ConfigError(self._refused(error)) from error
        self.url = site.name
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._runner is not None  # noqa: S101 (our own invariant)
        await self._runner.cleanup()

    def _refused(self, error: OSError | ValueError) -> str:
        """Say why the address cannot be listened on, and what the operator can do."""
        section, host, ports = self._section, self._host, self._ports
        address = f"{host}:{self._port}"
        code = error.errno if isinstance(error, OSError) else None
        if isinstance(error, socket.gaierror | ValueError):
            return (
                f"{section}.host: {host!r} is neither an address nor a name that this "
                "machine knows; write 127.0.0.1 for this machine alone"
            )
        if code == errno.EADDRINUSE:
            return f"{section}.port: {address} is in use by another process; {ports}"
        if code in {errno.EACCES, errno.EPERM}:
            return f"{section}.port: {address} is not ours to listen on; {ports}"
        if code == errno.EADDRNOTAVAIL:
            return (
                f"{section}.host: {host!r} is not an address of this machine; write "
                "127.0.0.1 for this machine alone, 0.0.0.0 for every network it is in"
            )
        return f"{section}: cannot listen on {address} ({error.strerror}); {ports}"


class _Server(web.Server):
    def __init__(self, respond: Respond, limits: Limits) -> None:
        super().__init__(self._answer)
        self._respond = respond
        self._limits = limits
        self._open: dict[_Connection, None] = {}  # the oldest first

    def __call__(self) -> _Connection:
        return _Connection(self, self._limits)

    def opened(self, connection: _Connection) -> None:
        """Count a connection, and close one if there are too many now."""
        self._open[connection] = None
        if len(self._open) > self._limits.connections:
            idle = (one for one in self._open if not one.owed)
            next(idle, connection).force_close()

    def closed(self, connection: _Connection) -> None:
        self._open.pop(connection, None)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        connection = request.protocol
        assert isinstance(connection, _Connection)  # noqa: S101 (`__call__` made it)
        with connection.owing():
            return _anonymous(await self._respond(request))


class _Connection(web.RequestHandler):
    """
    One connection. aiohttp has one time limit for a connection that is kept and for a
    head that does not end; a proxy needs the first to be long, and we the second to
    be short, so that one is counted here.
    """

    def __init__(self, server: _Server, limits: Limits) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_s,
            lingering_time=LINGER_S,
            auto_decompress=False,  # a few bytes would become gigabytes
            max_line_size=limits.line_bytes,
            max_field_size=limits.field_bytes,
            max_headers=limits.headers,
            access_log=None,  # type: ignore[arg-type]  # means none, as in AppRunner
        )
        self.owed = False
        self._server = server
        self._head_s = limits.head_s
        self._head: asyncio.TimerHandle | None = None

    @contextmanager
    def owing(self) -> Iterator[None]:
        """A head is whole, and its request is being answered."""
        self._stop_counting()
        self.owed = True
        try:
            yield
        finally:
            self.owed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._count()
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._head is None and not self.owed:
            self._count()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_counting()
        self._server.closed(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, or what we failed at; aiohttp's quotes both."""
        ours = status >= 500  # noqa: PLR2004 (HTTP's border between their fault and ours)
        if ours:
            logger.error("a request was not answered: %s", _place(exc))
        else:
            logger.debug("not an HTTP request", exc_info=exc)
        response = web.Response(status=503 if ours else status, text="failed\n")
        response.force_close()
        return _anonymous(response)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log that an answer could not be written; aiohttp's line quotes the answer."""
        logger.error("an answer was not sent: %s", _place(kw.get("exc_info")))

    def _count(self) -> None:
        """Give the client so long for a head from now on."""
        loop = asyncio.get_running_loop()
        self._head = loop.call_later(self._head_s, self.force_close)

    def _stop_counting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


def _anonymous(response: web.Response) -> web.Response:
    """Name no versions: aiohttp says its own and Python's where this is not set."""
    response.headers["Server"] = "chorus"
    return response


def _place(error: object) -> str:
    """Say where: what it says may quote what was asked, or is answered."""
    return place_of(error) if isinstance(error, BaseException) else "no error is known"
