"""
How often a reply is right, for several ways of choosing it from the same bot.

Knows nothing about files. Every way goes through the bot's own turn, with the same
retrieval, prompt and refusal; only what writes and what ranks is exchanged:

- `greedy`: one candidate, the likeliest token each time
- `one sample`: one candidate, drawn by the multinomial sampler as it is by default
- `quotation`: the quotation writer's first candidate, no model
- `chorus`: the bot as it is configured
- `chorus, blocks (k = …)`, when it is asked for: the same, its replies written and
  ranked sentence by sentence; then all ways are timed to what is read first, too
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bot import plugin_manager
from bot.config import Use
from bot.evaluation import metrics
from bot.evaluation.questions import Question
from bot.evaluation.report import Row, row
from bot.evaluation.turns import asking
from bot.interfaces import (
    ChatMessage,
    GenerationRequest,
    LanguageModel,
    Progress,
    Sampler,
    Tools,
    Writer,
)
from bot.model import Candidate, Record, Turn
from bot.turn import Answerer, Pipeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUOTATION = "quotation"
REFERENCE = "greedy"
_BLOCKS = "chorus, blocks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of answering, by the name of its row."""

    name: str
    answerer: Answerer


def ways(answerer: Answerer, *, blocks: bool = False) -> list[Way]:
    """Derive the ways from the bot's own answerer; `blocks` adds the last one."""
    candidates = answerer.config.generation.candidates
    in_blocks = Way(
        name=f"{_BLOCKS} (k = {candidates})",
        answerer=_with_generation(answerer, mode="blocks"),
    )
    return [
        Way(name=REFERENCE, answerer=_one_candidate(answerer, temperature=0.0)),
        Way(name="one sample", answerer=_one_candidate(answerer)),
        Way(name=QUOTATION, answerer=_quotation_alone(answerer)),
        Way(name="chorus", answerer=answerer),
        *([in_blocks] if blocks else []),
    ]


async def answer_rows(
    ways: Sequence[Way], questions: Sequence[Question], progress: Progress
) -> list[Row]:
    """Measure every way over the same questions, and its difference to greedy."""
    answered = {way.name: await _records(way, questions, progress) for way in ways}
    reference = _contained(answered[REFERENCE], questions)
    rows = [
        _answers_row(name, records, questions, reference)
        for name, records in answered.items()
    ]
    if any(name.startswith(_BLOCKS) for name in answered):
        rows = [_timed(one, answered[one.config]) for one in rows]
    return rows


async def _records(
    way: Way, questions: Sequence[Question], progress: Progress
) -> list[Record]:
    step = f"Answering ({way.name})"
    records = []
    for done, question in enumerate(questions):
        progress(step, done, len(questions))
        turn = asking(question.id, question.question)
        records.append(await way.answerer.answer(turn, threading.Event(), _unseen))
    progress(step, len(questions), len(questions))
    return records


def _unseen(text: str) -> None:
    """Nobody watches a reply being written here."""


def _answers_row(
    name: str,
    records: Sequence[Record],
    questions: Sequence[Question],
    reference: Sequence[float],
) -> Row:
    """`failed` and `problems` are shares of turns, and stand there only when not 0."""
    contained = _contained(records, questions)
    pairs = list(zip(records, questions, strict=True))
    measured = {
        "contained": contained,
        "f1": [
            metrics.best_f1(record.reply.text, question.answers)
            for record, question in pairs
            if question.answerable
        ],
        "contained - greedy": (
            metrics.differences(contained, reference) if name != REFERENCE else []
        ),
        "declined": [_declined(one) for one, asked in pairs if not asked.answerable],
        "wrongly declined": [
            _declined(one) for one, asked in pairs if asked.answerable
        ],
        "ms": [record.ms["total"] for record in records],
    }
    failed = [float(record.outcome == "failed") for record in records]
    problems = [float(bool(record.problems)) for record in records]
    measured |= {"failed": failed} if any(failed) else {}
    measured |= {"problems": problems} if any(problems) else {}
    return row(name, measured)


def _timed(row: Row, records: Sequence[Record]) -> Row:
    """
    Add how long answers took until something of them could be read, and until all of
    them could. Of a reply that is not written in blocks that is the same.
    """
    answered = [record.ms for record in records if record.outcome == "answered"]
    times = {
        "first ms": [ms.get("first_block", ms["total"]) for ms in answered],
        "whole ms": [ms["total"] for ms in answered],
    }
    shares = {
        f"{name} p{round(100 * share)}": (taken, share)
        for name, taken in times.items()
        for share in (0.5, 0.9)
        if taken
    }
    return replace(
        row,
        metrics={
            **row.metrics,
            **{name: metrics.quantile(*one) for name, one in shares.items()},
        },
        intervals={
            **row.intervals,
            **{name: metrics.quantile_bootstrap(*one) for name, one in shares.items()},
        },
    )


def _contained(records: Sequence[Record], questions: Sequence[Question]) -> list[float]:
    """One number for each question that has an answer."""
    return [
        metrics.best_containment(record.reply.text, question.answers)
        for record, question in zip(records, questions, strict=True)
        if question.answerable
    ]


def _declined(record: Record) -> float:
    return float(record.outcome == "declined")


# The ways


def _one_candidate(answerer: Answerer, **sampling: float) -> Answerer:
    use = Use(use="multinomial", settings=sampling)
    (sampler,) = plugin_manager.load({"evaluation": use}).samplers
    return replace(
        _with_generation(answerer, candidates=1, mode="replies"),
        pipeline=lambda address: _unranked(answerer.pipeline(address), sampler),
    )


def _with_generation(answerer: Answerer, **settings: object) -> Answerer:
    generation = answerer.config.generation.model_copy(update=settings)
    config = answerer.config.model_copy(update={"generation": generation})
    return replace(answerer, config=config)


def _unranked(pipeline: Pipeline, sampler: Sampler) -> Pipeline:
    return replace(
        pipeline,
        sampler=sampler,
        logits_processors=(),
        ranking=replace(
            pipeline.ranking, writers=(), filters=(), scorers=(), rerankers=()
        ),
    )


def _quotation_alone(answerer: Answerer) -> Answerer:
    return replace(
        answerer,
        model=_Silent(answerer.model),
        pipeline=lambda address: _quoting(answerer.pipeline(address)),
    )


def _quoting(pipeline: Pipeline) -> Pipeline:
    writer = next(
        (one for one in pipeline.ranking.writers if one.name == QUOTATION), None
    )
    if writer is None:
        (writer,) = plugin_manager.load({"evaluation": Use(use=QUOTATION)}).writers
    return replace(
        pipeline,
        ranking=replace(
            pipeline.ranking,
            writers=(_First(writer),),
            filters=(),
            scorers=(),
            rerankers=(),
        ),
    )


class _First:
    """A writer of which only the first candidate counts."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.name = writer.name

    def write(self, turn: Turn, tools: Tools) -> Sequence[Candidate]:
        return self._writer.write(turn, tools)[:1]


class _Silent:
    """The bot's model for everything but writing: it writes no candidate."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.name = model.name

    @property
    def context_tokens(self) -> int:
        return self._model.context_tokens

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    def render(self, messages: Sequence[ChatMessage]) -> str:
        return self._model.render(messages)

    def generate(self, request: GenerationRequest) -> list[Candidate]:
        return []

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        return self._model.log_probs(prompts, continuations)

    def close(self) -> None:
        """The model is not this object's to close."""
