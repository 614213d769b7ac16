"""
Payloads: what Slack sent, read with care.

Everything in a payload is a stranger's word, so each getter returns what was asked for
or nothing. Knows the shapes of Slack's JSON, not what they mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

LONGEST_ID = 64
LONGEST_STAMP = 20  # digits, a dot and digits

Payload = Mapping[str, Any]

_NOTHING: Payload = {}


def part(payload: Payload, name: str) -> Payload:
    """Return an object inside, an empty one where there is none."""
    found = payload.get(name)
    return found if isinstance(found, dict) else _NOTHING


def items(payload: Payload, name: str) -> list[Payload]:
    """Return the objects of a list inside."""
    found = payload.get(name)
    if not isinstance(found, list):
        return []
    return [one for one in found if isinstance(one, dict)]


def text_in(payload: Payload, name: str) -> str:
    found = payload.get(name)
    return found if isinstance(found, str) else ""


def id_in(payload: Payload, *names: str) -> str | None:
    """Return the first of these that is an id, such as a channel's or a team's."""
    for name in names:
        found = payload.get(name)
        if isinstance(found, str) and is_id(found):
            return found
    return None


def is_id(text: str) -> bool:
    plain = text.replace("_", "").replace("-", "")
    return len(text) <= LONGEST_ID and plain.isascii() and plain.isalnum()


def stamp_in(payload: Payload, *names: str) -> str | None:
    """Return the first of these that is a time stamp, which is how messages go by."""
    for name in names:
        found = payload.get(name)
        if isinstance(found, str) and is_stamp(found):
            return found
    return None


def is_stamp(text: str) -> bool:
    whole, _, rest = text.partition(".")
    digits = whole + rest
    return len(text) <= LONGEST_STAMP and digits.isascii() and digits.isdigit()


def time_of(stamp: str | None, now: datetime) -> datetime:
    """Return when a message was written; `now` where its stamp is no time of ours."""
    if stamp is None:
        return now
    try:
        return datetime.fromtimestamp(float(stamp), UTC)
    except (ValueError, OverflowError, OSError):
        return now


def account_of(payload: Payload) -> str | None:
    """
    Return the team that installed the app, or the organisation that installed it for
    all its teams. Somebody in a shared channel may be of another team, which is what
    `team_id` names then, so `authorizations` comes first.
    """
    for authorization in items(payload, "authorizations"):
        if authorization.get("is_enterprise_install") is True:
            return id_in(authorization, "enterprise_id")
        return id_in(authorization, "team_id", "enterprise_id")
    organisation = id_in(part(payload, "enterprise"), "id")
    organisation = organisation or id_in(payload, "enterprise_id")
    # Buttons say it as a truth value, slash commands as a word.
    if payload.get("is_enterprise_install") in (True, "true"):
        return organisation
    return (
        # A message of ours was sent by the team whose token sent it.
        id_in(part(payload, "message"), "team")
        or id_in(payload, "team_id")
        or id_in(part(payload, "team"), "id")
        or organisation
    )


def digest(*said: str) -> str:
    """Return a name for what has no id: the same for the same content."""
    joined = "\n".join(said).encode(errors="replace")
    return hashlib.sha256(joined).hexdigest()[:24]
