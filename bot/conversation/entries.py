"""
What the scripts take and return, as bytes, and what it means, as frozen data.

Entries of lanes and outboxes are a turn's id, milliseconds, JSON. Knows no Redis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from bot.conversation.scripts import TIME_LENGTH, TURN_LENGTH
from bot.conversation.state import (
    EVENTS,
    REPLIES,
    SLOTS,
    Begun,
    Outgoing,
    State,
    Unwritable,
    Waiting,
)


def begun(answer: Sequence[Any]) -> Begun:
    _, attempts, stop, now, messages, events, slots = answer
    since = int(messages[0][TURN_LENGTH : TURN_LENGTH + TIME_LENGTH])
    waiting = list(map(_waiting, messages))
    return Begun(
        messages=waiting,
        attempts=int(attempts),
        stop=stop is not None and stop.decode() == waiting[0].turn_id,
        waited_s=max(0, int(now) - since) / 1000,
        state=state(events, dict(zip(slots[::2], slots[1::2], strict=True))),
    )


def _waiting(entry: bytes) -> Waiting:
    return Waiting(
        turn_id=entry[:TURN_LENGTH].decode(),
        event=EVENTS.read(entry[TURN_LENGTH + TIME_LENGTH :]),
    )


def state(events: Sequence[bytes], slots: Mapping[bytes, bytes]) -> State:
    return State(
        history=[EVENTS.read(event) for event in events],
        slots={name.decode(): SLOTS.read(value) for name, value in slots.items()},
    )


def outgoing(answer: Sequence[Any]) -> Outgoing | None:
    if answer[0] != b"open":
        return None
    _, head, doubt, tries = answer
    return Outgoing(
        undelivered=REPLIES.read(head[TURN_LENGTH + TIME_LENGTH :]),
        doubtful=doubt == b"1",
        tries=int(tries),
    )


def slot_args(slots: Mapping[str, JsonValue]) -> Iterator[str | bytes]:
    for name, value in slots.items():
        yield _name(name)
        yield b"" if value is None else SLOTS.write(value)


def _name(slot: str) -> bytes:
    try:
        return slot.encode()
    except UnicodeEncodeError as error:
        raise Unwritable(f"slot {slot!r}: the name is not valid Unicode") from error
