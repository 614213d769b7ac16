"""
The webhook: the service over HTTP, as Rasa and rasa-sdk speak it.

Knows paths, statuses and who may ask; not how a reply comes about. Trust that every
answer is JSON, that none quotes a request, and that nothing is logged of a query: the
token may be in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from bot.actions.calls import unseen
from bot.actions_server.bodies import Unread, body_of
from bot.actions_server.requests import (
    Fault,
    Refused,
    read_action,
    read_wording,
    to_json,
)
from bot.actions_server.service import SAID, Service, as_object
from bot.errors import place_of
from bot.serving import Limits

logger = logging.getLogger(__name__)

LIMITS = Limits(
    line_bytes=8192,
    field_bytes=8192,
    headers=64,
    head_s=5.0,
    idle_s=75.0,  # Rasa connects anew for each call; proxies keep theirs
)

# How often it is looked whether a client is still there: aiohttp tells nobody.
LOOK_S = 0.25

STATUSES: Mapping[Fault, int] = {
    "malformed": 400,
    "rejected": 400,
    "missing": 404,
    "failed": 500,
}

Answer = TypeVar("Answer")
Page = Callable[[web.BaseRequest], Awaitable[web.Response]]


def is_known(token: str | None, shown: str) -> bool:
    """Say whether what a caller shows lets them in; without a token, anything does."""
    if token is None:
        return True
    # Half surrogates stand for bytes that are no UTF-8.
    return hmac.compare_digest(shown.encode(errors="surrogatepass"), token.encode())


def shown_by(authorization: str) -> str:
    """Return what an `Authorization: Bearer …` shows."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Answers HTTP requests; `token` is what callers have to show, but for /health."""

    service: Service
    token: str | None

    async def respond(self, request: web.BaseRequest) -> web.Response:
        try:
            return await self._answered(request)
        except Unread as unread:
            response = _error(unread.status, unread.said)
            response.force_close()
            return response
        except Refused as refused:
            return _error(STATUSES[refused.fault], refused.said, refused.action)
        # Ours to fix; what it says may quote the request.
        except Exception as error:  # noqa: BLE001
            logger.error(  # noqa: TRY400
                "a request was not answered: %s", place_of(error)
            )
            return _error(500, "Chorus failed to answer; its log says where")

    async def _answered(self, request: web.BaseRequest) -> web.Response:
        pages: Mapping[str, tuple[str, Page]] = {
            "/webhook": ("POST", self._webhook),
            "/nlg": ("POST", self._nlg),
            "/actions": ("GET", self._actions),
            "/health": ("GET", self._health),
        }
        if request.path not in pages:
            return _error(404, f"no such path; there is {', '.join(pages)}")
        method, page = pages[request.path]
        if request.method != method:
            return _error(405, f"only {method}", headers={"Allow": method})
        if page != self._health and not self._admits(request):
            return _error(
                401,
                "a token is needed: ?token=… or `Authorization: Bearer …`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return await page(request)

    def _admits(self, request: web.BaseRequest) -> bool:
        shown = (
            request.query.get("token", ""),
            shown_by(request.headers.get("Authorization", "")),
        )
        return any(is_known(self.token, one) for one in shown)

    async def _health(self, _request: web.BaseRequest) -> web.Response:
        return _json({"status": "ok"})

    async def _actions(self, _request: web.BaseRequest) -> web.Response:
        return _json([{"name": name} for name in await self.service.names()])

    async def _webhook(self, request: web.BaseRequest) -> web.Response:
        asked = read_action(await body_of(request))
        if not asked.action:
            return web.Response(body=b"null", content_type="application/json")
        answer = await _while_there(request, self.service.run(asked, unseen))
        try:
            return _json(as_object(answer))
        except ValueError:
            raise Refused(*SAID["nonsense"], asked.action) from None

    async def _nlg(self, request: web.BaseRequest) -> web.Response:
        asked = read_wording(await body_of(request))
        reword = request.query.get("reword") == "true"
        wording = self.service.word(asked, reword=reword)
        return _json(await _while_there(request, wording))


async def _while_there(
    request: web.BaseRequest, answering: Coroutine[Any, Any, Answer]
) -> Answer:
    """Return the answer; when the client hangs up, what makes it is cancelled."""
    task = asyncio.create_task(answering)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_S)
            if request.transport is None:
                raise Unread(400, "the client is gone")
        return task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Refused):
            await task


def _json(answer: Mapping[str, object] | list[Any]) -> web.Response:
    return web.Response(body=to_json(answer), content_type="application/json")


def _error(
    status: int,
    said: str,
    action: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Say what is wrong, in the keys that Rasa reads."""
    body: dict[str, object] = {"error": said}
    if action:
        body["action_name"] = action
    return web.Response(
        status=status,
        body=to_json(body),
        headers=headers,
        content_type="application/json",
    )
