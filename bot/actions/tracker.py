"""
The tracker that actions are given: our log and our state, in Rasa's words.

Pure functions; what they make has the fields that Rasa 3.6 was seen to send. Knows
nothing about how an action is reached.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import orjson
from pydantic import JsonValue

from bot.actions.calls import JsonObject
from bot.actions.rules import Understood, understood
from bot.actions.state import REQUESTED, DialogueState
from bot.model import Event, Turn

LISTENS = "action_listen"  # what Rasa does before every message
_FROM_CUSTOMERS = frozenset({"message", "command", "intent"})
_OURS = frozenset({"button", "cancel", "feedback"})  # Rasa has no word for them

# From a letter or digit to the last one before a space, as Rasa's tokenizer cuts them.
_WORD = re.compile(r"\w(?:\S*\w)?")

# What a bot's message may have beside its text.
_SHOWN = ("elements", "quick_replies", "buttons", "attachment", "image", "custom")


def events_of(history: Sequence[Event]) -> list[JsonObject]:
    """
    Return the log as Rasa's events, oldest first, with those that were taken back:
    rasa-sdk leaves them out itself (`Tracker.applied_events`).
    """
    return [_event(event) for event in history if event.kind not in _OURS]


def request(
    name: str, turn: Turn, state: DialogueState, domain: bytes, customer: Understood
) -> bytes:
    """
    Return the body of rasa-sdk's webhook. `domain` is `domain_of` as JSON, `customer`
    what the turn's message says; `state.events` end with what happened in this turn.

    The message's `message_id` is our event's id, the same however often its turn is
    tried: an action can use it as an idempotency key.
    """
    call = {
        "next_action": name,
        "sender_id": turn.message.address.key,
        "version": _version(),
        "tracker": _tracker(turn, state, domain, customer),
    }
    return b'{"domain":%b,%b' % (domain, as_json(call)[1:])


def as_json(value: Mapping[str, Any]) -> bytes:
    """Return the value as JSON; half a character becomes a question mark."""
    try:
        return orjson.dumps(value, default=_plain)
    # Half a character, or an integer of more than 64 bits: rare, and slower.
    except TypeError:
        made = json.dumps(value, default=_plain, ensure_ascii=False)
        return made.encode(errors="replace")


def _tracker(
    turn: Turn, state: DialogueState, domain: bytes, customer: Understood
) -> dict[str, Any]:
    latest = _latest_action(state.events)
    return {
        "sender_id": turn.message.address.key,
        "slots": {**_first_values(domain), **state.slots},
        "latest_message": {
            **_parsed(turn.message, customer),
            "text_tokens": _words(customer.text),
        },
        "latest_event_time": _latest_time(turn, state.events),
        "followup_action": None,
        "paused": False,
        "events": state.events,
        "latest_input_channel": turn.message.address.platform,
        "active_loop": _active_loop(state),
        "latest_action": {"action_name": latest},
        "latest_action_name": latest,
        "stack": [],
        "user_id": None,
    }


@lru_cache(maxsize=8)  # an assistant has one domain
def _first_values(domain: bytes) -> Mapping[str, JsonValue]:
    """Return all slots with what they hold at first, those that Rasa adds included."""
    slots = orjson.loads(domain).get("slots", {})
    first = {name: slot.get("initial_value") for name, slot in slots.items()}
    return {**first, REQUESTED: None, "session_started_metadata": None}


def _active_loop(state: DialogueState) -> JsonObject:
    if state.loop is None:
        return {}
    return {
        "name": state.loop,
        "is_interrupted": state.interrupted,
        "rejected": False,
        "trigger_message": None,
    }


def _latest_action(events: Sequence[JsonObject]) -> str:
    for event in reversed(events):
        if event.get("event") == "user":
            break
        name = event.get("name")
        if event.get("event") == "action" and isinstance(name, str):
            return name
    return LISTENS


def _latest_time(turn: Turn, events: Sequence[JsonObject]) -> JsonValue:
    timestamp = events[-1].get("timestamp") if events else None
    return turn.message.time.timestamp() if timestamp is None else timestamp


def _event(event: Event) -> JsonObject:
    if event.kind in _FROM_CUSTOMERS:
        return _user_event(event)
    if event.kind == "reply":
        return _bot_event(event)
    fields = {name: value for name, value in event.data.items() if name != "turn"}
    if event.kind == "agent":
        fields["text"] = event.text
    if event.kind == "action":
        fields = {"policy": None, "confidence": None, **fields}
    return {**fields, "event": event.kind, "timestamp": event.time.timestamp()}


def _user_event(event: Event) -> JsonObject:
    # A message is not read again: it was cleaned when it came, and names no intent.
    is_message = event.kind == "message"
    said = Understood(text=event.text) if is_message else understood(event)
    parsed = _parsed(event, said)
    own = event.data.get("parse_data")  # an action put words into somebody's mouth
    return {
        "event": "user",
        "timestamp": event.time.timestamp(),
        "metadata": parsed["metadata"],
        "text": parsed["text"],
        "parse_data": own if isinstance(own, dict) else parsed,
        "input_channel": event.address.platform,
        "message_id": parsed["message_id"],
    }


def _bot_event(event: Event) -> JsonObject:
    shown, metadata = event.data.get("data"), event.data.get("metadata")
    return {
        "event": "bot",
        "timestamp": event.time.timestamp(),
        "metadata": metadata if isinstance(metadata, dict) else dict(event.data),
        "text": event.text,
        "data": shown if isinstance(shown, dict) else dict.fromkeys(_SHOWN),
    }


def _parsed(event: Event, said: Understood) -> dict[str, JsonValue]:
    """Return a message as Rasa's NLU hands it on; a reminder has no words."""
    intent = said.intent or said.command
    is_reminder = event.kind == "intent"
    return {
        "intent": {"name": intent, "confidence": 1.0 if intent else 0.0},
        "entities": [
            {"entity": name, "value": value} for name, value in said.entities.items()
        ],
        "text": f"EXTERNAL: {intent}" if is_reminder else said.text,
        "message_id": event.id,
        "metadata": {**({"is_external": True} if is_reminder else {}), **event.data},
    }


def _words(text: str) -> list[JsonValue]:
    """Say where words begin and end, as Rasa does; of older messages nobody asks."""
    return [[word.start(), word.end()] for word in _WORD.finditer(text)]


def _plain(value: object) -> JsonValue:
    """Our values may be mappings and sequences that are no dict and no list."""
    match value:
        case Mapping():
            return dict(value)
        case Sequence():
            return list(value)
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON")


@cache
def _version() -> str:
    # rasa-sdk warns of callers of another version than its own.
    return version("rasa-sdk")
