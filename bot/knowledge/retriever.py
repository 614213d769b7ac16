"""
Retrieval: the passages for a question, by words and by meaning together.

Three legs look at the index: BM25, the embedding of the whole passage, the embedding of
its best sentence. Each names candidates; every candidate is then scored exactly on all
legs, and the sum of z-scores orders them. An embedder is not asked about a question in
a language that it cannot read. Knows nothing of how passages are used.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz

from bot.interfaces import Embedder
from bot.knowledge import lexical
from bot.knowledge.generation import Generation, Numbers, Vectors
from bot.knowledge.index import Index, embedded
from bot.model import Passage, Turn
from bot.text import cleaned, is_written_in

LEGS = frozenset({"bm25", "dense", "sentence"})
_BY_MEANING = frozenset({"dense", "sentence"})

_QUESTION_CHARACTERS = 4000
_CANDIDATES = 50
_SENTENCES_PER_CANDIDATE = 3
_FOLLOW_UP_TERMS = 3

# Near copies: almost the same letters and the very same numbers.
_COPY = 95
# Versions of one text: alike, but they may differ in a number or a date.
_VERSION = 80
_EQUAL_SCORES = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Relevance:
    """
    How relevant a passage is, 0 to 1, whatever else was found: a logistic function of
    the best cosine between question and passage (whole or sentence) and of coverage,
    the share of the question's terms, weighted by rarity, that the passage holds.
    Where the embedder cannot be trusted, coverage has to do alone.

    The numbers are a logistic regression on the "tune" half of the handbook's questions
    (best passage of each question; answerable or not). At 0.35 it keeps 93 of 100
    answerable questions. Unanswerable ones that are about the handbook's own subjects
    look much like answerable ones to these signals (AUC 0.82, 0.77 on the other half).
    """

    bias: float = -2.8
    cosine: float = 2.7
    coverage: float = 3.7
    words_only_bias: float = -2.1
    words_only_coverage: float = 5.0

    def of(self, cosine: float | None, coverage: float) -> float:
        if cosine is None:
            return _logistic(self.words_only_bias + self.words_only_coverage * coverage)
        return _logistic(self.bias + self.cosine * cosine + self.coverage * coverage)


class HybridRetriever:
    """Searches an index. `legs` leaves some out, to see what each is worth."""

    name = "documents"

    def __init__(
        self,
        index: Index,
        embedder: Embedder,
        legs: frozenset[str] = LEGS,
        relevance: Relevance | None = None,
    ) -> None:
        if not legs or legs - LEGS:
            raise ValueError(f"legs must be some of {sorted(LEGS)}, not {sorted(legs)}")
        self._index = index
        self._embedder = embedder
        self._legs = legs
        self._relevance = relevance or Relevance()
        index.tell_warnings()

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        """Return the best passages; near copies of better ones are left out."""
        return await asyncio.to_thread(self._for_turn, turn, limit)

    def search(
        self, question: str, limit: int, where: Mapping[str, str] | None = None
    ) -> list[Passage]:
        """
        Return exactly min(limit, how many there are) passages of those whose metadata
        has everything in `where`. Near copies of better ones come last.
        """
        generation = self._index.generation()
        among = generation.matching(where) if where else None
        ranked = self._ranked(generation, question, limit, among)
        kept, copies = _without_copies(ranked, limit)
        return (kept + copies)[:limit]

    def _for_turn(self, turn: Turn, limit: int) -> list[Passage]:
        question = standalone_question(turn)
        if not question.strip():
            return []
        ranked = self._ranked(self._index.generation(), question, limit, None)
        found = [passage for passage in ranked if _has_evidence(passage)]
        kept, _ = _without_copies(found, limit)
        return kept[:limit]

    def _ranked(
        self,
        generation: Generation,
        question: str,
        limit: int,
        among: Numbers | None,
    ) -> list[Passage]:
        asked = _Asked(self._embedder, self._legs, generation, question)
        numbers = asked.candidates(max(_CANDIDATES, 4 * limit), among)
        if not numbers:
            return []
        scores = asked.scores(numbers)
        fused = fuse(np.stack([scores[leg] for leg in asked.legs], axis=1))
        covered = asked.coverage(numbers)
        found = generation.passages(numbers)
        passages = [
            replace(
                found[number],
                score=float(fused[at]),
                scores=self._parts(scores, covered, at),
            )
            for at, number in enumerate(numbers)
        ]
        return newer_first(sorted(passages, key=lambda passage: -passage.score))

    def _parts(
        self, scores: Mapping[str, Vectors], covered: Vectors, at: int
    ) -> dict[str, float]:
        parts: dict[str, float] = {
            leg: float(values[at]) for leg, values in scores.items()
        }
        cosines = [parts[leg] for leg in _BY_MEANING if leg in parts]
        coverage = float(covered[at])
        relevance = self._relevance.of(max(cosines, default=None), coverage)
        return parts | {"coverage": coverage, "relevance": relevance}


class _Asked:
    """One question put to one generation, by the legs that can answer it."""

    def __init__(
        self,
        embedder: Embedder,
        legs: frozenset[str],
        generation: Generation,
        question: str,
    ) -> None:
        self._generation = generation
        question = cleaned(question[:_QUESTION_CHARACTERS])
        trusted = is_written_in(question, embedder.languages)
        usable = legs if trusted else legs - _BY_MEANING
        # Words are all that is left when meaning cannot be trusted.
        self.legs: list[str] = sorted(usable) or ["bm25"]
        content = lexical.content_terms(question)
        self._rarities = generation.rarities(content or lexical.terms(question))
        self._vector = (
            embedded(embedder, [question])[0] if _BY_MEANING & usable else None
        )

    def candidates(self, count: int, among: Numbers | None) -> list[int]:
        """Return what any leg holds to be among its best, and enough to choose from."""
        terms = list(self._rarities)
        found: dict[int, None] = {}
        if "bm25" in self.legs:
            best = self._generation.best_by_words(terms, count, among)
            found.update(dict.fromkeys(number for number, _ in best))
        if self._vector is not None and "dense" in self.legs:
            near = self._generation.nearest(self._vector, count, among)
            found.update(dict.fromkeys(near))
        if self._vector is not None and "sentence" in self.legs:
            near = self._generation.nearest_by_sentence(
                self._vector, _SENTENCES_PER_CANDIDATE * count, among
            )
            found.update(dict.fromkeys(near))
        return [*found, *self._others(found, count, among)]

    def scores(self, numbers: Sequence[int]) -> dict[str, Vectors]:
        """Return each leg's exact score of each of these passages."""
        scores: dict[str, Vectors] = {}
        for leg in self.legs:
            if leg == "bm25":
                found = self._generation.word_scores(list(self._rarities), numbers)
                values = [found.get(number, 0.0) for number in numbers]
                scores[leg] = np.array(values, np.float32)
            elif self._vector is not None and leg == "dense":
                scores[leg] = self._generation.cosines(self._vector, numbers)
            elif self._vector is not None:
                scores[leg] = self._generation.sentence_cosines(self._vector, numbers)
        return scores

    def coverage(self, numbers: Sequence[int]) -> Vectors:
        """Return the share of the question's terms that each passage holds."""
        held = self._generation.holding(self._rarities, numbers)
        return np.array(
            [lexical.coverage(held, self._rarities, number) for number in numbers],
            np.float32,
        )

    def _others(
        self, found: Mapping[int, None], count: int, among: Numbers | None
    ) -> list[int]:
        """Return passages that no leg named, where the legs named too few."""
        wanted = count - len(found)
        if wanted <= 0:
            return []
        everything = range(1, len(self._generation) + 1) if among is None else among
        others = (int(number) for number in everything if int(number) not in found)
        return [number for _, number in zip(range(wanted), others, strict=False)]


def fuse(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Return the sum of the z-scores of [n candidates, legs]. A leg that tells no
    difference adds nothing. It beat reciprocal rank fusion (QUALITY.md, section 3).
    """
    spread = scores.std(axis=0)
    centred = scores - scores.mean(axis=0)
    z = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    fused: NDArray[np.float32] = z.sum(axis=1)
    return fused


def standalone_question(turn: Turn) -> str:
    """
    Return what to search for. A question of fewer than three content terms ("and for
    batteries?") is read together with the customer's message before it; a greeting or
    thanks is not.
    """
    question = turn.question[:_QUESTION_CHARACTERS]
    short = len(lexical.content_terms(question)) < _FOLLOW_UP_TERMS
    if not short or lexical.is_courtesy(question):
        return question
    earlier = [event.text for event in turn.history if event.kind == "message"]
    return f"{earlier[-1][:_QUESTION_CHARACTERS]}\n{question}" if earlier else question


def newer_first(ranked: Sequence[Passage]) -> list[Passage]:
    """
    Put the newer of two versions of a text before the older where their scores are
    about equal. Dates are compared as written (ISO 8601 sorts by itself).
    """
    ordered = list(ranked)
    for at in range(len(ordered)):
        older = ordered[at]
        if not older.metadata.get("date"):
            continue
        equals = takewhile(
            lambda later: older.score - later.score <= _EQUAL_SCORES,  # noqa: B023 - used at once
            ordered[at + 1 :],
        )
        newer = [later for later in equals if _is_newer(later, older)]
        if newer:
            newest = max(newer, key=lambda passage: passage.metadata["date"])
            ordered.remove(newest)
            ordered.insert(at, newest)
    return ordered


def _is_newer(passage: Passage, other: Passage) -> bool:
    dates = passage.metadata.get("date", ""), other.metadata.get("date", "")
    return (
        all(dates)
        and dates[0] > dates[1]
        and fuzz.ratio(passage.text, other.text) >= _VERSION
    )


def _without_copies(
    ranked: Sequence[Passage], enough: int
) -> tuple[list[Passage], list[Passage]]:
    """Return the first `enough` passages unlike each other, and their copies."""
    kept: list[Passage] = []
    copies: list[Passage] = []
    for passage in ranked:
        if len(kept) == enough:
            break
        is_copy = any(_is_copy(passage.text, better.text) for better in kept)
        (copies if is_copy else kept).append(passage)
    return kept, copies


def _is_copy(text: str, other: str) -> bool:
    # Another number is another fact, however alike the words are.
    return fuzz.ratio(text, other) >= _COPY and _figures(text) == _figures(other)


def _figures(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def _has_evidence(passage: Passage) -> bool:
    return any(passage.scores.get(leg, 0.0) > 0 for leg in LEGS)


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))
