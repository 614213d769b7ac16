"""
Scores how close a reply is to the reading ease that is wanted.

    English: ease = 206.835 - 1.015 · words / sentences - 84.6 · syllables / words
             score = -|ease - target| / 100
    Chinese, Japanese, Thai: score = -|ln(characters per sentence / target)|

Flesch 1948; 60 to 70 is plain English, below 30 is for graduates. Syllables are counted
by groups of vowels, which is off by a few per cent and enough to order replies. Scripts
without spaces are measured by their sentences' length alone. A text in neither, or
without words, gets the mean of the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn
from bot.text import is_written_in, sentences, words

_VOWELS = re.compile(r"[aeiouy]+")
_EASIEST = 120.0
_FURTHEST = _EASIEST / 100  # both measures end there, so that neither outweighs


class Readability:
    """Prefers replies that read as easily as is set. From -1.2 to 0."""

    name = "readability"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        ease: float = Field(
            65.0,
            ge=0,
            le=_EASIEST,
            description="Flesch reading ease to come close to; higher is easier",
        )
        characters: float = Field(
            20.0,
            ge=1,
            le=500,
            description="characters of a sentence to come close to, in Chinese, "
            "Japanese and Thai",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        found = [self._closeness(candidate.text) for candidate in candidates]
        known = [closeness for closeness in found if closeness is not None]
        neutral = sum(known) / len(known) if known else 0.0
        return [neutral if closeness is None else closeness for closeness in found]

    def _closeness(self, text: str) -> float | None:
        spoken = words(text)
        if not spoken:
            return None
        lines = len(sentences(text))
        if is_written_in(text, ["zh", "ja", "th"]):
            off = abs(math.log(len(spoken) / lines / self._settings.characters))
        elif is_written_in(text, ["en"]):
            off = abs(reading_ease(spoken, lines) - self._settings.ease) / 100
        else:
            return None
        return -min(off, _FURTHEST)


def reading_ease(spoken: Sequence[str], lines: int) -> float:
    """Return Flesch's reading ease of words in so many sentences, 0 to 120."""
    each = sum(map(syllables, spoken)) / len(spoken)
    ease = 206.835 - 1.015 * len(spoken) / lines - 84.6 * each
    return min(max(ease, 0.0), _EASIEST)


def syllables(word: str) -> int:
    """Return about how many syllables an English word has; it is in lower case."""
    count = len(_VOWELS.findall(word))
    # "care" has a silent e, "table" has not.
    if word.endswith("e") and not word.endswith("le"):
        count -= 1
    return max(count, 1)
