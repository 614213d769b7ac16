"""
Outcomes: what an error of the library says about the call that it ended.

Each class of the library has its line here (a test counts them). What matters is
whether the service did what it was asked: it certainly did not, or nobody can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import httpx
from telegram import error

Kind = Literal["later", "moved", "lost", "refused", "unknown"]

# Nothing changes there until the operator does something.
TOKEN_S = 60.0
# The service is being restarted, or is not reached.
AWAY_S = 3.0

_LONGEST_TOLD = 200

_OF_A_PREVIEW = ("url", "webpage", "web page", "link preview", "link_preview")

# Raised before a byte of the request was written.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class Unavailable(error.NetworkError):
    """The service answered that it did nothing: a 5xx, or a machine in front of it."""


class FloodWait(error.NetworkError):
    """
    The service wants nothing more for so long. In place of the library's RetryAfter,
    which cannot be made without a warning of what its next version will change.
    """

    def __init__(self, after_s: float) -> None:
        super().__init__(f"Too many requests; again in {after_s:g} s")
        self.after_s = after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """
    `later`: not done, and may be tried again (`after_s`, where that is known). `moved`:
    not done, the chat has the id `moved_to`. `lost`: not done, the bot may not write
    there. `refused`: not done, and never will be. `unknown`: nobody can tell.
    """

    kind: Kind
    told: str
    after_s: float | None = None
    moved_to: str | None = None


_KINDS: Mapping[type[error.TelegramError], Kind] = {
    error.TelegramError: "unknown",  # an answer that cannot be read, say
    error.NetworkError: "unknown",
    error.TimedOut: "unknown",
    Unavailable: "later",
    FloodWait: "later",
    error.RetryAfter: "later",
    error.Conflict: "later",
    error.InvalidToken: "later",  # the operator puts in another one
    error.EndPointNotFound: "refused",
    error.BadRequest: "refused",
    error.PassportDecryptionError: "refused",
    error.Forbidden: "lost",
    error.ChatMigrated: "moved",
}


def failure(raised: error.TelegramError) -> Failure:
    """Say what an error means."""
    failed = Failure(
        kind=_KINDS.get(type(raised), "unknown"), told=str(raised)[:_LONGEST_TOLD]
    )
    match raised:
        case FloodWait():
            return replace(failed, after_s=raised.after_s)
        case Unavailable() | error.InvalidToken():
            is_away = isinstance(raised, Unavailable)
            return replace(failed, after_s=AWAY_S if is_away else TOKEN_S)
        case error.ChatMigrated():
            return replace(failed, moved_to=str(raised.new_chat_id))
        case error.Forbidden() if not failed.told.startswith("Forbidden: "):
            # A wall on the way says 403, too, and knows nothing about the chat.
            return replace(failed, kind="later", after_s=AWAY_S)
    if failed.kind == "unknown" and isinstance(raised.__cause__, _NOT_SENT):
        return replace(failed, kind="later", after_s=AWAY_S)
    return failed


def is_unchanged(failed: Failure) -> bool:
    """Whether an edit was refused because there was nothing to change."""
    return failed.kind == "refused" and "not modified" in failed.told.lower()


def is_about_format(failed: Failure) -> bool:
    """Whether the entities were refused; without them the text will pass."""
    return failed.kind == "refused" and "entit" in failed.told.lower()


def is_about_preview(failed: Failure) -> bool:
    """Whether a preview's address was refused; without it the text will pass."""
    told = failed.told.lower()
    return failed.kind == "refused" and any(word in told for word in _OF_A_PREVIEW)
