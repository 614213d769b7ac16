"""
The endpoints for whoever runs the bot: /health, /ready and /metrics over HTTP.

Knows no Redis and no model: what is checked and what is counted in Redis arrive as
functions. Nothing here says a word of a conversation. Trust that every GET of the
three gets its answer within the time limit, whatever hangs behind them; a client that
sends too slowly or too much is cut off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from bot import metrics
from bot.errors import ChorusError, StoreError
from bot.metrics import Backlog
from bot.serving import Limits, Serving

logger = logging.getLogger(__name__)

# Far more than Prometheus or a probe sends: bytes, bytes and lines.
LONGEST_LINE, LONGEST_FIELD, MOST_HEADERS = 2048, 4096, 64
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
        self._checks = checks
        self._backlogs = backlogs
        self._timeout_s = timeout_s
        self._pages: Mapping[str, Callable[[], Awaitable[web.Response]]] = {
            "/health": self._health,
            "/ready": self._ready,
            "/metrics": self._metrics,
        }
        self._serving = Serving(
            section="operations",
            host=host,
            port=port,
            ports=PORTS,
            respond=self._respond,
            limits=Limits(
                line_bytes=LONGEST_LINE,
                field_bytes=LONGEST_FIELD,
                headers=MOST_HEADERS,
                head_s=timeout_s,
                idle_s=timeout_s,
            ),
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

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        page = self._pages.get(request.path)
        if page is None:
            return web.Response(status=404, text="not found\n")
        if request.method != "GET":
            return web.Response(status=405, text="only GET\n", headers={"Allow": "GET"})
        try:
            return await page()
        # What was asked has nothing to do with it, so the log may say everything.
        except Exception:
            logger.exception("an operations endpoint failed")
            return web.Response(status=500, text="failed\n")

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
