"""
Trackers: a conversation as Rasa tells it, as a turn of ours.

Pure functions. Knows Rasa's events, and what they take back; not who answers the turn.
Everything in a tracker is a stranger's: what has another type than Rasa's is not there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice

from pydantic import JsonValue

from bot.actions.calls import JsonObject
from bot.actions.state import what_counts
from bot.config import ConversationConfig
from bot.model import Address, Event, EventKind, Turn
from bot.text import cleaned

# Events that are looked at, the latest. Rasa sends all there ever were.
MOST = 1000

PLATFORM = "rasa"

# Rasa's events that are words, or that take words back.
KINDS: Mapping[JsonValue, EventKind] = {
    "user": "message",
    "bot": "reply",
    "action": "action",
    "restart": "restart",
    "rewind": "rewind",
    "undo": "undo",
    "session_started": "session_started",
    "session_ended": "session_ended",
}


def turn_of(tracker: JsonObject, sender: str, settings: ConversationConfig) -> Turn:
    """
    Return the turn that answers the tracker's latest message. It is the same, seed and
    all, for the same message of the same conversation, so a request that comes twice
    has one answer.
    """
    address = Address(platform=PLATFORM, account=PLATFORM, chat=sender, user=sender)
    counting = what_counts(_events(tracker, address))
    places = [at for at, one in enumerate(counting) if one.kind == "message"]
    earlier = counting[: places[-1]] if places else counting
    latest = _part(tracker, "latest_message")
    named = hashlib.sha256(f"{sender} {_told_apart(tracker, latest)}".encode())
    time = counting[places[-1]].time if places else _time(None)
    return Turn(
        id=named.hexdigest()[:16],
        message=Event(
            id=f"{PLATFORM}:{named.hexdigest()[:16]}",
            kind="message",
            address=address,
            time=time,
            text=cleaned(_text(latest, "text")),
        ),
        seed=int.from_bytes(named.digest()[-8:]) >> 1,  # 63 bits, as our own turns'
        history=_window(earlier, settings),
        slots={
            name: value
            for name, value in _part(tracker, "slots").items()
            if value is not None
        },
    )


def _window(events: Sequence[Event], settings: ConversationConfig) -> list[Event]:
    """Return the latest words before the message, oldest first."""
    spoken = (one for one in reversed(events) if one.kind in {"message", "reply"})
    latest = list(islice(spoken, settings.window_events))
    longest = settings.max_message_characters
    return [
        Event(
            id=one.id,
            kind=one.kind,
            address=one.address,
            time=one.time,
            text=cleaned(one.text[:longest]),
        )
        for one in reversed(latest)
    ]


def _events(tracker: JsonObject, address: Address) -> list[Event]:
    events = tracker.get("events")
    latest = events[-MOST:] if isinstance(events, list) else []
    return [
        Event(
            id=f"{PLATFORM}:{number}",
            kind=KINDS[_text(event, "event")],
            address=address,
            time=_time(event.get("timestamp")),
            text=_text(event, "text"),
        )
        for number, event in enumerate(latest)
        if isinstance(event, dict) and _text(event, "event") in KINDS
    ]


def _told_apart(tracker: JsonObject, latest: JsonObject) -> str:
    """Return what only this message of the conversation has."""
    named = _text(latest, "message_id")
    if named:
        return named
    events = tracker.get("events")
    for event in reversed(events if isinstance(events, list) else []):
        if isinstance(event, dict) and event.get("event") == "user":
            return str(event.get("timestamp"))
    return str(tracker.get("latest_event_time"))


def _time(timestamp: JsonValue) -> datetime:
    """Return when something was; 1970 where nobody says so."""
    seconds = timestamp if isinstance(timestamp, int | float) else 0
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):  # years beyond 9999
        return datetime.fromtimestamp(0, UTC)


def _part(whole: JsonObject, name: str) -> JsonObject:
    part = whole.get(name)
    return part if isinstance(part, dict) else {}


def _text(whole: JsonObject, name: str) -> str:
    text = whole.get(name)
    return text if isinstance(text, str) else ""
