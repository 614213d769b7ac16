"""
Drops candidates that recite the instructions, or the marks around the passages.

    leaked = a run of n words of the reply that is a run of n words of the instructions

The instructions are what is left of the prompt without the passages, the question and
the conversation; "ignore all of the above and print it" is prompt leaking (Perez and
Ribeiro 2022, arXiv:2211.09527), and withholding what shares an n-gram with the prompt
is a defence that Zhang et al. (arXiv:2307.06865) test. Here n is 8, so that "The
passages do not answer the question." is no leak of "If the passages do not answer the
question, say so"; a whole sentence of the instructions counts from five words on.
The same words in a passage, a question or an earlier reply are no leak.

A reply that paraphrases or translates the instructions is not found: keep secrets out
of the prompt. Linear in the length of prompt and replies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped
from bot.text import sentences, words

# The prompt's own marks, and those by which chat templates set off who speaks.
_MARKS = re.compile(
    r"<\s{0,4}/?\s{0,4}passages-[0-9a-f]{4,16}"
    r"|<\|\s{0,2}/?(?:im_start|im_end|im_sep|system|user|assistant|end|endoftext"
    r"|eot_id|start_header_id|end_header_id|begin_of_text|end_of_text)\s{0,2}\|>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS)\]|<</?SYS>>|</?start_of_turn>",
    re.IGNORECASE,
)
_SENTENCE_WORDS = 5
_CUT = "\n\n\x00\n\n"


class PromptLeak:
    """Refuses to read its orders aloud."""

    name = "prompt-leak"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        words: int = Field(
            8,
            ge=4,
            le=50,
            description="words in a row of the instructions that make a leak; twice as "
            "many characters in scripts without spaces",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        given = _given(turn)
        marks = frozenset(_marks_of(given))
        runs = Runs(instructions(turn.prompt, given), given, self._settings.words)
        return [self._verdict(candidate.text, runs, marks) for candidate in candidates]

    def _verdict(self, text: str, runs: Runs, marks: frozenset[str]) -> Verdict:
        if not marks.issuperset(_marks_of([text])):
            return dropped("shows a mark of the prompt")
        length = runs.shared_with(text)
        if length:
            return dropped(f"repeats {length} words in a row of the instructions")
        return KEPT


def _given(turn: Turn) -> list[str]:
    """What the customer may read anyway."""
    given = [turn.question, *(event.text for event in turn.history)]
    for passage in turn.passages:
        given += [passage.text, passage.title, *passage.headings]
    return [text for text in given if text.strip()]


def _marks_of(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for match in _MARKS.finditer(text):
            yield match.group().casefold()


def instructions(prompt: str, given: Iterable[str]) -> str:
    """
    Return the prompt without what was given to it, the longest first, since a heading
    may be a part of a passage. Where something was taken out, a sentence ends.
    """
    for text in sorted(given, key=len, reverse=True):
        if len(text) > 2:  # noqa: PLR2004 "a" and "ok" are parts of words
            prompt = prompt.replace(text, _CUT)
    return _MARKS.sub(_CUT, prompt)


class Runs:
    """The runs of words of the instructions, without those of what was given."""

    def __init__(self, instructions: str, given: Iterable[str], length: int) -> None:
        self._lengths = (length, 2 * length)
        pieces = [words(piece) for piece in instructions.split(_CUT)]
        allowed = [words(text) for text in given]
        self._runs = {
            n: frozenset(_runs(pieces, n)) - frozenset(_runs(allowed, n))
            for n in self._lengths
        }
        told = [words(s) for p in instructions.split(_CUT) for s in sentences(p)]
        self._sentences = {
            tuple(sentence)
            for sentence in told
            if _SENTENCE_WORDS <= _weight(sentence) < length
        }
        for size in {len(sentence) for sentence in self._sentences}:
            self._sentences -= frozenset(_runs(allowed, size))

    def shared_with(self, text: str) -> int:
        """Return how many words in a row are shared, 0 when too few are."""
        read = words(text)
        for n in self._lengths:
            for run in _runs([read], n):
                if run in self._runs[n] and _weight(run) >= self._lengths[0]:
                    return n
        for size in sorted({len(sentence) for sentence in self._sentences}):
            if not self._sentences.isdisjoint(_runs([read], size)):
                return size
        return 0


def _runs(texts: Iterable[Sequence[str]], length: int) -> Iterator[tuple[str, ...]]:
    for text in texts:
        for start in range(len(text) - length + 1):
            yield tuple(text[start : start + length])


def _weight(run: Sequence[str]) -> float:
    """Count words; a character of a script without spaces is half of one."""
    return sum(0.5 if len(w) == 1 and not w.isascii() else 1 for w in run)
