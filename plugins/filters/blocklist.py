"""
Drops candidates that contain a listed word or phrase.

A phrase matches as whole words, whatever the case, the width of the letters, the
punctuation between its words and the invisible characters inside them; "class" does
not contain "ass". Chinese, Japanese, Thai, Lao, Khmer and Burmese have no spaces and
match anywhere. There are no patterns: a list of phrases cannot be slow, or subtly
wrong. The reason names the entry's place in the list, never the word, because reasons
are shown and logged.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped
from bot.text import is_letter, is_unspaced, visible


def _with_a_word(phrase: str) -> str:
    if not words(phrase):
        raise ValueError("has no letter or digit; write a word or a phrase")
    return phrase


Phrase = Annotated[str, Field(max_length=200), AfterValidator(_with_a_word)]


class Blocklist:
    """Refuses what the operator never wants said."""

    name = "blocklist"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        phrases: tuple[Phrase, ...] = Field(
            min_length=1,
            max_length=10_000,
            description="words and phrases that no reply may contain",
        )

    def __init__(self, settings: Settings) -> None:
        self._phrases = PhraseSet(settings.phrases)

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        return [self._verdict(candidate.text) for candidate in candidates]

    def _verdict(self, text: str) -> Verdict:
        entry = self._phrases.first_in(text)
        if entry is None:
            return KEPT
        return dropped(f"contains entry {entry + 1} of the blocklist")


class PhraseSet:
    """Phrases, looked up by their first word: O(words of the text), near enough."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_first_word = defaultdict[str, list[tuple[int, list[str]]]](list)
        for entry, phrase in enumerate(phrases):
            spelt = words(phrase)
            self._by_first_word[spelt[0]].append((entry, spelt))

    def first_in(self, text: str) -> int | None:
        """Return the position of a phrase that the text contains, or None."""
        read = words(text)
        for start, word in enumerate(read):
            for entry, spelt in self._by_first_word.get(word, ()):
                if read[start : start + len(spelt)] == spelt:
                    return entry
        return None


def words(text: str) -> list[str]:
    """Return the words, folded; every character of a spaceless script is a word."""
    folded = unicodedata.normalize("NFKC", visible(text)).casefold()
    found: list[str] = []
    for kind, run in groupby(folded, key=_kind):
        if kind == "spaceless":
            found.extend(run)
        elif kind == "word":
            found.append("".join(run))
    return found


def _kind(character: str) -> str:
    if not is_letter(character):
        return "between"
    return "spaceless" if is_unspaced(character) else "word"
