"""
The Bot API on the wire: how a call is read, how it is refused, and what can go wrong.

Knows no chats and no messages. Arguments may come as a form, in the address or as JSON,
as Telegram takes them; either way a method sees the same values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

JSON = dict[str, Any]

# What a form can only hold as text.
_NUMBERS = {
    "chat_id",
    "draft_id",
    "limit",
    "max_connections",
    "message_id",
    "message_thread_id",
    "offset",
    "timeout",
}
_FLAGS = {
    "can_stop",
    "disable_notification",
    "drop_pending_updates",
    "keep_on_stop",
    "protect_content",
    "show_alert",
}
_OBJECTS = {
    "allowed_updates",
    "commands",
    "entities",
    "link_preview_options",
    "reply_markup",
    "reply_parameters",
    "scope",
}


class Refusal(Exception):
    """What Telegram answers in place of a result."""

    def __init__(
        self, code: int, description: str, parameters: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.parameters = parameters

    def answer(self) -> web.Response:
        told: JSON = {
            "ok": False,
            "error_code": self.code,
            "description": self.description,
        }
        if self.parameters:
            told["parameters"] = dict(self.parameters)
        return web.json_response(told, status=self.code)


def bad_request(why: str) -> Refusal:
    return Refusal(400, f"Bad Request: {why}")


def too_many_requests(retry_after_s: int) -> Refusal:
    return Refusal(
        429,
        f"Too Many Requests: retry after {retry_after_s}",
        {"retry_after": retry_after_s},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a method, as it came; `at` is the service's clock."""

    method: str
    args: Mapping[str, Any]
    at: float

    @property
    def chat(self) -> int | None:
        chat = self.args.get("chat_id")
        return chat if isinstance(chat, int) else None


@dataclass(frozen=True, slots=True)
class Well:
    """This call goes well; a later one is meant."""


@dataclass(frozen=True, slots=True)
class FloodWait:
    """429: nothing is done, and nothing will be for so long."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Status:
    """A status from the machine in front of Telegram, which speaks no JSON."""

    code: int


@dataclass(frozen=True, slots=True)
class BadRequest:
    """400: nothing is done. The description goes after `Bad Request: `."""

    description: str


@dataclass(frozen=True, slots=True)
class Forbidden:
    """403: nothing is done. The description goes after `Forbidden: `."""

    description: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """409: somebody else is asking for the updates."""


@dataclass(frozen=True, slots=True)
class DropBefore:
    """The connection is cut, and nothing was done."""


@dataclass(frozen=True, slots=True)
class DropAfter:
    """The connection is cut, and all was done."""


@dataclass(frozen=True, slots=True)
class Slow:
    """All is done at once, and the answer comes so much later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing is done and no answer ever comes; the connection stays open."""


@dataclass(frozen=True, slots=True)
class Result:
    """A 200 with this result, whatever the method is; nothing is done."""

    value: Any


@dataclass(frozen=True, slots=True)
class Garbage:
    """A 200 with this body."""

    body: bytes = b'{"ok": tr'


Fault = (
    Well
    | FloodWait
    | Status
    | BadRequest
    | Forbidden
    | Conflict
    | DropBefore
    | DropAfter
    | Slow
    | Hang
    | Result
    | Garbage
)


@dataclass(slots=True)
class Script:
    """The faults to come, in order; one with a chat waits for a call about it."""

    left: list[tuple[str, int | None, Fault]] = field(default_factory=list)

    def add(self, method: str, chat: int | None, faults: tuple[Fault, ...]) -> None:
        self.left += [(method, chat, fault) for fault in faults]

    def next(self, call: Call) -> Fault | None:
        for place, (method, chat, fault) in enumerate(self.left):
            if method == call.method and chat in (None, call.chat):
                del self.left[place]
                return fault
        return None


def refused_by(fault: Fault | None) -> Refusal | None:
    match fault:
        case FloodWait(seconds):
            return too_many_requests(seconds)
        case BadRequest(why):
            return bad_request(why)
        case Forbidden(why):
            return Refusal(403, f"Forbidden: {why}")
        case Conflict():
            return another_poll()
    return None


def another_poll() -> Refusal:
    return Refusal(
        409,
        "Conflict: terminated by other getUpdates request; make sure that only one bot "
        "instance is running",
    )


async def arguments(request: web.Request) -> JSON:
    """Read a call's arguments, each as what the method expects."""
    given: JSON = dict(request.query)
    if request.content_type == "application/json":
        given |= await request.json()
    else:
        given |= await request.post()
    return {name: _value(name, value) for name, value in given.items()}


def _value(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if name in _OBJECTS:
            return json.loads(value)
        if name in _NUMBERS:
            return value if value.startswith("@") else int(value)
    except ValueError as error:
        raise bad_request(f"can't parse {name}") from error
    if name in _FLAGS:
        return value.lower() in ("true", "1", "yes")
    return value
