"""
Stored turns, answered once more under another configuration.

The turn begins as it began then: the same message, history, slots and seed. No plugin
is told of it, nothing is sent and nothing is kept. Knows nothing about where records
are stored, nor how a comparison is printed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from bot.evaluation import metrics
from bot.experiment import quiet
from bot.model import Candidate, Event, Passage, Record, Turn
from bot.turn import Answerer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A record, and the log from before it; None where that is gone."""

    record: Record
    history: Sequence[Event] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What was said, and what would have been said. `whole`: with its history."""

    then: Record
    now: Record
    whole: bool = True

    @property
    def same(self) -> bool:
        return says_the_same(self.then, self.now)

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "turn": self.then.turn.id,
            "time": self.then.turn.message.time.isoformat(),
            "question": self.then.turn.question,
            "same": self.same,
            "history": self.whole,
            "then": _side(self.then),
            "now": _side(self.now),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All comparisons in numbers; `ms` are means of the whole turn."""

    n: int
    same: int
    different: int
    declined_then: int
    declined_now: int
    failed_then: int
    failed_now: int
    ms_then: float
    ms_now: float


async def repeated(
    answerer: Answerer, stored: Stored, *, same_passages: bool = False
) -> Compared:
    """
    Answer the turn again, as quietly as a turn can be. With `same_passages` it is
    given those that were retrieved then, as many as the configuration takes.
    """
    then = stored.record.turn
    window = answerer.config.conversation.window_events
    history = (stored.history or ())[-window:] if window else ()
    again = replace(then, history=history, passages=(), prompt="")
    asked = quiet(answerer)
    # A turn that never came to retrieving has none that could be given back.
    if same_passages and then.passages:
        asked = _given(asked, then.passages)
    now = await asked.answer(again, threading.Event(), _unseen)
    return Compared(then=stored.record, now=now, whole=stored.history is not None)


def says_the_same(one: Record, other: Record) -> bool:
    """Tell whether a customer would read the same; white space does not count."""
    return one.reply.text.split() == other.reply.text.split()


def summary(compared: Sequence[Compared]) -> Summary:
    then, now = [one.then for one in compared], [one.now for one in compared]
    same = sum(one.same for one in compared)
    return Summary(
        n=len(compared),
        same=same,
        different=len(compared) - same,
        declined_then=_with(then, "declined"),
        declined_now=_with(now, "declined"),
        failed_then=_with(then, "failed"),
        failed_now=_with(now, "failed"),
        ms_then=metrics.mean([took(one) for one in then]),
        ms_now=metrics.mean([took(one) for one in now]),
    )


def took(record: Record) -> float:
    """Return the milliseconds of the whole turn."""
    return record.ms.get("total", 0.0)


def pick(record: Record) -> Candidate | None:
    """Return the candidate that was chosen; None where nobody chose one."""
    return None if record.chosen is None else record.candidates[record.chosen]


def _side(record: Record) -> dict[str, JsonValue]:
    picked = pick(record)
    return {
        "config": record.config,
        "arm": record.arm,
        "outcome": record.outcome,
        "reply": record.reply.text,
        "why": record.why,
        "citations": [
            {"source": citation.source, "passage": citation.passage}
            for citation in record.reply.citations
        ],
        "scores": {} if picked is None else dict(picked.scores),
        "total": None if picked is None else picked.total,
        "problems": list(record.problems),
        "ms": took(record),
    }


def _with(records: Sequence[Record], outcome: str) -> int:
    return sum(record.outcome == outcome for record in records)


def _unseen(text: str) -> None:
    """Nobody watches a reply being written here."""


@dataclass(frozen=True, slots=True)
class _Given:
    """A retriever that finds what was found before."""

    passages: Sequence[Passage]
    name: str = "the same passages"

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        return self.passages[:limit]


def _given(answerer: Answerer, passages: Sequence[Passage]) -> Answerer:
    return replace(
        answerer,
        pipeline=lambda address: replace(
            answerer.pipeline(address), retrievers=(_Given(passages),)
        ),
    )
