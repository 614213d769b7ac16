"""
Requests: Slack's HTTP, checked before it is read.

Events come as JSON, pressed buttons and slash commands as forms, all to one path. The
signature is over the bytes as they came, and nothing of them is looked at before it
holds. Answers 200 once everything is taken, 401 to strangers, 400 to what is no request
of Slack's, 503 where Slack has to come again. Knows nothing about what is told.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import parse_qs

import orjson

from bot.errors import DeliveryError
from bot.interfaces import WebRequest, WebResponse
from connectors.slack.intake import Kind
from connectors.slack.payloads import Payload

WINDOW_S = 5 * 60
LONGEST_TIMESTAMP = 12
MOST_FIELDS = 100  # of a form; a slash command has about fifteen
LONGEST_CHALLENGE = 1000
AGAIN_S = "1"


class Takes(Protocol):
    async def take(self, kind: Kind, payload: Payload) -> None: ...


class Requests:
    """Answers the requests of one app; `clock` is the time of day in seconds."""

    def __init__(
        self, signing_secret: str, takes: Takes, clock: Callable[[], float]
    ) -> None:
        self._secret = signing_secret.encode()
        self._takes = takes
        self._clock = clock

    async def respond(self, request: WebRequest) -> WebResponse:
        if request.method != "POST":
            return WebResponse(status=405, headers={"Allow": "POST"})
        if not self._is_signed(request):
            return WebResponse(status=401)
        try:
            kind, payload = _read(request)
        except ValueError:
            return WebResponse(status=400)
        if payload.get("type") == "url_verification":
            return _verification(payload)
        try:
            await self._takes.take(kind, payload)
        except DeliveryError:
            return WebResponse(status=503, headers={"Retry-After": AGAIN_S})
        return WebResponse()

    def _is_signed(self, request: WebRequest) -> bool:
        """Whether Slack sent these bytes, and lately: what is old may be a replay."""
        timestamp = request.headers.get("x-slack-request-timestamp", "")
        signature = request.headers.get("x-slack-signature", "")
        if not (timestamp.isascii() and timestamp.isdigit()):
            return False
        if len(timestamp) > LONGEST_TIMESTAMP:
            return False
        if abs(self._clock() - int(timestamp)) > WINDOW_S:
            return False
        signed = b"v0:%s:%s" % (timestamp.encode(), request.body)
        expected = "v0=" + hmac.new(self._secret, signed, hashlib.sha256).hexdigest()
        return hmac.compare_digest(
            expected.encode(), signature.encode(errors="replace")
        )


def _read(request: WebRequest) -> tuple[Kind, Payload]:
    """Return what kind of payload it is, and the payload; a ValueError: neither."""
    content_type = request.headers.get("content-type", "").partition(";")[0]
    match content_type.strip().lower():
        case "application/json":
            return "events_api", _object(request.body)
        case "application/x-www-form-urlencoded":
            form = _form(request.body)
            if "payload" in form:
                return "interactive", _object(form["payload"])
            return "slash_commands", form
    raise ValueError(content_type)


def _object(told: bytes | str) -> Payload:
    # orjson's JSONDecodeError, for deep nesting too, is a ValueError.
    read: Any = orjson.loads(told)
    if not isinstance(read, dict):
        raise ValueError  # noqa: TRY004 (it is the value that is wrong, not our types)
    return read


def _form(body: bytes) -> dict[str, str]:
    fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    return {name: values[-1] for name, values in fields.items()}


def _verification(payload: Payload) -> WebResponse:
    """Say back what Slack said when the operator entered the address."""
    challenge = payload.get("challenge")
    if not isinstance(challenge, str) or len(challenge) > LONGEST_CHALLENGE:
        return WebResponse(status=400)
    return WebResponse(
        body=challenge.encode(errors="replace"),
        headers={"Content-Type": "text/plain; charset=utf-8"},
    )
