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
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from pydantic import BaseModel, ConfigDict

from bot import hookimpl
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn

# Scripts written without spaces go by pairs of characters: kana, Han, Thai, Lao, Khmer.
_SPACELESS = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"(?P<run>[{_SPACELESS}]+)|[^\W_{_SPACELESS}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")  # noqa: RUF001


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
            words(sentence)
            for passage in turn.passages
            for sentence in _SENTENCE_END.split(passage.text)
        ]
        weights = idf(words(turn.question), spoken)
        return [covered(words(one.text), weights) for one in candidates]


def idf(
    asked: AbstractSet[str], sentences: Sequence[AbstractSet[str]]
) -> dict[str, float]:
    """
    Return the weight of each asked word that any sentence holds. Words that are
    nowhere ("how", "does") tell nothing apart and would only dilute.
    """
    frequency = Counter(word for sentence in sentences for word in sentence)
    return {
        word: math.log(1 + len(sentences) / frequency[word])
        for word in asked
        if frequency[word]
    }


def covered(said: AbstractSet[str], weights: dict[str, float]) -> float:
    """Return the share of the weights whose words were said, 0 when there are none."""
    total = sum(weights.values())
    return (
        sum(weights[word] for word in weights.keys() & said) / total if total else 0.0
    )


def words(text: str) -> frozenset[str]:
    """Return the words, folded, English plurals cut; Chinese by pairs of characters."""
    found: list[str] = []
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        token = match.group()
        if match.lastgroup == "run":
            pairs = [token[at : at + 2] for at in range(len(token) - 1)]
            found.extend(pairs or [token])
        else:
            found.append(_singular(token))
    return frozenset(found)


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):  # noqa: PLR2004
        return word[:-1]
    return word
