"""
Scores how close the tone of a reply is to the one that is wanted.

    score(reply) = 1 - |mean over sentences of compound(sentence) - target| / 2

`compound` is VADER's (Hutto and Gilbert 2014), a lexicon of rated English words and
emoji with rules for negation and emphasis: it was made for sentences. Tone is no
judgement of content, so give it a small weight. A text in another script counts as
neutral; another language in Latin letters would be read as English ("die" is a German
article), so leave this scorer out there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field
from vaderSentiment.vaderSentiment import (  # type: ignore[import-untyped] # no stubs
    SentimentIntensityAnalyzer,
)

from bot import hookimpl
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn
from bot.text import is_written_in, sentences

# VADER is quadratic in the words of what it is given at once.
_READ_CHARACTERS = 2000
_SENTENCE_CHARACTERS = 300


class Sentiment:
    """Prefers replies in the tone that is set. From 0 to 1."""

    name = "sentiment"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        target: float = Field(
            0.3, ge=-1, le=1, description="-1: negative, 0: neutral, 1: enthusiastic"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._analyzer = SentimentIntensityAnalyzer()

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        return [
            closeness(tone(candidate.text, self._compound), self._settings.target)
            for candidate in candidates
        ]

    def _compound(self, sentence: str) -> float:
        return float(self._analyzer.polarity_scores(sentence)["compound"])


def tone(text: str, compound: Callable[[str], float]) -> float:
    """Return the mean over the sentences, -1 to 1; 0 for what is not read."""
    read = text[:_READ_CHARACTERS]
    found = sentences(read) if is_written_in(read, ["en"]) else []
    compounds = [compound(sentence[:_SENTENCE_CHARACTERS]) for sentence in found]
    return sum(compounds) / len(compounds) if compounds else 0.0


def closeness(found: float, target: float) -> float:
    """Return 1 where the tone is the wanted one, 0 where it is the opposite extreme."""
    return 1 - abs(found - target) / 2
