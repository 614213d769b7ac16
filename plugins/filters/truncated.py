# ruff: noqa: RUF001 (Chinese and typographic punctuation is meant)
"""
Drops candidates that ran out of tokens or time in the middle of a sentence.

A cut candidate that happens to end a sentence is whole as far as its reader can tell,
and is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped

# A stop, then any closing quotes, brackets and Markdown emphasis. A Latin full stop
# ends a sentence only before white space or the end: "3.5" and "chorus.ai" do not.
# A run of stops is read once, from its beginning, and nothing of it is given back.
_SENTENCE_END = re.compile(
    r"(?:(?<![.!?…])[.!?…]++[\"'”’»)\]*_`]*+(?=\s|$)|[。！？]+[”’」』）]*)"
)


class Truncated:
    """Refuses half a sentence."""

    name = "truncated"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        allow_after_sentences: int = Field(
            0,
            ge=0,
            le=100,
            description="whole sentences after which a cut one may follow; 0: never",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        return [self._verdict(candidate) for candidate in candidates]

    def _verdict(self, candidate: Candidate) -> Verdict:
        if candidate.finish != "length" or ends_a_sentence(candidate.text):
            return KEPT
        allowed = self._settings.allow_after_sentences
        if allowed and whole_sentences(candidate.text) >= allowed:
            return KEPT
        return dropped("was cut in the middle of a sentence")


def ends_a_sentence(text: str) -> bool:
    stripped = text.rstrip()
    return any(end.end() == len(stripped) for end in _SENTENCE_END.finditer(stripped))


def whole_sentences(text: str) -> int:
    return len(_SENTENCE_END.findall(text))
