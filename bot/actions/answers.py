"""
What an action answered: JSON of a stranger, read strictly.

An action in this process and one on a server come through here, written the same way,
so that they cannot differ. Knows no way to run one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
from pydantic import JsonValue

from bot.actions.calls import ActionAnswer, JsonObject
from bot.errors import ActionError

LONGEST_BYTES = 2 * 2**20
MOST_EVENTS = 1_000  # of one answer
MOST_RESPONSES = 10_000  # a stream's pieces come as one each
DEEPEST = 100  # lists and objects in each other
LONGEST_PLACE = 80  # characters

# 19 digits in a row may be an integer that 64 bits do not hold.
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19


def written(
    action: str, events: Sequence[JsonObject], responses: Sequence[JsonObject]
) -> bytes:
    """Return the JSON that rasa-sdk's server sends for this; ActionError for none."""
    answer = {"events": events, "responses": responses}
    try:
        return _WRITER.encode(answer).encode()
    # NaN, half a character, a key that is a tuple, a list in itself.
    except (TypeError, ValueError, RecursionError) as error:
        raise _nonsense(action, _culprit(answer) or "it is no JSON") from error


def read(body: bytes) -> Any:
    """
    Return what the JSON says, its integers whole; ValueError when it is none. NaN,
    infinity and half a character are none.
    """
    found = orjson.loads(body)
    # It makes floats of integers that 64 bits do not hold.
    if _LONG in body.translate(_DIGITS):
        return json.loads(body)
    return found


def answer_of(action: str, body: bytes) -> ActionAnswer:
    """Read an answer of rasa-sdk's webhook; ActionError says what is wrong with it."""
    if len(body) > LONGEST_BYTES:
        raise _nonsense(action, f"it is longer than {LONGEST_BYTES} bytes")
    try:
        found = read(body)
    except (ValueError, RecursionError) as error:
        raise _nonsense(action, f"it is no JSON ({error})") from error
    if found is None:
        raise _nonsense(action, "it is null: the server has not understood the call")
    if _is_deep(body, found):
        raise _nonsense(action, f"it is nested deeper than {DEEPEST} levels")
    if not isinstance(found, dict):
        raise _nonsense(action, f"it is {_kind(found)}, not an object")
    events, responses = found.get("events", []), found.get("responses", [])
    for wrong in _wrong_with(events, responses):
        raise _nonsense(action, wrong)
    return ActionAnswer(events=events, responses=list(map(_with_text, responses)))


def holds_json(value: object) -> bool:
    """Tell whether this can be kept as JSON and read again."""
    try:
        read(json.dumps(value).encode())
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _nonsense(action: str, what: str) -> ActionError:
    return ActionError(action, "nonsense", f"its answer is none: {what}")


def _wrong_with(events: JsonValue, responses: JsonValue) -> Iterator[str]:
    """Yield what cannot be read at all; what a response shows is read later."""
    parts = ("events", events, MOST_EVENTS), ("responses", responses, MOST_RESPONSES)
    for name, values, most in parts:
        if not isinstance(values, list):
            yield f"its {name} are {_kind(values)}, not a list"
            return
        if len(values) > most:
            yield f"its {name} are {len(values)}, of which it may have {most}"
        for number, one in enumerate(values):
            if not isinstance(one, dict):
                yield f"{name}[{number}] is {_kind(one)}, not an object"
    for number, event in enumerate(events if isinstance(events, list) else ()):
        kind = event["event"] if isinstance(event, dict) and "event" in event else None
        if not isinstance(kind, str) or not kind:
            yield f"events[{number}] does not say which event it is"


def _with_text(response: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Actions say numbers, too; Rasa sends them on, and people read them."""
    text = response.get("text")
    if isinstance(text, int | float):
        response["text"] = str(text)
    return response


def _kind(value: object) -> str:
    names = {
        type(None): "null",
        bool: "true or false",
        dict: "an object",
        list: "a list",
        str: "a text",
    }
    return names.get(type(value), "a number")


def _is_deep(body: bytes, found: object) -> bool:
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return False
    level, depth = [found], 0
    while level and depth <= DEEPEST:
        level = [one for value in level for one in _inside(value)]
        depth += 1
    return depth > DEEPEST


def _inside(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _culprit(value: object, where: str = "", depth: int = 0) -> str:
    """Say what of a value is no JSON, and where; "" when nothing is."""
    if depth > DEEPEST:
        return f"{where[:LONGEST_PLACE]}… goes on without an end"
    if isinstance(value, Mapping):
        parts = [(f"{where}.{key}".lstrip("."), one) for key, one in value.items()]
        keys = {type(key) for key in value}
        if not keys <= {str, int, float, bool, type(None)}:
            return f"{where} has a key that is no text"
    elif isinstance(value, list | tuple):
        parts = [(f"{where}[{number}]", one) for number, one in enumerate(value)]
    else:
        return _wrong_with_value(value, where)
    return next(filter(None, (_culprit(one, at, depth + 1) for at, one in parts)), "")


def _wrong_with_value(value: object, where: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}, which is no JSON"
    if isinstance(value, str) and not _is_whole(value):
        return f"{where} has half a character"
    if isinstance(value, str | int | float | Decimal | None):
        return ""
    return f"{where} is of the type {type(value).__name__}, which is no JSON"


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_theirs(value: object) -> float:
    # Their server's JSON library writes these; prices come from databases like this.
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


_WRITER = json.JSONEncoder(default=_as_theirs, ensure_ascii=False, allow_nan=False)
