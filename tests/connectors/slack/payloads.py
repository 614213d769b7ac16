"""
What Slack sends to an app, and how: a payload, its bytes, and their signature.

Over HTTP an event is JSON, a pressed button a form whose field `payload` is JSON, and a
slash command a plain form; over a socket all three are JSON.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from bot.interfaces import WebRequest
from tests.connectors.slack.blocks import Json

SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # noqa: S105 (of a stand-in)

Kind = Literal["events_api", "interactive", "slash_commands"]

_CONTENT_TYPES = {
    "events_api": "application/json",
    "interactive": "application/x-www-form-urlencoded",
    "slash_commands": "application/x-www-form-urlencoded",
}


@dataclass(frozen=True, slots=True)
class Payload:
    """One thing that Slack tells an app; `content` is the JSON of it."""

    content: Json
    kind: Kind = "events_api"

    @property
    def content_type(self) -> str:
        return _CONTENT_TYPES[self.kind]

    @property
    def body(self) -> bytes:
        match self.kind:
            case "events_api":
                return json.dumps(self.content).encode()
            case "interactive":
                return urlencode({"payload": json.dumps(self.content)}).encode()
            case "slash_commands":
                return urlencode(self.content).encode()

    @property
    def ts(self) -> str:
        """The timestamp of the message that an event tells of."""
        return str(self.content["event"]["ts"])


@dataclass(frozen=True, slots=True)
class Retry:
    """Which time it is told again, and why."""

    number: int
    reason: str = "http_timeout"


def signature(body: bytes, timestamp: str, secret: str = SIGNING_SECRET) -> str:
    """Return what Slack puts into X-Slack-Signature."""
    signed = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def headers_of(
    payload: Payload,
    body: bytes,
    *,
    secret: str | None = SIGNING_SECRET,
    timestamp: str | None = None,
    retry: Retry | None = None,
) -> dict[str, str]:
    """Return the headers of a request; without a secret it is not signed."""
    timestamp = str(int(time.time())) if timestamp is None else timestamp
    headers = {"content-type": payload.content_type, "user-agent": "Slackbot 1.0"}
    if secret is not None:
        headers["x-slack-request-timestamp"] = timestamp
        headers["x-slack-signature"] = signature(body, timestamp, secret)
    if retry is not None:
        headers["x-slack-retry-num"] = str(retry.number)
        headers["x-slack-retry-reason"] = retry.reason
    return headers


def request_of(  # noqa: PLR0913 (what can be wrong with a request)
    payload: Payload,
    *,
    path: str = "/slack/events",
    secret: str | None = SIGNING_SECRET,
    timestamp: str | None = None,
    retry: Retry | None = None,
    body: bytes | None = None,
) -> WebRequest:
    """Return the request as the core hands it to a connector, without any network."""
    body = payload.body if body is None else body
    headers = headers_of(payload, body, secret=secret, timestamp=timestamp, retry=retry)
    return WebRequest(method="POST", path=path, headers=headers, body=body)
