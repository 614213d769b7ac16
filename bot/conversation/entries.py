"""
What the scripts take and return, as bytes, and what it means, as frozen data.

Entries of lanes and outboxes are a turn's id, milliseconds, JSON. Knows no Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import JsonValue

from bot.conversation.scripts import TIME_LENGTH, TURN_LENGTH
from bot.conversation.state import (
    EVENTS,
    REPLIES,
    SLOTS,
    Begun,
    Cancel,
    Handed,
    Json,
    Kept,
    Outgoing,
    Reminder,
    State,
    Unreadable,
    Unwritable,
    Waiting,
    canonical,
    turn_id,
)
from bot.model import Address, Event

logger = logging.getLogger(__name__)

HANDED = ("handed", "handed_last", "handed_why")  # what `handed` reads, in its order


def begun(answer: Sequence[Any], conversation: str) -> Begun:
    (
        _,
        attempts,
        stop,
        orphaned,
        now,
        messages,
        events,
        slots,
        handed_over,
        acting,
    ) = answer
    since = int(messages[0][TURN_LENGTH : TURN_LENGTH + TIME_LENGTH])
    waiting = [_waiting(entry, conversation) for entry in messages]
    return Begun(
        messages=waiting,
        attempt=int(attempts or 0) + (orphaned is not None),
        orphaned=orphaned is not None,
        stop=_is(waiting[0], stop),
        waited_s=max(0, int(now) - since) / 1000,
        state=state(events, dict(zip(slots[::2], slots[1::2], strict=True))),
        handed=handed(handed_over, int(now)),
        acting=_is(waiting[0], acting),
    )


def _is(waiting: Waiting, turn: bytes | None) -> bool:
    return turn is not None and turn.decode() == waiting.turn_id


def handed(fields: Sequence[bytes | None], now: int) -> Handed | None:
    """Read the fields `HANDED` of a conversation; `now` are milliseconds."""
    since, last, why = (field or b"" for field in fields)
    if not since:
        return None
    return Handed(
        since=since.decode(),
        since_s=max(0, now - int(since)) / 1000,
        why=why.decode(errors="replace"),
        quiet_s=max(0, now - int(last)) / 1000,
    )


def _waiting(entry: bytes, conversation: str) -> Waiting:
    turn = entry[:TURN_LENGTH].decode()
    try:
        event = EVENTS.read(entry[TURN_LENGTH + TIME_LENGTH :])
    except Unreadable:
        nothing = Event(
            id=turn,
            kind="message",
            address=Address.from_key(conversation),
            time=datetime.now(UTC),
        )
        return Waiting(turn_id=turn, event=nothing, readable=False)
    return Waiting(turn_id=turn, event=event)


def state(events: Sequence[bytes], slots: Mapping[bytes, bytes]) -> State:
    """Return the state; what another version wrote is left out, and said so."""
    return State(
        history=[event for one in events for event in _read(EVENTS, one)],
        slots={
            name.decode(): value
            for name, one in slots.items()
            for value in _read(SLOTS, one)
        },
    )


def _read(json: Json[Kept], written: bytes) -> Iterator[Kept]:
    try:
        yield json.read(written)
    except Unreadable as error:
        logger.warning("a part of a conversation is left out: %s", error)


def ratings(judged: Mapping[bytes, bytes]) -> list[int]:
    """Return each person's last word on a turn, 1 or -1."""
    return [int(word) for name, word in judged.items() if name.startswith(b"p:")]


def outgoing(answer: Sequence[Any]) -> Outgoing | None:
    if answer[0] != b"open":
        return None
    _, head, doubt, tries, age_ms = answer
    return Outgoing(
        undelivered=REPLIES.read(head[TURN_LENGTH + TIME_LENGTH :]),
        doubtful=doubt == b"1",
        tries=int(tries),
        age_s=max(0, age_ms) / 1000,
    )


def slot_args(slots: Mapping[str, JsonValue]) -> Iterator[str | bytes]:
    for name, value in slots.items():
        yield _name(name)
        yield b"" if value is None else SLOTS.write(value)


def reminder_args(reminder: Reminder) -> Sequence[str | bytes | int]:
    """Return its name, when it is due in ms, and its lines: see scripts.py."""
    event = reminder.event
    lines = (
        b"1" if reminder.kill_on_user_message else b"0",
        str(reminder.due_ms).encode(),
        turn_id(event).encode(),
        orjson.dumps(reminder.intent),
        canonical(reminder.entities).encode(),
        EVENTS.write(event),
    )
    return [reminder.name, reminder.due_ms, b"\n".join(lines)]


def cancel_args(cancel: Cancel) -> Sequence[str | bytes | int]:
    """Return name, intent and entities as a reminder has them, empty if not given."""
    return [
        cancel.name or "",
        b"" if cancel.intent is None else orjson.dumps(cancel.intent),
        "" if cancel.entities is None else canonical(cancel.entities),
    ]


def _name(slot: str) -> bytes:
    try:
        return slot.encode()
    except UnicodeEncodeError as error:
        raise Unwritable(f"slot {slot!r}: the name is not valid Unicode") from error
