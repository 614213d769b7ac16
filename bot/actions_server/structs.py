"""
Structs: what gRPC makes of Rasa's JSON, made back into it.

A protobuf Struct has one kind of number, so an order's `5` arrives as `5.0`; and a
domain's lists of names arrive as lists of messages. Knows nothing else of gRPC.

The rule for numbers: a whole one becomes an integer, wherever it stands, but for
- the value of a slot that the domain declares as `float`, in `tracker.slots`, in slot
  events and in the domain itself;
- `confidence` and its like, and times, which Rasa always has as floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from bot.actions.calls import JsonObject

# 2^53: what a float holds to the unit.
EXACT = 9_007_199_254_740_992

# Rasa's own floats, by their names.
FLOATS = frozenset(
    {
        "confidence",
        "confidence_entity",
        "confidence_group",
        "confidence_role",
        "latest_event_time",
        "score",
        "timestamp",
    }
)

# Where a domain lists names, or objects with a name each.
NAMED = ("intents", "entities", "actions")


def as_json(request: JsonObject) -> dict[str, JsonValue]:
    """Return a request that came by gRPC as the one that HTTP would have brought."""
    domain = _object(request.get("domain"))
    declared = _object(domain.get("slots"))
    floats = frozenset(
        name for name, slot in declared.items() if _object(slot).get("type") == "float"
    )
    tracker = _object(request.get("tracker"))
    return {
        **request,
        "tracker": {
            **_whole_object(tracker),
            "slots": _slots(_object(tracker.get("slots")), floats),
            "events": [_event(one, floats) for one in _list(tracker.get("events"))],
        },
        "domain": {
            **_whole_object(domain),
            **{name: _named(domain[name]) for name in NAMED if name in domain},
            "slots": _slots(declared, floats),
        }
        if domain
        else {},
    }


def _slots(slots: JsonObject, floats: Iterable[str]) -> dict[str, JsonValue]:
    return {
        name: value if name in floats else whole(value) for name, value in slots.items()
    }


def _event(event: JsonValue, floats: frozenset[str]) -> JsonValue:
    """Leave the value of a slot of floats alone."""
    written = whole(event)
    if isinstance(written, dict) and isinstance(event, dict):
        of_floats = event.get("event") == "slot" and event.get("name") in floats
        if of_floats and "value" in event:
            written["value"] = event["value"]
    return written


def whole(value: JsonValue) -> JsonValue:
    """Return a value with its whole numbers as integers."""
    match value:
        case float() if value.is_integer() and abs(value) <= EXACT:
            return int(value)
        case list():
            return [whole(one) for one in value]
        case dict():
            return _whole_object(value)
    return value


def _whole_object(value: JsonObject) -> dict[str, JsonValue]:
    return {name: one if name in FLOATS else whole(one) for name, one in value.items()}


def _named(names: JsonValue) -> list[JsonValue]:
    """Return names as Rasa writes them: a text, or an object of one name."""
    return [_name(one) for one in _list(names)]


def _name(named: JsonValue) -> JsonValue:
    one = _object(named)
    return (
        one["string_value"] if "string_value" in one else whole(one.get("dict_value"))
    )


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
