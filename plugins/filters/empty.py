"""
Drops candidates in which there is nothing to read.

A character counts as readable when it is a letter, a digit or a symbol such as an
emoji; punctuation, white space and invisible characters do not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped


class Empty:
    """Refuses to send nothing."""

    name = "empty"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        minimum_characters: int = Field(
            1, ge=1, le=1000, description="readable characters that a reply must have"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        return [self._verdict(candidate.text) for candidate in candidates]

    def _verdict(self, text: str) -> Verdict:
        readable = readable_characters(text)
        if readable >= self._settings.minimum_characters:
            return KEPT
        if readable == 0:
            return dropped("has nothing to read")
        return dropped(
            f"has {readable} readable characters, "
            f"fewer than {self._settings.minimum_characters}"
        )


def readable_characters(text: str) -> int:
    """Count letters (L), digits and numerals (N) and symbols (S)."""
    return sum(unicodedata.category(character)[0] in "LNS" for character in text)
