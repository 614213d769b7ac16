"""
Bench `ranking`: milliseconds that choosing a reply costs, with the bot's plugins.

Eight siblings and what the writers quote are filtered, scored and ordered, for shipped
questions with the passages that the bot retrieves. The siblings are sentences of the
index, as long as replies are; no model writes them, so their log-probabilities are made
up and nothing is scored by the model that it has scored before. Every turn is new: no
vector of its texts is known. The baseline is the same plugins, each of which embeds for
itself, as rerankers do that know nothing of each other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from bot.errors import ChorusError
from bot.evaluation.metrics import quantile
from bot.evaluation.questions import evenly, handbook_questions
from bot.evaluation.report import BenchRow
from bot.evaluation.suites import shipped_questions
from bot.evaluation.timing import compared
from bot.evaluation.turns import asking
from bot.inference import Questions
from bot.interfaces import Embedder, Progress, Tools
from bot.model import Candidate, Turn
from bot.ranking import Ranking, TurnTools
from bot.text import sentences
from bot.turn import Answerer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bot.app import App

SIBLINGS = 8
QUESTIONS = 20
ROUNDS = 7
_TOKENS = 24  # of a made-up sibling
_SHORTEST, _LONGEST = 40, 200  # characters: from a short sentence to two lines


def ranking_bench(app: App, progress: Progress) -> list[BenchRow]:
    """Measure the ranking of made-up sets for shipped questions."""
    answerer = app.answerer()
    sets = samples(app, progress)
    times: dict[str, list[float]] = {"ours": [], "theirs": [], "writers": []}
    quoted: list[int] = []
    with asyncio.Runner() as loop:
        for number in range(ROUNDS + 1):
            progress("Ranking", number, ROUNDS + 1)
            for sample in sets:
                for way, apart in (("ours", False), ("theirs", True)):
                    took = loop.run(_ranked(answerer, sample, apart=apart))
                    if number:  # the first warms up
                        times[way].append(took.ranking_ms)
                        times["writers"].append(took.writing_ms)
                        quoted.append(took.quotations)
    row = compared(
        f"k = {SIBLINGS} and {sum(quoted) / len(quoted):.1f} quotations",
        times["ours"],
        "the same plugins, each embedding for itself",
        times["theirs"],
        "ms per turn",
    )
    also = {
        "p95": quantile(times["ours"], 0.95),
        "writers, while the model writes": quantile(times["writers"], 0.5),
    }
    return [replace(row, also=also)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Took:
    writing_ms: float
    ranking_ms: float
    quotations: int


async def _ranked(answerer: Answerer, sample: Sample, *, apart: bool) -> _Took:
    """Time one turn of which nothing was embedded before."""
    ranking = answerer.pipeline(sample.turn.message.address).ranking
    tools: Tools = TurnTools(
        answerer.embedder, answerer.model, lambda turn: turn.prompt, {}
    )
    if apart:
        ranking = _Apart(**{name: getattr(ranking, name) for name in _PARTS})
        tools = _Each(tools, answerer.embedder)
    began = time.perf_counter()
    written = await ranking.write(sample.turn, tools)
    between = time.perf_counter()
    everything = [*written.candidates, *sample.siblings]
    ranked = await ranking.rank(sample.turn, everything, tools)
    ended = time.perf_counter()
    problems = [*written.problems, *ranked.problems]
    if problems:  # a plugin that fails is fast
        raise ChorusError(f"bench ranking: {problems[0]}; mend it first")
    return _Took(
        writing_ms=1000 * (between - began),
        ranking_ms=1000 * (ended - between),
        quotations=len(written.candidates),
    )


_PARTS = tuple(Ranking.__dataclass_fields__)


class _Apart(Ranking):
    """A ranking that reads nothing ahead."""

    async def _read_ahead(
        self,
        asked: Questions,
        turn: Turn,
        candidates: Sequence[Candidate],
        tools: Tools,
    ) -> None:
        """Every plugin embeds for itself."""


class _Each:
    """Tools that remember no vector."""

    def __init__(self, tools: Tools, embedder: Embedder) -> None:
        self.prompt = tools.prompt
        self.classify = tools.classify
        self.log_probs = tools.log_probs
        self._embedder = embedder

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embedder.embed(texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A turn with its passages and prompt, and siblings for it."""

    turn: Turn
    siblings: Sequence[Candidate]


def samples(app: App, progress: Progress) -> Sequence[Sample]:
    """Return shipped questions with what the bot retrieves, and made-up siblings."""
    retriever = app.retriever()
    questions = evenly(handbook_questions(shipped_questions()), QUESTIONS)
    replies = iter(_replies(app))
    made: list[Sample] = []
    with asyncio.Runner() as loop:
        for done, one in enumerate(questions):
            progress("Retrieving", done, len(questions))
            turn = asking(one.id, one.question)
            limit = app.config.knowledge.passages
            found = loop.run(retriever.retrieve(turn, limit))
            prompt = "\n\n".join([*(each.text for each in found), one.question])
            siblings = [_sibling(text) for text in islice(replies, SIBLINGS)]
            turn = replace(turn, passages=tuple(found), prompt=prompt)
            made.append(Sample(turn=turn, siblings=siblings))
    return made


def _replies(app: App) -> list[str]:
    """Return sentences of the index, of the length of replies."""
    generation = app.index().generation()
    passages = generation.passages(generation.matching({}).tolist())
    found = [text for one in passages.values() for text in sentences(one.text)]
    fitting = (text for text in found if _SHORTEST <= len(text) <= _LONGEST)
    return list(dict.fromkeys(fitting))


def _sibling(text: str) -> Candidate:
    return Candidate(
        text=text,
        tokens=range(_TOKENS),
        log_probs=[-0.5] * _TOKENS,
        certainties=[5.0] * _TOKENS,
    )
