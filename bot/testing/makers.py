"""
Makers of values for tests: name only what matters, the rest is made up.

Everything made is deterministic; two calls with the same arguments are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bot.model import Address, Candidate, Event, EventKind, Passage, Turn

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def an_address(chat: str = "c1", **more: Any) -> Address:
    return replace(Address(platform="memory", account="a1", chat=chat), **more)


def an_event(text: str = "hello", kind: EventKind = "message", **more: Any) -> Event:
    made = Event(
        id=f"{kind}:{text}", kind=kind, address=an_address(), time=NOON, text=text
    )
    return replace(made, **more)


def a_passage(text: str = "Refunds take five days.", **more: Any) -> Passage:
    return replace(Passage(id="p1", text=text, source="refunds.md"), **more)


def a_turn(
    question: str = "How long does a refund take?",
    passages: Sequence[Passage | str] = (),
    **more: Any,
) -> Turn:
    """Make a turn; passages given as texts get the ids p1, p2, …"""
    made = Turn(
        id="t1",
        message=an_event(question),
        seed=1,
        passages=tuple(
            a_passage(passage, id=f"p{number}") if isinstance(passage, str) else passage
            for number, passage in enumerate(passages, 1)
        ),
    )
    return replace(made, **more)


def a_candidate(
    text: str = "It takes five days.",
    scores: Mapping[str, float] | None = None,
    **more: Any,
) -> Candidate:
    """Make a candidate of the model, with a total that is the sum of its scores."""
    total = sum(scores.values()) if scores else None
    return replace(Candidate(text=text, scores=scores or {}, total=total), **more)
