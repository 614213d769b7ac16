"""
What bench `connectors` sends: customers' messages as Slack and Telegram post them.

Each conversation is a direct message with a customer of its own, its messages numbered.
Knows no connector: these are the services' own forms.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from bot.evaluation.bench_connectors_service import BOT_USER, TEAM

SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # noqa: S105 (of nobody's app)
SECRET_TOKEN = "bench"  # noqa: S105 (of nobody's bot)

_TEXT = "Can a bicycle that I bought three weeks ago still be returned to a shop?"


class Posts(Protocol):
    """A service's way to post a message: `path`, headers and body."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    def post(self, conversation: int, number: int) -> tuple[Mapping[str, str], bytes]:
        """Return the headers and the body of a conversation's message."""
        ...


def text_of(conversation: int, number: int) -> str:
    return f"{conversation} {number}: {_TEXT}"


@dataclass(frozen=True, slots=True)
class SlackPosts:
    """Events API, signed when they are made, as Slack signs them when it sends."""

    name: str = "Slack"
    path: str = "/slack/events"

    def post(self, conversation: int, number: int) -> tuple[Mapping[str, str], bytes]:
        ts = f"{1_700_000_000 + number}.{conversation:06d}"
        body = orjson.dumps(
            {
                "token": "x",
                "team_id": TEAM,
                "api_app_id": "A0BENCH",
                "event": {
                    "type": "message",
                    "channel": f"D{conversation:08d}",
                    "channel_type": "im",
                    "user": f"U{conversation:08d}",
                    "team": TEAM,
                    "text": text_of(conversation, number),
                    "ts": ts,
                    "event_ts": ts,
                    "client_msg_id": f"{conversation}-{number}",
                    "blocks": [
                        {
                            "type": "rich_text",
                            "block_id": "b",
                            "elements": [
                                {
                                    "type": "rich_text_section",
                                    "elements": [{"type": "text", "text": _TEXT}],
                                }
                            ],
                        }
                    ],
                },
                "type": "event_callback",
                "event_id": f"Ev{conversation}x{number}",
                "event_time": 1_700_000_000 + number,
                "authorizations": [
                    {
                        "enterprise_id": None,
                        "team_id": TEAM,
                        "user_id": BOT_USER,
                        "is_bot": True,
                        "is_enterprise_install": False,
                    }
                ],
                "is_ext_shared_channel": False,
                "event_context": "4-x",
            }
        )
        return {"Content-Type": "application/json", **signature(body)}, body


@dataclass(frozen=True, slots=True)
class TelegramPosts:
    """Updates, as a webhook is given them."""

    name: str = "Telegram"
    path: str = "/telegram/webhook"

    def post(self, conversation: int, number: int) -> tuple[Mapping[str, str], bytes]:
        person = {
            "id": 1000 + conversation,
            "is_bot": False,
            "first_name": "Customer",
            "language_code": "en",
        }
        body = orjson.dumps(
            {
                "update_id": 1_000_000 * conversation + number,
                "message": {
                    "message_id": number,
                    "from": person,
                    "chat": {**person, "type": "private"},
                    "date": 1_700_000_000 + number,
                    "text": text_of(conversation, number),
                },
            }
        )
        return {
            "Content-Type": "application/json",
            "X-Telegram-Bot-Api-Secret-Token": SECRET_TOKEN,
        }, body


def signature(body: bytes) -> Mapping[str, str]:
    """Sign a body as Slack does: HMAC-SHA256 of `v0:{time}:{body}`."""
    now = str(int(time.time()))
    signed = hmac.new(
        SIGNING_SECRET.encode(), b"v0:%b:%b" % (now.encode(), body), hashlib.sha256
    )
    return {
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": f"v0={signed.hexdigest()}",
    }
