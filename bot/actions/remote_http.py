"""
The way to an action server: one connection pool, and words for whatever fails.

Knows HTTP, and nothing of what is asked. What a server says in an error is never
shown: rasa-sdk's repeats the whole tracker in it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import aiohttp

from bot.actions.answers import LONGEST_BYTES
from bot.errors import ActionError

CONNECT_S = 5.0
# A request on a connection that the server closes in this moment is lost, and nobody
# knows whether it was read. Servers close idle ones after 5 s (node, uvicorn, Sanic's
# default) or later; a connection on this machine takes a third of a millisecond.
KEEP_IDLE_S = 3.0

_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; of a body that is too long, one byte too many."""

    status: int
    body: bytes


class Http:
    """Requests to one server. Each is sent once: an action may have done something."""

    def __init__(self, url: str, token: str) -> None:
        self._where = url
        self._headers = _HEADERS | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        # A session belongs to the event loop that it was made on.
        self._sessions: WeakKeyDictionary[
            asyncio.AbstractEventLoop, aiohttp.ClientSession
        ] = WeakKeyDictionary()

    async def close(self) -> None:
        """Close what was opened on this event loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    async def get(self, path: str, action: str, timeout_s: float) -> Answer:
        return await self._asked("GET", path, None, action, timeout_s)

    async def post(
        self, path: str, body: bytes, action: str, timeout_s: float
    ) -> Answer:
        return await self._asked("POST", path, body, action, timeout_s)

    async def _asked(
        self, method: str, path: str, body: bytes | None, action: str, timeout_s: float
    ) -> Answer:
        try:
            async with self._session().request(
                method,
                f"{self._where}{path}",
                data=body,
                timeout=aiohttp.ClientTimeout(
                    total=timeout_s, sock_connect=min(CONNECT_S, timeout_s)
                ),
                allow_redirects=False,
            ) as response:
                return Answer(response.status, await _body(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failure(action, error, timeout_s) from error

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_IDLE_S),
                headers=self._headers,
                # Conversations share the connection, and must not share cookies.
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._sessions[loop]

    def _failure(self, action: str, error: Exception, timeout_s: float) -> ActionError:
        match error:
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
                said = (
                    f"{self._where} cannot be reached ({_cause(error)}); see whether "
                    "the server runs and the address is right"
                )
                return ActionError(action, "away", said)
            case TimeoutError():
                return ActionError(action, "late", f"took longer than {timeout_s:g} s")
            case aiohttp.ClientConnectionError() | OSError():
                said = (
                    f"{self._where} closed the connection before it had answered "
                    f"({_cause(error)}); nobody knows what it did, so it was not asked "
                    "again; see its log"
                )
                return ActionError(action, "away", said)
            case _:
                said = (
                    f"{self._where} answered with what is no HTTP "
                    f"({type(error).__name__}); see whether the address is right"
                )
                return ActionError(action, "nonsense", said)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LONGEST_BYTES:
            response.close()  # the rest is not worth the connection
            break
    return bytes(body[: LONGEST_BYTES + 1])


def _cause(error: Exception) -> str:
    """Say what failed below, without a URL: it is said already."""
    cause = error.__cause__ or error
    words = cause.strerror if isinstance(cause, OSError) and cause.strerror else ""
    return words or type(cause).__name__
