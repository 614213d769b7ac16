"""
Refusals: what Slack's error codes mean, in words that an operator can act on.

Knows no calls. What is not listed is said with its code and is final.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bot.errors import DeliveryError

REINSTALL = "OAuth & Permissions > Scopes > Bot Token Scopes, then reinstall the app"

# Where in a call something is: `[json-pointer:/blocks/0/image_url]`.
_POINTER = re.compile(r"\[json-pointer:([a-z0-9_/]{1,100})\]")

# Slack's own trouble, over before long, with nothing done.
_PASSING = frozenset(
    {"service_unavailable", "request_timeout", "team_added_to_org", "accesslimited"}
)
_REPLACE_IT = (
    "Slack does not accept the token (any more); install the app again and put the "
    "Bot User OAuth Token of OAuth & Permissions in its place"
)
_TOLD: Mapping[str, str] = {
    "not_in_channel": "the bot is not in the channel; invite it with /invite @its-name",
    "channel_not_found": "the bot sees no such channel; invite it with "
    "/invite @its-name if it is a private one",
    "is_archived": "the channel is archived; unarchive it, or write elsewhere",
    "thread_not_found": "the thread is gone; ask again in the channel",
    "message_not_found": "the message is gone; somebody deleted it",
    "restricted_action": "the workspace does not let the bot post there; ask its "
    "administrator to allow it in the channel's settings",
    "invalid_auth": _REPLACE_IT,
    "not_authed": _REPLACE_IT,
    "account_inactive": _REPLACE_IT,
    "token_revoked": _REPLACE_IT,
    "token_expired": _REPLACE_IT,
    "not_allowed_token_type": "it takes another kind of token; use the Bot User OAuth "
    "Token, it begins with xoxb-",
    "ekm_access_denied": "the workspace's administrators suspended the app; ask them",
}
# Something in the blocks is not as Slack takes it, or a picture cannot be fetched.
# https://github.com/slackapi/java-slack-sdk/issues/1396
ABOUT_BLOCKS = frozenset(
    {
        "block_mismatch",
        "invalid_blocks",
        "invalid_blocks_format",
        "invalid_payload",
        "msg_blocks_too_long",
    }
)
# What another try with the same token cannot change.
DENIED = frozenset(
    {
        "missing_scope",
        "not_allowed_token_type",
        "unknown_method",
        "method_not_supported_for_channel_type",
        "feature_not_enabled",
        "not_allowed",
        "access_denied",
        "no_permission",
        "team_access_not_granted",
        "assistant_not_enabled",
        "agent_not_enabled",
    }
)


class Refused(DeliveryError):
    """Slack said no, and did nothing; `code` is its word for why."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        retryable: bool,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable, retry_after_s=retry_after_s)
        self.code = code


def refusal(method: str, code: str, answer: Mapping[str, Any]) -> Refused:
    told = _TOLD.get(code, f"Slack refused it with {code!r}; see {_page(method)}")
    if code == "missing_scope":
        needed = str(answer.get("needed") or "a scope that Slack does not name")
        told = f"the token lacks {needed}; add it under {REINSTALL}"
    if code in ABOUT_BLOCKS:
        told = f"Slack does not take the blocks ({code}{_where(answer)})"
    if code in _PASSING:
        told = f"Slack cannot do it just now ({code}); it is tried again by itself"
    return Refused(f"slack: {method}: {told}", code=code, retryable=code in _PASSING)


def _where(answer: Mapping[str, Any]) -> str:
    """
    Say at which block it is, of what Slack tells: the rest may quote the message.
    """
    told = answer.get("errors")
    first = told[0] if isinstance(told, list) and told else None
    found = _POINTER.search(first) if isinstance(first, str) else None
    return f" at {found[1]}" if found else ""


def _page(method: str) -> str:
    return f"https://docs.slack.dev/reference/methods/{method}"
