"""
The Bot API: calls to Telegram, each with a time limit, and the connections they use.

python-telegram-bot's `Bot` writes and reads what goes over the wire; results stay as
they came. Every error is one of the library's or of `outcomes`, and none has the token
in it, which is a part of every address that is asked. Knows nothing about replies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from telegram import Bot
from telegram.error import TelegramError, TimedOut
from telegram.request import HTTPXRequest

from connectors.telegram.outcomes import FloodWait, Unavailable
from connectors.telegram.parsing import KINDS
from connectors.telegram.wire import an_integer, an_object

CALL_S = 20.0
CONNECT_S = 5.0
# A free connection; there are many more than sixteen replies at once need.
POOL_S = 5.0
CONNECTIONS = 64
UPDATES_AT_ONCE = 100

_UNSAID_S = 5.0  # how long a flood lasts of which nothing more is said

# What the library reads itself, and 504: there the service may have been reached.
_READ_BY_LIBRARY = {400, 401, 403, 404, 409, 504}
_FLOOD = 429

# httpx tells of each address that it asks, the library of the first.
_TELL_ADDRESSES = ("httpx", "telegram.Bot")


class BotApi:
    """
    Telegram for one bot. After `let_go` the next call opens new connections; calls
    that are under way keep theirs.
    """

    def __init__(self, *, token: str, api_url: str, call_s: float = CALL_S) -> None:
        self._token = token
        self._call_s = call_s
        base_url = f"{api_url.rstrip('/')}/bot"
        self._calls = _Line(token, base_url)
        # A poll waits for most of its life, and may get stuck; it has a line of its own
        # so that nothing else does: python-telegram-bot issues 4405 and 4523.
        self._polls = _Line(token, base_url)
        for name in _TELL_ADDRESSES:
            logging.getLogger(name).addFilter(_HidesToken(token))

    async def call(
        self, method: str, *, within_s: float | None = None, **arguments: Any
    ) -> Any:
        """Call a method, arguments of None left out; raise TelegramError."""
        limit_s = self._call_s if within_s is None else within_s
        return await self._calls.call(method, arguments, limit_s)

    async def post(self, **arguments: Any) -> int:
        """Send a message and return its id; raise TelegramError."""
        sent = an_object(await self.call("sendMessage", **arguments))
        message = an_integer(sent.get("message_id"))
        if not message:
            raise TelegramError("Invalid server response")
        return message

    async def updates(
        self, offset: int | None, wait_s: float, grace_s: float
    ) -> Sequence[object]:
        """
        Wait for updates from `offset` on, which confirms those before. Telegram
        answers after `wait_s` at the latest; TimedOut is raised `grace_s` later.
        """
        found = await self._polls.call(
            "getUpdates",
            {
                "offset": offset,
                "timeout": int(wait_s),
                "limit": UPDATES_AT_ONCE,
                "allowed_updates": list(KINDS),
            },
            wait_s + grace_s,
        )
        if not isinstance(found, list):
            raise TelegramError("Invalid server response")
        return found

    async def reconnect_polls(self) -> None:
        """Leave the connections of polls alone; the next one opens another."""
        await self._polls.let_go()

    async def let_go(self) -> None:
        await self._calls.let_go()
        await self._polls.let_go()

    def hide_token(self, text: str) -> str:
        """Return a text as it may be told, whichever case the library gave it."""
        folded, secret = text.lower(), self._token.lower()
        if secret not in folded or len(folded) != len(text):
            return text if secret not in folded else "<token>"
        at = folded.index(secret)
        rest = self.hide_token(text[at + len(secret) :])
        return f"{text[:at]}<token>{rest}"


class _Line:
    """Connections that are opened with the first call and can be given up."""

    def __init__(self, token: str, base_url: str) -> None:
        self._token = token
        self._base_url = base_url
        self._open: _Open | None = None

    async def call(
        self, method: str, arguments: Mapping[str, Any], limit_s: float
    ) -> Any:
        opened = self._open = self._open or _opened(self._token, self._base_url)
        opened.under_way += 1
        try:
            async with asyncio.timeout(limit_s):
                return await opened.client.call(method, arguments, limit_s)
        except TimeoutError as error:
            raise TimedOut from error
        # The library takes an answer apart before anybody has looked at it.
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TelegramError("Invalid server response") from error
        finally:
            opened.under_way -= 1
            await opened.close_if_over()

    async def let_go(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            opened.over = True
            await opened.close_if_over()


class _Client(Bot):
    """The library's bot, its results as they came."""

    __slots__ = ()

    async def call(
        self, method: str, arguments: Mapping[str, Any], limit_s: float
    ) -> Any:
        return await self._post(method, {**arguments}, read_timeout=limit_s)


@dataclass(slots=True, kw_only=True)
class _Open:
    """A client and its connections, which are closed after the last of its calls."""

    client: _Client
    connections: HTTPXRequest
    under_way: int = 0
    over: bool = False

    async def close_if_over(self) -> None:
        if self.over and not self.under_way:
            await self.connections.shutdown()


def _opened(token: str, base_url: str) -> _Open:
    connections = _Connections(
        connection_pool_size=CONNECTIONS,
        connect_timeout=CONNECT_S,
        pool_timeout=POOL_S,
    )
    client = _Client(
        token,
        base_url=base_url,
        request=connections,
        get_updates_request=connections,
    )
    return _Open(client=client, connections=connections)


class _Connections(HTTPXRequest):
    """
    The library's HTTP. It reads answers strictly and quotes none in a log, and tells
    what certainly was not done from what the library cannot tell.
    """

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        status, body = await super().do_request(*args, **kwargs)
        if status == _FLOOD:
            raise FloodWait(_flood_s(body))
        if status >= 300 and status not in _READ_BY_LIBRARY:  # noqa: PLR2004
            raise Unavailable(f"Status {status}")
        return status, body

    @staticmethod
    def parse_json_payload(payload: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise TelegramError("Invalid server response") from error
        if not isinstance(answer, dict):
            raise TelegramError("Invalid server response")
        return answer


class _HidesToken(logging.Filter):
    """Lets no line pass that has the token in it."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._secret = token.partition(":")[2]

    def filter(self, record: logging.LogRecord) -> bool:
        return self._secret not in record.getMessage()


def _flood_s(body: bytes) -> float:
    try:
        answer = an_object(orjson.loads(body))
    except orjson.JSONDecodeError:
        return _UNSAID_S
    after = an_integer(an_object(answer.get("parameters")).get("retry_after"))
    return _UNSAID_S if after is None or after < 0 else float(after)
