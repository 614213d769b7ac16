"""
States: attempts to install the app, each begun and finished in one browser.

A state is random, good for ten minutes and one use. The browser that asked for it has a
secret as a cookie, of which the shelf keeps a digest under the state's name: who sees
the address, as Slack and every log on the way do, has not seen the secret. Knows
nothing about Slack.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Literal

from bot.interfaces import Shelf, WebRequest

STATE_S = 600
SECRET_BYTES = 32
SECRET_LENGTH = 43  # of as many bytes in Base64


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A new state for the address, and the `Set-Cookie` that goes with it."""

    state: str
    cookie: str


class States:
    """`secure` says that the pages are served by https."""

    def __init__(self, *, secure: bool) -> None:
        # With this prefix no other site of the domain can set it (RFC 6265bis, 4.1.3).
        self._cookie = "__Host-chorus-slack" if secure else "chorus-slack"
        self._secure = "; Secure" if secure else ""

    async def begin(self, request: WebRequest, shelf: Shelf) -> Begun:
        # The one it has already, or a second tab would spoil the first one's state.
        browser = self._browser(request) or secrets.token_urlsafe(SECRET_BYTES)
        state = secrets.token_urlsafe(SECRET_BYTES)
        await shelf.put(_name(state), _digest(browser), ttl_s=STATE_S)
        return Begun(
            state=state,
            cookie=f"{self._cookie}={browser}; Path=/; Max-Age={STATE_S}; HttpOnly; "
            f"SameSite=Lax{self._secure}",
        )

    async def end(
        self, request: WebRequest, shelf: Shelf
    ) -> Literal["good", "over", "elsewhere"]:
        """
        Use a state up, whatever comes of it: it is `over` when it was used before, is
        too old or never was ours, and of `elsewhere` when another browser has it.
        """
        state = request.query.get("state", "")
        kept = await shelf.take(_name(state)) if _is_secret(state) else None
        if kept is None:
            return "over"
        browser = self._browser(request)
        if browser is None or not hmac.compare_digest(kept, _digest(browser)):
            return "elsewhere"
        return "good"

    def _browser(self, request: WebRequest) -> str | None:
        """Return a browser's secret; None for none, or one that we never made."""
        # Not http.cookies, which stops reading at the first cookie it does not like.
        for cookie in request.headers.get("cookie", "").split(";"):
            name, _, secret = cookie.strip().partition("=")
            if name == self._cookie and _is_secret(secret):
                return secret
        return None


def _is_secret(text: str) -> bool:
    plain = text.replace("-", "").replace("_", "")
    return len(text) == SECRET_LENGTH and plain.isascii() and plain.isalnum()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _name(state: str) -> str:
    return f"state {state}"
