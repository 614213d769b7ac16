"""
What a conversation's log keeps of a turn, in order: message, action, slots, reply.

Knows nothing about how it is stored or read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import JsonValue

from bot.conversation.commands import Answered
from bot.model import Event, EventKind, Record, Reply


def facts(messages: Sequence[Event], answered: Answered, time: datetime) -> list[Event]:
    """Return the turn's events; none for a turn without a record."""
    record = answered.record
    if record is None:
        return []
    made = _Maker(messages[0], record.turn.id, time)
    events = [*messages]
    if answered.action is not None:
        events.append(made.event("action", "action", {"name": answered.action}))
    events += [
        made.event("slot", f"slot:{name}", {"name": name, "value": value})
        for name, value in answered.slots.items()
    ]
    # The record's: without what is only said beside it, such as who answers here.
    if record.reply.text:
        events.append(made.reply(record.reply, record))
    return events


class _Maker:
    def __init__(self, message: Event, turn: str, time: datetime) -> None:
        self._message = message
        self._turn = turn
        self._time = time

    def event(self, kind: EventKind, name: str, data: dict[str, JsonValue]) -> Event:
        return Event(
            id=f"{self._turn}:{name}",
            kind=kind,
            address=self._message.address,
            time=self._time,
            data={"turn": self._turn, **data},
        )

    def reply(self, reply: Reply, record: Record) -> Event:
        citations: list[JsonValue] = [
            {"source": cited.source, "passage": cited.passage}
            for cited in reply.citations
        ]
        event = self.event(
            "reply", "reply", {"outcome": record.outcome, "citations": citations}
        )
        # The bot said it, not the person whom it answers.
        nobody = replace(self._message.address, user=None)
        return replace(event, address=nobody, text=reply.text)
