"""
What a conversation's log keeps of a turn, in order: message, actions and what came of
them, reply.

Knows nothing about how it is stored or read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import get_args

from pydantic import JsonValue

from bot.conversation.commands import Answered
from bot.model import Event, EventKind, Record, Reply

# What rasa-sdk calls otherwise than the log, and by the same name.
KINDS_OF_RASA: Mapping[str, EventKind] = {
    "user": "message",
    "bot": "reply",
    **{kind: kind for kind in get_args(EventKind)},
}


def facts(messages: Sequence[Event], answered: Answered, time: datetime) -> list[Event]:
    """Return the turn's events; none for a turn without a record."""
    record = answered.record
    if record is None:
        return []
    made = _Maker(messages[0], record.turn.id, time)
    events = [*messages]
    for run in record.actions:
        events.append(made.event("action", {"name": run.name}))
        for event in run.events:
            events += made.of_rasa(event)
    # The record's: without what is only said beside it, such as who answers here.
    if not record.reply.is_empty:
        events.append(made.reply(record.reply, record))
    return events


class _Maker:
    """Makes the turn's events, whose ids are the same however often it is answered."""

    def __init__(self, message: Event, turn: str, time: datetime) -> None:
        self._message = message
        self._turn = turn
        self._time = time
        self._made = 0

    def event(self, kind: EventKind, data: Mapping[str, JsonValue]) -> Event:
        self._made += 1
        return Event(
            id=f"{self._turn}:{self._made}",
            kind=kind,
            address=self._message.address,
            time=self._time,
            data={**data, "turn": self._turn},
        )

    def of_rasa(self, event: Mapping[str, JsonValue]) -> Iterable[Event]:
        """An event of rasa-sdk under our name for it; none for one nobody knows."""
        known = KINDS_OF_RASA.get(f"{event.get('event')}")
        if known is None:
            return
        data = {
            name: value
            for name, value in event.items()
            if name not in {"event", "timestamp", "text"}
        }
        text = event.get("text")
        said = text if isinstance(text, str) else ""
        yield replace(self.event(known, data), text=said)

    def reply(self, reply: Reply, record: Record) -> Event:
        citations: list[JsonValue] = [
            {"source": cited.source, "passage": cited.passage}
            for cited in reply.citations
        ]
        data: dict[str, JsonValue] = {
            "outcome": record.outcome,
            "citations": citations,
            "images": list(reply.images),
        }
        event = self.event("reply", data)
        # The bot said it, not the person whom it answers.
        nobody = replace(self._message.address, user=None)
        return replace(event, address=nobody, text=reply.text)
