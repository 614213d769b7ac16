"""
The endpoints for whoever runs the bot: /health, /ready and /metrics over HTTP.

Knows no Redis and no model: what is checked and what is counted in Redis arrive as
functions. Nothing here says a word of a conversation. Trust that every GET of the
three gets its answer within the time limit, whatever hangs behind them; a client that
sends too slowly or too much is cut off.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from bot import metrics
from bot.errors import ChorusError, ConfigError, StoreError
from bot.metrics import Backlog

logger = logging.getLogger(__name__)

# Far more than Prometheus or a probe sends: bytes, bytes and lines.
LONGEST_LINE, LONGEST_FIELD, MOST_HEADERS = 2048, 4096, 64
LINGER_S = 1.0  # a request's body is read and thrown away for as long as this
SHUTDOWN_S = 0.5  # for answers that are on their way

PORTS = "name another port, 0 for any free one, or null for none"


class Check(Protocol):
    """Says what is wrong in one sentence, or None when all is well."""

    async def __call__(self) -> str | None: ...


class Backlogs(Protocol):
    """Counts what waits in Redis, and the dead letters; may raise StoreError."""

    async def __call__(self) -> tuple[Sequence[Backlog], int]: ...


class Operations:
    """
    A context manager; inside it the endpoints answer at `url`. `checks` are asked at
    every GET of /ready, all at once. Each of them, `backlogs`, and a client that has
    a request to send, get `timeout_s`.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        checks: Mapping[str, Check],
        backlogs: Backlogs,
        timeout_s: float = 5.0,
    ) -> None:
        self.url = ""
        self._host = host
        self._port = port
        self._checks = checks
        self._backlogs = backlogs
        self._timeout_s = timeout_s
        self._pages: Mapping[str, Callable[[], Awaitable[web.Response]]] = {
            "/health": self._health,
            "/ready": self._ready,
            "/metrics": self._metrics,
        }
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        server = _Server(self._respond, self._timeout_s)
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except (OSError, ValueError) as error:  # ValueError: no host name at all
            await self._runner.cleanup()
            raise ConfigError(_refused(self._host, self._port, error)) from error
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

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        page = self._pages.get(request.path)
        if page is None:
            response = web.Response(status=404, text="not found\n")
        elif request.method != "GET":
            response = web.Response(
                status=405, text="only GET\n", headers={"Allow": "GET"}
            )
        else:
            response = await page()
        return _anonymous(response)

    async def _health(self) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self) -> web.Response:
        found = await asyncio.gather(*map(self._problem, self._checks.values()))
        problems = dict(zip(self._checks, found, strict=True))
        ready = not any(problems.values())
        return web.json_response(
            {
                "ready": ready,
                "checks": {name: said or "well" for name, said in problems.items()},
            },
            status=200 if ready else 503,
        )

    async def _metrics(self) -> web.Response:
        backlogs, dead_letters = await self._stored()
        return web.Response(
            body=metrics.exposition(backlogs, dead_letters),
            headers={"Content-Type": metrics.CONTENT_TYPE},
        )

    async def _problem(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await check()
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except ChorusError as error:
            return str(error)
        # A check that breaks must not take the others' answers away. What it says may
        # quote anything, so the page shows its class and the log the rest.
        except Exception as error:
            logger.exception("a check of /ready failed")
            return f"the check itself failed with {type(error).__name__}; see the log"

    async def _stored(self) -> tuple[Sequence[Backlog] | None, int | None]:
        """Ask Redis, and return nothing when it is away: the process still counts."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._backlogs()
        except (StoreError, TimeoutError):
            return None, None


class _Server(web.Server):
    def __init__(
        self,
        respond: Callable[[web.BaseRequest], Awaitable[web.Response]],
        idle_s: float,
    ) -> None:
        super().__init__(respond)
        self._idle_s = idle_s

    def __call__(self) -> _Connection:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            # Counts from the beginning of a connection too, until a request is whole.
            keepalive_timeout=self._idle_s,
            lingering_time=LINGER_S,
            auto_decompress=False,  # nobody reads the bodies
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_FIELD,
            max_headers=MOST_HEADERS,
            access_log=None,  # type: ignore[arg-type]  # means none, as in AppRunner
        )


class _Connection(web.RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, or what we failed at; aiohttp's quotes both."""
        if status < 500:  # noqa: PLR2004 (HTTP's border between their fault and ours)
            logger.debug("not an HTTP request", exc_info=exc)
        else:
            logger.error("an operations endpoint failed", exc_info=exc)
        response = web.Response(status=status, text="failed\n")
        response.force_close()
        return _anonymous(response)


def _anonymous(response: web.Response) -> web.Response:
    """Name no versions: aiohttp says its own and Python's where this is not set."""
    response.headers["Server"] = "chorus"
    return response


def _refused(host: str, port: int, error: OSError | ValueError) -> str:
    """Say why the address cannot be listened on, and what the operator can do."""
    address = f"{host}:{port}"
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror | ValueError):
        return (
            f"operations.host: {host!r} is neither an address nor a name that this "
            "machine knows; write 127.0.0.1 for this machine alone"
        )
    if code == errno.EADDRINUSE:
        return f"operations.port: {address} is in use by another process; {PORTS}"
    if code in {errno.EACCES, errno.EPERM}:
        return f"operations.port: {address} is not ours to listen on; {PORTS}"
    if code == errno.EADDRNOTAVAIL:
        return (
            f"operations.host: {host!r} is not an address of this machine; write "
            "127.0.0.1 for this machine alone, 0.0.0.0 for every network it is in"
        )
    return f"operations: cannot listen on {address} ({error.strerror}); {PORTS}"
