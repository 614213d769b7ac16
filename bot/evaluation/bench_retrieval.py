"""
Bench `retrieval`: milliseconds per question over the bot's own index.

The baseline is what a user would write for as many passages: the same embedder, a
cosine with every passage in numpy, BM25 as the package rank_bm25 computes it, and
reciprocal rank fusion of the two. Both sides embed each question themselves.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bot.evaluation.questions import evenly, handbook_questions
from bot.evaluation.report import BenchRow
from bot.evaluation.suites import shipped_questions
from bot.evaluation.timing import Contest, measured
from bot.evaluation.turns import asking
from bot.interfaces import Embedder, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bot.app import App

QUESTIONS = 20
LIMIT = 5
ROUNDS = 7


def retrieval_bench(app: App, progress: Progress) -> list[BenchRow]:
    """Measure a search for shipped questions, in the index as it is."""
    texts = _indexed_texts(app)
    progress("Embedding for the baseline", 0, None)
    baseline = _Baseline(texts, app.embedder())
    questions = evenly(handbook_questions(shipped_questions()), QUESTIONS)
    turns = [asking(one.id, one.question) for one in questions]
    retriever = app.retriever()
    progress("Searching", 0, None)
    with asyncio.Runner() as loop:

        def ours(_: int) -> None:
            for turn in turns:
                loop.run(retriever.retrieve(turn, LIMIT))

        def theirs(_: int) -> None:
            for turn in turns:
                baseline.retrieve(turn.question, LIMIT)

        row = measured(
            Contest(
                case=f"{len(texts)} passages",
                ours=ours,
                baseline="numpy cosine + BM25Okapi as in rank_bm25, rank fusion",
                theirs=theirs,
                unit="ms per question",
                per_second=1000 / len(turns),
            ),
            rounds=ROUNDS,
        )
    return [row]


def _indexed_texts(app: App) -> list[str]:
    generation = app.index().generation()
    passages = generation.passages(generation.matching({}).tolist())
    return [passage.text for passage in passages.values()]


class _Baseline:
    """Hybrid search over passages in memory."""

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors = embedder.embed(texts)
        self._words = Bm25([_words(text) for text in texts])

    def retrieve(self, question: str, limit: int) -> list[int]:
        cosines = self._vectors @ self._embedder.embed([question])[0]
        by_words = self._words.scores(_words(question))
        fused = _reciprocal_ranks(cosines) + _reciprocal_ranks(by_words)
        best: list[int] = np.argsort(-fused)[:limit].tolist()
        return best


class Bm25:
    """
    BM25Okapi: Σ idf(q) · f (k1 + 1) / (f + k1 (1 - b + b · length / mean length)),
    f being the number of times q is in the text.
    """

    def __init__(
        self, texts: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75
    ) -> None:
        self._counts = [Counter(text) for text in texts]
        lengths = np.array([len(text) for text in texts], dtype=np.float64)
        self._penalty = k1 * (1 - b + b * lengths / max(lengths.mean(), 1.0))
        self._k1 = k1
        holding = Counter(word for counts in self._counts for word in counts)
        self._idf = {
            word: math.log(1 + (len(texts) - number + 0.5) / (number + 0.5))
            for word, number in holding.items()
        }

    def scores(self, words: Sequence[str]) -> NDArray[np.float64]:
        total = np.zeros(len(self._counts))
        for word in words:
            found = np.array([counts[word] for counts in self._counts])
            gain = found * (self._k1 + 1) / (found + self._penalty)
            total += self._idf.get(word, 0.0) * gain
        return total


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _reciprocal_ranks(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 / (60 + rank), the usual constant of Cormack, Clarke and Büttcher 2009."""
    fused = np.empty(len(scores))
    fused[np.argsort(-scores)] = 1 / (60 + np.arange(1, len(scores) + 1))
    return fused
