"""
Buttons: what is written behind one, and the keyboards that they make.

The service is told a turn and a place, never a payload: 64 bytes would not hold one,
and whoever reads a chat's updates has no business with it. Pure functions.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.model import Button
from connectors.telegram.wire import JSON, a_text, objects

LONGEST_LABEL = 64
MOST = 98  # of 100 that a keyboard holds, two are for feedback

GOOD, BAD = "👍", "👎"
CHOSEN = "✓"

_TURN_LENGTH = 16
_HEX = frozenset(string.hexdigits)
_BUTTON_DIGITS = 3

Keyboard = list[list[Mapping[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """The button at this place under a turn's reply."""

    turn: str
    button: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A judgement of a turn's reply."""

    turn: str
    rating: int


def keyboard(turn: str, buttons: Sequence[Button], *, feedback: bool) -> Keyboard:
    """Lay out a reply's buttons, one below the other, feedback last."""
    rows: Keyboard = [
        [_button(button.text.strip()[:LONGEST_LABEL] or "…", f"b:{turn}:{place}")]
        for place, button in enumerate(buttons[:MOST])
    ]
    if feedback:
        rows.append([_button(GOOD, f"f:+:{turn}"), _button(BAD, f"f:-:{turn}")])
    return rows


def pressed(written: str) -> Press | Feedback | None:
    """Read what is behind a button; None is none of ours."""
    match written.split(":"):
        case ["b", turn, place] if _is_turn(turn) and _is_place(place):
            return Press(turn=turn, button=int(place))
        case ["f", "+" | "-" as sign, turn] if _is_turn(turn):
            return Feedback(turn=turn, rating=1 if sign == "+" else -1)
    return None


def with_choice(shown: JSON, rating: int) -> dict[str, Any] | None:
    """Return the keyboard with this choice marked; None when it is already."""
    there = shown.get("inline_keyboard")
    rows = [
        [_marked(button, rating) for button in objects(row)]
        for row in (there if isinstance(there, list) else ())
    ]
    marked = {"inline_keyboard": rows}
    return None if marked == shown else marked


def _marked(button: JSON, rating: int) -> JSON:
    press = pressed(a_text(button.get("callback_data")))
    if not isinstance(press, Feedback):
        return button
    label = GOOD if press.rating > 0 else BAD
    is_chosen = press.rating == rating
    return {**button, "text": f"{label} {CHOSEN}" if is_chosen else label}


def _button(text: str, written: str) -> Mapping[str, str]:
    return {"text": text, "callback_data": written}


def _is_turn(text: str) -> bool:
    return len(text) == _TURN_LENGTH and _HEX.issuperset(text)


def _is_place(text: str) -> bool:
    short = len(text) <= _BUTTON_DIGITS
    return short and text.isascii() and text.isdigit()
