"""
Scores how much of a reply the passages support.

    score = (1 - e) · precision + e · max over passage sentences of cos(reply, sentence)
    precision = Σ weight of the reply's content words found in the passages / Σ weight

Lexical precision is the best cheap detector of unsupported replies: its AUC on the
labels of BEGIN (Dziri et al. 2022, arXiv:2105.00071) is .97 / .92 / .95 for cmu-dog,
topical-chat and wizard dev; the embedding's is .90 / .81 / .82. The embedding's share
is for paraphrases (DSTC9's human ratings: 54 % of the way from a random pick to the
best one without it, 57 % with). Numbers weigh more, because a wrong one hurts more.
A passage's title and headings count as part of it. Without passages nothing is
supported and every score is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Passage, Turn
from bot.text import content_words, sentences


class Groundedness:
    """Prefers what the passages say over what the model remembers. Up to 1."""

    name = "groundedness"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        number_weight: float = Field(
            2.0, ge=0, le=20, description="weight of a number; a word weighs 1"
        )
        embedding_share: float = Field(
            0.3, ge=0, le=1, description="share of the embedding; 0 asks for none"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def texts(self, turn: Turn) -> list[str]:
        return _all_sentences(turn.passages) if self._settings.embedding_share else []

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        if not candidates or not turn.passages:
            return [0.0] * len(candidates)
        texts = [candidate.text for candidate in candidates]
        known = frozenset(_all_words(turn.passages))
        precisions = [
            precision(text, known, self._settings.number_weight) for text in texts
        ]
        share = self._settings.embedding_share
        if not share:
            return precisions
        closeness = _closest(texts, _all_sentences(turn.passages), tools)
        mixed = (1 - share) * np.array(precisions) + share * closeness
        return [float(score) for score in mixed]


def precision(text: str, known: AbstractSet[str], number_weight: float) -> float:
    """
    Return the weighted share of the text's content words that are known. A text
    without any, such as "Yes.", claims nothing that could be supported: 0.
    """
    weights = [
        (number_weight if word[0].isdigit() else 1.0, word in known)
        for word in content_words(text)
    ]
    total = sum(weight for weight, _ in weights)
    if not total:
        return 0.0
    return sum(weight for weight, supported in weights if supported) / total


def _closest(
    texts: Sequence[str], spoken: Sequence[str], tools: Tools
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return for each text the cosine of its closest sentence; 0 if there is none."""
    if not spoken:
        return np.zeros(len(texts))
    vectors = tools.embed([*texts, *spoken]).astype(np.float64)
    similarity = vectors[: len(texts)] @ vectors[len(texts) :].T
    closest: np.ndarray[tuple[int], np.dtype[np.float64]] = similarity.max(axis=1)
    return closest


def _all_words(passages: Iterable[Passage]) -> Iterable[str]:
    for passage in passages:
        for text in (passage.text, passage.title, *passage.headings):
            yield from content_words(text)


def _all_sentences(passages: Iterable[Passage]) -> list[str]:
    return [sentence for one in passages for sentence in sentences(one.text)]
