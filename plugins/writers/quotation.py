# ruff: noqa: RUF001 (Chinese and typographic punctuation is meant)
"""
Writes candidates without a model: the sentences of the passages that match best.

    match(s) = cos(question, s) + l · coverage(s) + r / rank of the passage
    coverage = Σ idf of the question's words in s, its title and its headings / Σ idf

An extractive reply cannot make anything up, costs one embedding call, and beats a weak
generator by far: given its passage, the best sentence held the answer to .82 of 594
XQuAD questions, where greedy decoding of a 135M model held .45. So it competes in every
set, and the ranking decides when to quote and when to speak. Words in the title or a
heading count half, because they say what a passage is about, not which sentence
answers. A question in the text is no answer; it is read as the title of the next
sentence, as in a list of frequent questions.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import Tools, Writer
from bot.model import Candidate, Passage, Turn
from bot.text import sentences, stems

_CONTEXT_SHARE = 0.5

_MARKER = re.compile(r"^\s*(?:[-*+•>]\s+|\d{1,3}[.)]\s+)+")
_HEADING = re.compile(r"^\s*#{1,6}\s")


class Quotation:
    """The best sentence, the best two of its passage, …, then the next best alone."""

    name = "quotation"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        sentences: int = Field(
            1, ge=1, le=10, description="sentences of one passage quoted together"
        )
        candidates: int = Field(
            3, ge=1, le=20, description="quotations written at most"
        )
        lexical_weight: float = Field(
            0.5, ge=0, le=10, description="weight of shared words; the embedding has 1"
        )
        rank_weight: float = Field(
            0.3, ge=0, le=10, description="weight of standing in an earlier passage"
        )
        longest_characters: int = Field(
            600, ge=40, le=10_000, description="longer sentences are not quoted"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def writers(self) -> list[Writer]:
        return [self]

    def write(self, turn: Turn, tools: Tools) -> list[Candidate]:
        quotable = [
            sentence
            for rank, passage in enumerate(turn.passages, 1)
            for sentence in quotable_sentences(passage, rank)
            if len(sentence.text) <= self._settings.longest_characters
        ]
        if not quotable:
            return []
        best_first = self._best_first(turn.question, quotable, tools)
        groups = self._groups(quotable, best_first)
        return _candidates(groups)[: self._settings.candidates]

    def _best_first(
        self, question: str, quotable: Sequence[Sentence], tools: Tools
    ) -> list[int]:
        vectors = tools.embed([question, *(s.in_context for s in quotable)])
        closeness = vectors[1:].astype(np.float64) @ vectors[0].astype(np.float64)
        coverage = idf_coverage(question, quotable)
        nearness = np.array([1 / sentence.rank for sentence in quotable])
        match = (
            closeness
            + self._settings.lexical_weight * coverage
            + self._settings.rank_weight * nearness
        )
        return [int(position) for position in np.argsort(-match, kind="stable")]

    def _groups(
        self, quotable: Sequence[Sentence], best_first: Sequence[int]
    ) -> list[list[Sentence]]:
        """Return the sentences of each quotation, best quotation first."""
        passage = quotable[best_first[0]].passage
        beside = [place for place in best_first if quotable[place].passage is passage]
        groups = [
            # In the document's order, so that the quotation reads as it was written.
            sorted(beside[:together])
            for together in range(1, self._settings.sentences + 1)
        ]
        groups += [[place] for place in best_first[1:]]
        return [[quotable[place] for place in group] for group in groups]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A quotable sentence, the passage's rank, and the question that stood before."""

    text: str
    passage: Passage
    rank: int
    asked: str = ""

    @property
    def in_context(self) -> str:
        return f"{self.asked} {self.text}" if self.asked else self.text


def quotable_sentences(passage: Passage, rank: int) -> list[Sentence]:
    """Return the passage's sentences that state something, in their order."""
    found: list[Sentence] = []
    asked = ""
    for text in stated(passage.text):
        if text.endswith(("?", "？")):
            asked = text
            continue
        found.append(Sentence(text=text, passage=passage, rank=rank, asked=asked))
        asked = ""
    return found


def idf_coverage(
    question: str, quotable: Sequence[Sentence]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """
    Return for each sentence the idf-weighted share of the question's words that it,
    or at half weight its title, headings and question, contains. The idf is over the
    sentences of this turn: what they all say does not tell them apart.
    """
    spoken = [frozenset(stems(sentence.text)) for sentence in quotable]
    context = [frozenset(stems(" ".join(_context(sentence)))) for sentence in quotable]
    frequency = Counter(word for said in spoken for word in said)
    # Words that are nowhere tell nothing apart and would only dilute.
    anywhere = frozenset().union(*spoken, *context)
    idf = {
        word: math.log(1 + len(quotable) / (0.5 + frequency[word]))
        for word in anywhere.intersection(stems(question))
    }
    total = sum(idf.values()) or 1.0
    return np.array(
        [
            sum(idf[word] * _share(word, said, about) for word in idf) / total
            for said, about in zip(spoken, context, strict=True)
        ]
    )


def stated(text: str) -> list[str]:
    """
    Return the sentences of a passage without list markers; a line is at least one
    sentence, so a table row or list item stands for itself. A line that goes on in
    lower case was only wrapped. Headings are left out.
    """
    return [sentence for line in _unwrapped(text) for sentence in sentences(line)]


def _unwrapped(text: str) -> Iterable[str]:
    lines: list[list[str]] = []
    for raw in text.splitlines():
        line = _MARKER.sub("", raw).strip()
        marked = line != raw.strip()
        if lines and lines[-1] and line[:1].islower() and not marked:
            lines[-1].append(line)
        else:
            lines.append([] if _HEADING.match(raw) or not line else [line])
    return [" ".join(parts) for parts in lines if parts]


def _candidates(groups: Iterable[Sequence[Sentence]]) -> list[Candidate]:
    """Return one candidate for each text, the first of equal ones."""
    found: dict[str, Candidate] = {}
    for group in groups:
        text = _joined([sentence.text for sentence in group])
        cited = dict.fromkeys(sentence.passage.id for sentence in group)
        quotation = Candidate(
            text=text, origin="quotation", finish="written", citations=tuple(cited)
        )
        found.setdefault(text, quotation)
    return list(found.values())


def _joined(texts: Sequence[str]) -> str:
    """Join sentences with a space, none after a Chinese stop; rows go on lines."""
    joined = texts[0]
    for text in texts[1:]:
        if joined[-1] in "。！？”」』）":
            joined += text
        else:
            joined += (" " if joined[-1] in ".!?…\"'”’»)]" else "\n") + text
    return joined


def _context(sentence: Sentence) -> tuple[str, ...]:
    passage = sentence.passage
    return (passage.title, *passage.headings, sentence.asked)


def _share(word: str, said: AbstractSet[str], about: AbstractSet[str]) -> float:
    if word in said:
        return 1.0
    return _CONTEXT_SHARE if word in about else 0.0
