"""What can be told to go wrong with one call of the Web API."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RateLimited:
    """429 with Retry-After; nothing is done."""

    seconds: int = 1


@dataclass(frozen=True, slots=True)
class Error:
    """`"ok": false` with this code; nothing is done."""

    code: str
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """Slack's front end is unwell: a page of HTML with this status; nothing is done."""

    code: int = 502


@dataclass(frozen=True, slots=True)
class DropBefore:
    """The connection is lost, and nothing is done."""


@dataclass(frozen=True, slots=True)
class DropAfter:
    """It is done, and the connection is lost before anybody is told."""


@dataclass(frozen=True, slots=True)
class ErrorAfter:
    """It is done, and Slack says all the same that it was not."""

    code: str = "internal_error"


@dataclass(frozen=True, slots=True)
class Garbled:
    """It is done, and the answer is cut off in the middle of its JSON."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The client is led on to another address; nothing is done."""

    url: str


@dataclass(frozen=True, slots=True)
class Slow:
    """It takes so long, then it is done."""

    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """It waits until `go` is set; `came` says that it waits."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    came: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Fine:
    """Nothing goes wrong this time: the next one in line is for the next call."""


Fault = (
    RateLimited
    | Error
    | Status
    | DropBefore
    | DropAfter
    | ErrorAfter
    | Garbled
    | Redirect
    | Slow
    | Held
    | Fine
)
