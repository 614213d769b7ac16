"""
Scores how much of what was asked a reply speaks of.

    score(reply) = sum of idf(w), w in question and reply / sum of idf(w), w in question

over the words w of the question that the passages know, with the inverse document
frequency (Spärck Jones 1972) over the sentences of the turn's passages. Embeddings see
hardly a difference between "code E12" and "code E22"; one rare word decides here. An
echo of the question scores well too, so it needs groundedness beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from pydantic import BaseModel, ConfigDict

from bot import hookimpl
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn
from bot.text import sentences, stems


class Coverage:
    """Prefers replies that speak of the rare words of the question. From 0 to 1."""

    name = "coverage"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        spoken = [
            frozenset(stems(sentence))
            for passage in turn.passages
            for sentence in sentences(passage.text)
        ]
        weights = idf(frozenset(stems(turn.question)), spoken)
        return [covered(frozenset(stems(one.text)), weights) for one in candidates]


def idf(
    asked: AbstractSet[str], spoken: Sequence[AbstractSet[str]]
) -> dict[str, float]:
    """
    Return the weight of each asked word that any sentence holds. Words that are
    nowhere tell nothing apart and would only dilute.
    """
    frequency = Counter(word for sentence in spoken for word in sentence)
    return {
        word: math.log(1 + len(spoken) / frequency[word])
        for word in asked
        if frequency[word]
    }


def covered(said: AbstractSet[str], weights: dict[str, float]) -> float:
    """Return the share of the weights whose words were said, 0 when there are none."""
    total = sum(weights.values())
    return (
        sum(weights[word] for word in weights.keys() & said) / total if total else 0.0
    )
