"""
Ranking: writers add, filters drop, scorers number, rerankers order, a selector picks.

Knows nothing about how candidates were generated or how replies are sent. Every plugin
is asked on the inference thread within a time limit, and its answer is checked. What a
broken one costs: a writer its candidates, a scorer its weight, a reranker its order, a
selector its choice (the first is taken), a filter everything: what could not be
checked is not sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bot.inference import InferenceThread, Questions
from bot.interfaces import (
    CandidateFilter,
    Embedder,
    LanguageModel,
    Reranker,
    Scorer,
    Selector,
    Tools,
    Writer,
)
from bot.model import Candidate, Selection, Turn, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """
    All candidates of a turn, ranked ones first, then the dropped. `chosen` is a
    position in `candidates`, None when every one was dropped. `orders` maps each
    reranker to the positions, in the order by total, that it returned.
    """

    candidates: Sequence[Candidate]
    chosen: int | None
    why: str
    orders: Mapping[str, Sequence[int]]
    problems: Sequence[str]


class TurnTools:
    """What scorers may use, with every text embedded at most once per turn."""

    def __init__(self, embedder: Embedder, model: LanguageModel) -> None:
        self._embedder = embedder
        self._model = model
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        if not texts:
            return np.zeros((0, self._embedder.dimension), np.float32)
        return np.stack([self._vectors[text] for text in texts])

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        return self._model.log_probs(prompts, continuations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The configured plugins of one pipeline, and how their scores are weighed."""

    inference: InferenceThread
    writers: Sequence[Writer]
    filters: Sequence[CandidateFilter]
    scorers: Sequence[Scorer]
    weights: Mapping[str, float]
    rerankers: Sequence[Reranker]
    selector: Selector
    plugin_timeout_s: float

    async def rank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> Ranked:
        """Turn what the model wrote into a ranked set and a choice. Never raises."""
        asked = Questions(self.inference, self.plugin_timeout_s)
        # Writers come first: of equal texts the one that knows its source is kept.
        everything = [*await self._written(asked, turn, tools), *candidates]
        kept, lost = await self._filtered(asked, turn, everything)
        scored = await self._scored(asked, turn, kept, tools)
        order, orders = await self._reranked(asked, turn, scored, tools)
        ranked = [replace(one, rank=rank) for rank, one in enumerate(order, 1)]
        chosen, why = await self._selected(asked, turn, ranked)
        return Ranked(
            candidates=(*ranked, *lost),
            chosen=chosen,
            why=why,
            orders=orders,
            problems=tuple(asked.problems),
        )

    async def _written(
        self, asked: Questions, turn: Turn, tools: Tools
    ) -> list[Candidate]:
        written: list[Candidate] = []
        for writer in self.writers:
            ask = partial(writer.write, turn, tools)
            found = await asked.ask(writer.name, ask, _candidates)
            written += found or ()
        return written

    async def _filtered(
        self, asked: Questions, turn: Turn, candidates: Sequence[Candidate]
    ) -> tuple[list[Candidate], list[Candidate]]:
        kept, lost = list(candidates), list[Candidate]()
        for one in self.filters:
            if not kept:
                break
            check = partial(_verdicts, kept)
            verdicts = await asked.ask(one.name, partial(one.keep, turn, kept), check)
            if verdicts is None:
                why = f"{one.name}: failed, and what is unchecked is not sent"
                return [], [*lost, *(replace(each, dropped=why) for each in kept)]
            judged = list(zip(kept, verdicts, strict=True))
            kept = [each for each, verdict in judged if verdict.kept]
            lost += [
                replace(each, dropped=f"{one.name}: {verdict.why}")
                for each, verdict in judged
                if not verdict.kept
            ]
        return kept, lost

    async def _scored(
        self,
        asked: Questions,
        turn: Turn,
        candidates: Sequence[Candidate],
        tools: Tools,
    ) -> list[Candidate]:
        """Score, and order by total, best first; equals keep their order."""
        scores: dict[str, Sequence[float]] = {}
        for scorer in self.scorers if candidates else ():
            ask = partial(scorer.score, turn, candidates, tools)
            found = await asked.ask(scorer.name, ask, partial(_numbers, candidates))
            if found is not None:
                scores[scorer.name] = found
        totalled = with_totals(candidates, scores, self.weights)
        return sorted(totalled, key=lambda one: -(one.total or 0.0))

    async def _reranked(
        self,
        asked: Questions,
        turn: Turn,
        candidates: Sequence[Candidate],
        tools: Tools,
    ) -> tuple[list[Candidate], dict[str, Sequence[int]]]:
        order = list(candidates)
        orders: dict[str, Sequence[int]] = {}
        position = {id(one): number for number, one in enumerate(candidates)}
        for reranker in self.rerankers if candidates else ():
            ask = partial(reranker.rerank, turn, tuple(order), tools)
            found = await asked.ask(reranker.name, ask, partial(_permutation, order))
            if found is not None:
                order = list(found)
                orders[reranker.name] = [position[id(one)] for one in order]
        return order, orders

    async def _selected(
        self, asked: Questions, turn: Turn, ranked: Sequence[Candidate]
    ) -> tuple[int | None, str]:
        if not ranked:
            return None, "every candidate was dropped"
        name = self.selector.name
        ask = partial(self.selector.select, turn, ranked)
        choice = await asked.ask(name, ask, partial(_selection, ranked))
        if choice is None:
            return 0, f"selector {name!r} failed; the first in rank was taken"
        return choice.index, choice.why


def with_totals(
    candidates: Sequence[Candidate],
    scores: Mapping[str, Sequence[float]],
    weights: Mapping[str, float],
) -> list[Candidate]:
    """
    Return the candidates with `scores`, `contributions` and `total`.

    Scores of different plugins have different scales, so each plugin's are made
    z-scores over the set before they are weighed; a scorer that calls all candidates
    equal contributes nothing.
    """
    parts = {
        name: weights.get(name, 1.0) * _z_scores(np.asarray(values, np.float64))
        for name, values in scores.items()
    }
    return [
        replace(
            candidate,
            scores={name: float(values[row]) for name, values in scores.items()},
            contributions={name: float(part[row]) for name, part in parts.items()},
            total=float(sum(part[row] for part in parts.values())),
        )
        for row, candidate in enumerate(candidates)
    ]


def _z_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = values.std()
    # Rounding leaves equal values a spread of the order of their last digit.
    if spread <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return np.zeros_like(values)
    z_scores: NDArray[np.float64] = (values - values.mean()) / spread
    return z_scores


# What is wrong with an answer, or None


def _candidates(answer: Sequence[Candidate]) -> str | None:
    # A generator would be used up by the look into it.
    if isinstance(answer, Sequence) and all(
        isinstance(one, Candidate) for one in answer
    ):
        return None
    return "write must return a list of Candidates"


def _verdicts(candidates: Sequence[Candidate], answer: Sequence[Verdict]) -> str | None:
    wrong = _one_each(len(candidates), "verdict", answer)
    if wrong is None and not all(isinstance(one, Verdict) for one in answer):
        return "keep must return a Verdict for each candidate"
    return wrong


def _one_each(expected: int, what: str, answer: Sequence[object]) -> str | None:
    if len(answer) == expected:
        return None
    return f"returned {len(answer)} {what}s for {expected} candidates; return one each"


def _numbers(candidates: Sequence[Candidate], answer: Sequence[float]) -> str | None:
    wrong = _one_each(len(candidates), "score", answer)
    if wrong is None and not all(math.isfinite(number) for number in answer):
        return "returned a score that is not a finite number"
    return wrong


def _permutation(
    candidates: Sequence[Candidate], answer: Sequence[Candidate]
) -> str | None:
    if sorted(map(id, answer)) == sorted(map(id, candidates)):
        return None
    return "rerank must return the same candidates, each once"


def _selection(ranked: Sequence[Candidate], answer: Selection) -> str | None:
    if 0 <= answer.index < len(ranked):
        return None
    return f"selected position {answer.index} of {len(ranked)} candidates"
