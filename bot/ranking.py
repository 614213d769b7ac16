"""
Ranking: writers write, filters drop, scorers number, rerankers order, a selector picks.

Knows nothing about how candidates were generated or how replies are sent. Every plugin
is asked on the inference thread within a time limit, and its answer is checked. What a
broken one costs: a writer its candidates, a scorer its weight, a reranker its order, a
selector its choice (the first is taken), a filter everything: what could not be
checked is not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bot.inference import InferenceThread, Questions
from bot.interfaces import (
    CandidateFilter,
    Classified,
    Embedder,
    Embeds,
    LanguageModel,
    Reranker,
    Scorer,
    Selector,
    Tools,
    Writer,
)
from bot.model import Candidate, Selection, Turn, Verdict
from bot.text import cleaned

_LARGEST = 1e100  # of a score: what is larger has no mean and no spread


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What the writers wrote, and the problems they had."""

    candidates: Sequence[Candidate] = ()
    problems: Sequence[str] = ()


class Classifies(Protocol):
    """A sequence-classification model."""

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> Classified: ...


class TurnTools:
    """
    What plugins may use in one turn, with every text embedded at most once. `render`
    gives what the model would read for another turn; `classifiers` are by source.
    """

    def __init__(
        self,
        embedder: Embedder,
        model: LanguageModel,
        render: Callable[[Turn], str],
        classifiers: Mapping[str, Classifies],
    ) -> None:
        self._embedder = embedder
        self._model = model
        self._render = render
        self._classifiers = classifiers
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def prompt(self, turn: Turn) -> str:
        return self._render(turn)

    def classify(
        self, model: str, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> Classified:
        if model not in self._classifiers:
            raise LookupError(f"model {model!r} is not loaded; name it in classifiers")
        return self._classifiers[model].classify(texts, pairs)

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

    async def write(self, turn: Turn, tools: Tools) -> Written:
        """
        Ask the writers, who need not wait for the model. Put their candidates first:
        of equal texts the one that knows its source is to be kept. Never raises.
        """
        asked = Questions(self.inference, self.plugin_timeout_s)
        written: list[Candidate] = []
        for writer in self.writers:
            ask = partial(writer.write, turn, tools)
            found = await asked.ask(writer.name, ask, checked_candidates)
            written += [clean(one) for one in found or ()]
        return Written(candidates=written, problems=asked.problems)

    async def rank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> Ranked:
        """Turn candidates into a ranked set and a choice. Never raises."""
        asked = Questions(self.inference, self.plugin_timeout_s)
        await self._read_ahead(asked, turn, candidates, tools)
        kept, lost = await self._filtered(asked, turn, candidates, tools)
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

    async def _read_ahead(
        self,
        asked: Questions,
        turn: Turn,
        candidates: Sequence[Candidate],
        tools: Tools,
    ) -> None:
        """Embed what plugins will ask for in one call; one by one costs twice that."""
        plugins = (*self.filters, *self.scorers, *self.rerankers)
        embedding = [one for one in plugins if isinstance(one, Embeds)]
        if not embedding or not candidates:
            return
        texts = [turn.question, *(one.text for one in candidates)]
        for one in embedding:
            ask = partial(one.texts, turn)
            found = await asked.ask(one.name, ask, _texts)
            texts += found or ()
        await asked.ask("the embedder", partial(tools.embed, texts), lambda _: None)

    async def _filtered(
        self,
        asked: Questions,
        turn: Turn,
        candidates: Sequence[Candidate],
        tools: Tools,
    ) -> tuple[list[Candidate], list[Candidate]]:
        kept, lost = list(candidates), list[Candidate]()
        for one in self.filters:
            if not kept:
                break
            check = partial(_verdicts, kept)
            ask = partial(one.keep, turn, kept, tools)
            verdicts = await asked.ask(one.name, ask, check)
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
            scored = _with_scores(candidates, scores)
            ask = partial(scorer.score, turn, scored, tools)
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


def clean(candidate: Candidate) -> Candidate:
    """
    Return a candidate whose text can be kept and sent: a model server, a document or a
    plugin may hold half a character, which no store and no platform takes.
    """
    text = cleaned(candidate.text)
    return candidate if text == candidate.text else replace(candidate, text=text)


def _with_scores(
    candidates: Sequence[Candidate], scores: Mapping[str, Sequence[float]]
) -> list[Candidate]:
    return [
        replace(
            candidate,
            scores={name: float(values[row]) for name, values in scores.items()},
        )
        for row, candidate in enumerate(candidates)
    ]


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
            contributions={name: float(part[row]) for name, part in parts.items()},
            total=float(sum(part[row] for part in parts.values())),
        )
        for row, candidate in enumerate(_with_scores(candidates, scores))
    ]


def _z_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = values.std()
    # Rounding leaves equal values a spread of the order of their last digit.
    if spread <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return np.zeros_like(values)
    z_scores: NDArray[np.float64] = (values - values.mean()) / spread
    return z_scores


# What is wrong with an answer, or None


def checked_candidates(answer: Sequence[Candidate]) -> str | None:
    # A generator would be used up by the look into it.
    if isinstance(answer, Sequence) and all(
        isinstance(one, Candidate) for one in answer
    ):
        return None
    return "must return a list of Candidates"


def _texts(answer: Sequence[str]) -> str | None:
    if isinstance(answer, Sequence) and all(isinstance(one, str) for one in answer):
        return None
    return "texts must return a list of texts"


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
    if wrong is None and not all(abs(number) <= _LARGEST for number in answer):
        return "returned a score that is not a finite number"
    return wrong


def _permutation(
    candidates: Sequence[Candidate], answer: Sequence[Candidate]
) -> str | None:
    if sorted(map(id, answer)) == sorted(map(id, candidates)):
        return None
    return "rerank must return the same candidates, each once"


def _selection(ranked: Sequence[Candidate], answer: Selection) -> str | None:
    if isinstance(answer.index, int) and 0 <= answer.index < len(ranked):
        return None
    return f"selected position {answer.index} of {len(ranked)} candidates"
