"""
Replying: our answer to a message of Rasa's, and what Rasa's tracker keeps of it.

Knows no transport. Trust that there is a text to be sent, whatever failed: from an
error Rasa makes silence.
"""

from __future__ import annotations

import math
import threading
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from bot.actions.calls import ActionAnswer, JsonObject
from bot.actions_server.requests import ActionRequest
from bot.actions_server.trackers import turn_of
from bot.config import Config
from bot.model import Candidate, Citation, Record, Reply, Turn

GENERATE = "action_generate_reply"
OUTCOME = "chorus_outcome"  # the slot that rules may branch on, where a domain has it


class Answers(Protocol):
    """Answers a turn, as `turn.Answerer` does, without running actions."""

    async def answer(
        self, turn: Turn, cancelled: threading.Event, show: Callable[[str], None]
    ) -> Record: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replying:
    """Runs `action_generate_reply`."""

    answers: Answers
    config: Config

    async def run(
        self, request: ActionRequest, show: Callable[[str], None]
    ) -> ActionAnswer:
        """
        Answer the tracker's latest message. `show` is told the reply as far as it is
        settled. When this is cancelled, nothing more is generated.
        """
        turn = turn_of(request.tracker, request.sender, self.config.conversation)
        record = self._unanswerable(turn) or await self._answered(turn, show)
        return ActionAnswer(
            events=_events(request, record), responses=_responses(record)
        )

    async def _answered(self, turn: Turn, show: Callable[[str], None]) -> Record:
        cancelled = threading.Event()
        try:
            return await self.answers.answer(turn, cancelled, show)
        finally:
            cancelled.set()

    def _unanswerable(self, turn: Turn) -> Record | None:
        """Return what is said to a message that no bot of ours would take."""
        replies = self.config.replies_for(turn.message.address)
        limit = self.config.conversation.max_message_characters
        length = len(turn.question)
        if length > limit:
            told = replies.too_long.replace("{characters}", str(length))
            told = told.replace("{limit}", str(limit))
            return self._declined(turn, told, f"the message is over {limit} characters")
        if not any(map(_is_readable, turn.question)):
            why = "the message has no readable character"
            return self._declined(turn, replies.empty, why)
        return None

    def _declined(self, turn: Turn, text: str, why: str) -> Record:
        return Record(
            turn=turn,
            outcome="declined",
            reply=Reply(text=text),
            why=why,
            config=self.config.fingerprint,
        )


def _is_readable(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character)[0] != "C"


def _events(request: ActionRequest, record: Record) -> list[JsonObject]:
    """
    Return the slot that tells how it went. A tracker has every slot of its domain, so
    it says whether there is one also where no domain was sent; Rasa refuses others.
    """
    slots = request.tracker.get("slots")
    if not (isinstance(slots, dict) and OUTCOME in slots):
        return []
    return [
        {"event": "slot", "timestamp": None, "name": OUTCOME, "value": record.outcome}
    ]


def _responses(record: Record) -> list[JsonObject]:
    """Return the reply, and a response for each picture and JSON that is too many."""
    reply = record.reply
    buttons: list[JsonValue] = [
        {"title": button.text, "payload": button.payload} for button in reply.buttons
    ]
    first: dict[str, JsonValue] = {
        "text": reply.text,
        "buttons": buttons,
        "metadata": metadata(record),
    }
    if reply.images:
        first["image"] = reply.images[0]
    if reply.custom:
        first["custom"] = dict(reply.custom[0])
    return [
        first,
        *({"image": image} for image in reply.images[1:]),
        *({"custom": dict(custom)} for custom in reply.custom[1:]),
    ]


def metadata(record: Record) -> dict[str, JsonValue]:
    """
    Return what a bot event of Rasa's keeps: how this reply came about. Passages are
    named by the citations only: Rasa sends all of it with each later call.
    """
    return {
        "turn": record.turn.id,
        "outcome": record.outcome,
        "why": record.why,
        "config": record.config,
        "candidates": [_candidate(one) for one in record.candidates],
        "citations": [_citation(one) for one in record.reply.citations],
    }


def _candidate(candidate: Candidate) -> JsonValue:
    return {
        "text": candidate.text,
        "score": _number(candidate.total),
        "scores": _numbers(candidate.scores),
        "rank": candidate.rank,
        "dropped": candidate.dropped,
    }


def _citation(citation: Citation) -> JsonValue:
    return {
        "source": citation.source,
        "passage": citation.passage,
        "title": citation.title,
        "url": citation.url,
    }


def _numbers(numbers: Mapping[str, float]) -> dict[str, JsonValue]:
    return {name: _number(number) for name, number in numbers.items()}


def _number(number: float | None) -> float | None:
    """Return a number of ours as JSON has it; plugins' may be numpy's, or infinite."""
    if number is None or not math.isfinite(number):
        return None
    return float(number)
