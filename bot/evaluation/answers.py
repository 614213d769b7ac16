"""
How good replies and candidate sets are, for several ways of answering the same.

Knows nothing about files. Every way goes through the bot's own turn, with the same
retrieval, prompt and refusal; only what writes and what ranks is exchanged:

- `greedy`: one candidate, the likeliest token each time
- `one sample`: one candidate, drawn by the multinomial sampler as it is by default
- `quotation`: the quotation writer's first candidate, no model
- each bot as it is configured; the three above are those of the first
- a bot `in blocks`, when it is asked for: the same, its replies written and ranked
  sentence by sentence; then all ways are timed to what is read first, too
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bot import plugin_manager
from bot.config import Use
from bot.evaluation import metrics, quality, tuning
from bot.evaluation.diversity import set_diversity
from bot.evaluation.memory import RememberingModel
from bot.evaluation.questions import Question
from bot.evaluation.report import Detail, Row, row
from bot.evaluation.tuning import ScoredSet
from bot.evaluation.turns import asking
from bot.interfaces import (
    ChatMessage,
    GenerationRequest,
    LanguageModel,
    Progress,
    Sampler,
    Tools,
    ToolSchema,
    Writer,
)
from bot.model import Address, Candidate, Record, Turn
from bot.sections import HOUR_S
from bot.turn import Answerer, Pipeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUOTATION = "quotation"
REFERENCE = "greedy"
_BLOCKS = "in blocks"

# Figures of the pick that are compared with the reference's, question by question.
_COMPARED = ("contained", "f1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of answering, by the name of its row."""

    name: str
    answerer: Answerer


def ways(bots: Sequence[tuple[str, Answerer]], *, blocks: bool = False) -> list[Way]:
    """Derive the ways from the bots' own answerers; `blocks` adds one for each."""
    bots = [(name, _patient(answerer)) for name, answerer in bots]
    (_, first), *_ = bots
    return [
        Way(name=REFERENCE, answerer=_one_candidate(first, temperature=0.0)),
        Way(name="one sample", answerer=_one_candidate(first)),
        Way(name=QUOTATION, answerer=_quotation_alone(first)),
        *(Way(name=name, answerer=answerer) for name, answerer in bots),
        *(
            Way(
                name=f"{name}, {_BLOCKS}",
                answerer=_with_generation(answerer, mode="blocks"),
            )
            for name, answerer in bots
            if blocks
        ),
    ]


async def answered(
    ways: Sequence[Way],
    questions: Sequence[Question],
    progress: Progress,
    *,
    at_once: int = 1,
) -> list[Detail]:
    """
    Answer every question in every way, `at_once` turns at a time, and measure each
    answer. Times are those of so many turns on one machine.
    """
    work = [(question, way) for question in questions for way in ways]
    places = asyncio.Semaphore(at_once)
    done = 0

    async def measured(question: Question, way: Way) -> Detail:
        nonlocal done
        async with places:
            turn = asking(question.id, question.question)
            record = await way.answerer.answer(turn, threading.Event(), _unseen)
            detail = await asyncio.to_thread(_measured, way, question, record)
        done += 1
        progress("Answering", done, len(work))
        return detail

    progress("Answering", 0, len(work))
    return await asyncio.gather(*(measured(*one) for one in work))


def answer_rows(details: Sequence[Detail]) -> list[Row]:
    """Return a row for each way, with its differences to greedy."""
    by_way: dict[str, list[Detail]] = {}
    for detail in details:
        by_way.setdefault(detail.config, []).append(detail)
    reference = {one.record.turn.id: one.metrics for one in by_way.get(REFERENCE, ())}
    timed = any(name.endswith(_BLOCKS) for name in by_way)
    rows = [_answers_row(name, own, reference) for name, own in by_way.items()]
    return [_timed(one, by_way[one.config]) for one in rows] if timed else rows


def tuned_rows(
    name: str,
    details: Sequence[Detail],
    weights: Mapping[str, float],
    tune_on: Iterable[str],
) -> list[Row]:
    """
    Return what weights that were tuned on the questions `tune_on` reach on the others,
    beside each scorer alone and the configured weights there. A pick's worth is whether
    it holds the answer and, half as much, its token F1: of two that hold it, the one
    that says less beside it.
    """
    tune_on = frozenset(tune_on)
    usable = [
        one for one in details if one.config == name and one.worth and _ranked(one)
    ]
    names = sorted({scorer for one in usable for scorer in _ranked(one)[0].scores})
    sets = {one.record.turn.id: _scored_set(one, names) for one in usable}
    seen = [one for id_, one in sets.items() if id_ in tune_on]
    fresh = [one for one in usable if one.record.turn.id not in tune_on]
    if not (names and seen and fresh):
        return []
    found = tuning.tune(seen, names, weights)
    told = ", ".join(f"{one} {found[one]:g}" for one in names if found[one])
    report = [sets[one.record.turn.id] for one in fresh]
    alone = {
        scorer: {other: float(other == scorer) for other in names} for scorer in names
    }
    return [
        *(
            _picked_row(
                f"{name}, {scorer} alone, report half", fresh, report, names, own
            )
            for scorer, own in alone.items()
        ),
        _picked_row(
            f"{name}, as configured, report half", fresh, report, names, weights
        ),
        _picked_row(
            f"{name}, tuned ({told}), report half", fresh, report, names, found
        ),
    ]


# What is measured


def _measured(way: Way, question: Question, record: Record) -> Detail:
    worth = [
        metrics.best_containment(one.text, question.answers)
        for one in record.candidates
    ]
    return Detail(
        config=way.name,
        record=record,
        expected=question.answers,
        worth=worth if question.answerable else (),
        metrics={
            **_of_reply(question, record),
            **(_of_set(record, worth) if question.answerable else {}),
            **_of_diversity(way.answerer, record),
            **{f"{stage} ms": ms for stage, ms in _times(record.ms)},
        },
    )


def _of_reply(question: Question, record: Record) -> dict[str, float]:
    reply, golds = record.reply.text, question.answers
    declined = float(record.outcome == "declined")
    troubles = {
        "failed": float(record.outcome == "failed"),
        "problems": float(bool(record.problems)),
    }
    if not question.answerable:
        return {"declined": declined, **troubles}
    return {
        "contained": metrics.best_containment(reply, golds),
        "f1": metrics.best_f1(reply, golds),
        "rouge-l": quality.rouge_l(reply, golds),
        "bleu": quality.bleu(reply, golds),
        "wrongly declined": declined,
        "quoted": float(_is_quotation(record)),
        **_perplexity(record),
        **_groundedness(record),
        **troubles,
    }


def _of_set(record: Record, worth: Sequence[float]) -> dict[str, float]:
    """What a random and the best pick of the set would be worth."""
    left = [
        own
        for own, one in zip(worth, record.candidates, strict=True)
        if one.dropped is None
    ]
    if not left:
        return {}
    return {"random": metrics.mean(left), "any": max(left)}


def _of_diversity(answerer: Answerer, record: Record) -> dict[str, float]:
    """Of what the model wrote, before anything was dropped."""
    texts = [
        one.text
        for one in record.candidates
        if one.origin != QUOTATION and one.text.strip() and not one.block
    ]
    return set_diversity(texts, answerer.embedder.embed(texts)) if texts else {}


def _perplexity(record: Record) -> dict[str, float]:
    """Under the model, where it wrote the reply itself."""
    if record.chosen is None or not record.candidates[record.chosen].log_probs:
        return {}
    chosen = record.candidates[record.chosen]
    return {"perplexity": quality.perplexity(chosen.log_probs)}


def _groundedness(record: Record) -> dict[str, float]:
    """Of the pick, where the bot has that scorer."""
    if record.chosen is None:
        return {}
    scores = record.candidates[record.chosen].scores
    return {name: scores[name] for name in ("groundedness",) if name in scores}


def _is_quotation(record: Record) -> bool:
    chosen = record.chosen
    return chosen is not None and record.candidates[chosen].origin == QUOTATION


def _times(ms: Mapping[str, float]) -> Iterable[tuple[str, float]]:
    """The model's own time is told as it was when the set was first written."""
    yield "total", ms["total"]
    if "rank" in ms:
        yield "rank", ms["rank"]
    written = [ms[key] for key in ("generate_read", "generate_write") if key in ms]
    if written:
        yield "write", sum(written)


def _answers_row(
    name: str,
    details: Sequence[Detail],
    reference: Mapping[str, Mapping[str, float]],
) -> Row:
    """`failed` and `problems` are shares of turns, and stand there only when not 0."""
    measured = _columns(details)
    if name != REFERENCE:
        for metric in _COMPARED:
            measured[f"{metric} - greedy"] = [
                one.metrics[metric] - reference[one.record.turn.id][metric]
                for one in details
                if metric in one.metrics and one.record.turn.id in reference
            ]
    for trouble in ("failed", "problems"):
        if not any(measured.get(trouble, ())):
            measured.pop(trouble, None)
    found = row(name, measured, n=len(details))
    return _with_gap(found, details)


def _columns(details: Sequence[Detail]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for one in details for name in one.metrics)
    return {
        name: [one.metrics[name] for one in details if name in one.metrics]
        for name in names
    }


def _with_gap(found: Row, details: Sequence[Detail]) -> Row:
    """Add how much of the way from a random pick to the best one the picks go."""
    sets = [one.metrics for one in details if "any" in one.metrics]
    if not any(one["any"] > one["random"] for one in sets):
        return found
    share = quality.share_of_gap(
        [one["contained"] for one in sets],
        [one["random"] for one in sets],
        [one["any"] for one in sets],
    )
    return replace(
        found,
        metrics={**found.metrics, "gap": share.value},
        intervals={**found.intervals, "gap": share.interval},
    )


def _timed(row: Row, details: Sequence[Detail]) -> Row:
    """
    Add how long answers took until something of them could be read, and until all of
    them could. Of a reply that is not written in blocks that is the same.
    """
    records = [one.record for one in details]
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


def _unseen(text: str) -> None:
    """Nobody watches a reply being written here."""


# Tuning


def _ranked(detail: Detail) -> list[Candidate]:
    """In an order that says nothing: of equals the first is picked."""
    kept = [one for one in detail.record.candidates if one.dropped is None]
    return sorted(kept, key=lambda one: zlib.crc32(one.text.encode()))


def _scored_set(detail: Detail, names: Sequence[str]) -> ScoredSet:
    ranked = _ranked(detail)
    return ScoredSet(
        scores=np.array(
            [[one.scores.get(name, 0.0) for name in names] for one in ranked]
        ),
        worth=np.array(
            [
                metrics.best_containment(one.text, detail.expected)
                + metrics.best_f1(one.text, detail.expected) / 2
                for one in ranked
            ]
        ),
    )


def _picked_row(
    name: str,
    details: Sequence[Detail],
    sets: Sequence[ScoredSet],
    names: Sequence[str],
    weights: Mapping[str, float],
) -> Row:
    """Return the row of what these weights would pick; no reranker has a say in it."""
    picks = tuning.evaluate(sets, names, weights)
    texts = [
        (_ranked(one)[pick].text, one.expected)
        for one, pick in zip(details, picks, strict=True)
    ]
    return row(
        name,
        {
            "contained": [metrics.best_containment(*one) for one in texts],
            "f1": [metrics.best_f1(*one) for one in texts],
        },
    )


# The ways


def _patient(answerer: Answerer) -> Answerer:
    """
    Return the same bot that gives up on nothing: several turns at once on a busy
    machine are slow, and a late sentence or score would count as a bad one.
    """

    def pipeline(address: Address) -> Pipeline:
        own = answerer.pipeline(address)
        return replace(own, ranking=replace(own.ranking, plugin_timeout_s=HOUR_S))

    return replace(_with_generation(answerer, timeout_s=HOUR_S), pipeline=pipeline)


def _one_candidate(answerer: Answerer, **sampling: float) -> Answerer:
    use = Use(use="multinomial", settings=sampling)
    (sampler,) = plugin_manager.load({"evaluation": use}).samplers
    model = answerer.model
    if isinstance(model, RememberingModel):
        model = model.drawn_by(f"multinomial {sampling}")
    return replace(
        _with_generation(answerer, candidates=1, mode="replies"),
        model=model,
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
        prompt_variants=(),
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

    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        return self._model.render(messages, tools)

    def generate(self, request: GenerationRequest) -> list[Candidate]:
        return []

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        return self._model.log_probs(prompts, continuations)

    def close(self) -> None:
        """The model is not this object's to close."""
