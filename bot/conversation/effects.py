"""
What a turn's actions do to its conversation, beside what they say and set: who has it
from now on, and the reminders that were set and called off.

Knows rasa-sdk's events, nothing of how they came about or of what is done with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import JsonValue

from bot.conversation.state import Cancel, Reminder, cancel_of, reminder_of
from bot.model import Record

PAUSE = timedelta(minutes=1)  # between a reminder and one that its turn sets


@dataclass(frozen=True, slots=True)
class Reminding:
    """
    What becomes of a conversation's reminders: first `cancels`, then `reminders`.
    `problems` are sentences about events that are neither.
    """

    reminders: Sequence[Reminder] = ()
    cancels: Sequence[Cancel] = ()
    problems: Sequence[str] = ()


def paused(record: Record) -> bool | None:
    """Say whether an action paused the bot; False: it let it go on, None: neither."""
    found = None
    for event in _events(record):
        match event.get("event"):
            case "pause":
                found = True
            case "resume":
                found = False
    return found


def reminding(record: Record | None, now: datetime) -> Reminding:
    """
    Read the events of a turn; one that it set and called off again is not set. What a
    reminder's own turn sets is due in a minute at the earliest, or one that sets itself
    again would never end.
    """
    set_: dict[str, Reminder] = {}
    cancels: list[Cancel] = []
    problems: list[str] = []
    for event in _events(record) if record else ():
        one: Reminder | Cancel | str | None = None
        match event.get("event"):
            case "reminder" if record is not None:
                one = reminder_of(event, record.turn.id, record.turn.message.address)
            case "cancel_reminder":
                one = cancel_of(event)
        match one:
            case Reminder():
                set_[one.name] = _not_at_once(one, record, now)
            case Cancel():
                cancels.append(one)
                left = [each for each in set_.values() if not one.covers(each)]
                set_ = {each.name: each for each in left}
            case str():
                problems.append(one)
    return Reminding(tuple(set_.values()), tuple(cancels), tuple(problems))


def _not_at_once(reminder: Reminder, record: Record | None, now: datetime) -> Reminder:
    if record is None or record.turn.message.kind != "intent":
        return reminder
    return replace(reminder, due=max(reminder.due, now + PAUSE))


def with_problems(record: Record, reminding: Reminding) -> Record:
    return replace(record, problems=(*record.problems, *reminding.problems))


def _events(record: Record) -> Iterable[Mapping[str, JsonValue]]:
    for run in record.actions:
        yield from run.events
