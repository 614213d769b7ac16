"""
From a document to its passages. Pure: no files, no model, only a way to count tokens.

Sentences are packed in order into passages of even length. A passage never reaches from
one section (heading path down to the second level) into another; deeper headings that
it crosses stay in its text. Neighbours in a section overlap by whole sentences.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from bot.knowledge.blocks import Block, Document
from bot.model import Passage
from bot.text import sentence_spans

CountTokens = Callable[[str], int]

_SECTION_LEVELS = 2
_CUTS = (re.compile(r"\s+"), re.compile(r"[,;:，、；：]"))  # noqa: RUF001 - Chinese marks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """A sentence, or a part of one that is longer than a passage may be."""

    block: Block
    start: int
    end: int
    tokens: int


def passages(
    document: Document,
    count_tokens: CountTokens,
    *,
    passage_tokens: int,
    overlap_tokens: int,
) -> list[Passage]:
    """
    Cut a document into passages of at most `passage_tokens`, in reading order. A
    passage's id depends on its source and text alone, so it survives changes elsewhere.
    """
    made: list[Passage] = []
    seen: Counter[str] = Counter()
    for section in _sections(document, count_tokens, passage_tokens):
        for units in _packed(section, count_tokens, passage_tokens, overlap_tokens):
            text = _text(units)
            made.append(_passage(document, units, text, seen[text]))
            seen[text] += 1
    return made


def context(passage: Passage) -> str:
    """Return what is said above a passage: title and headings, each once."""
    return " > ".join(dict.fromkeys(filter(None, (passage.title, *passage.headings))))


def _sections(
    document: Document, count_tokens: CountTokens, limit: int
) -> Iterator[list[_Unit]]:
    by_section = groupby(
        document.blocks, key=lambda block: tuple(block.headings[:_SECTION_LEVELS])
    )
    for _, blocks in by_section:
        yield [unit for block in blocks for unit in _units(block, count_tokens, limit)]


def _units(block: Block, count_tokens: CountTokens, limit: int) -> Iterator[_Unit]:
    for start, end in sentence_spans(block.text):
        for first, last in _within(block.text, start, end, count_tokens, limit):
            # What the tokenizer drops counts too, or a passage would never be full.
            tokens = max(1, count_tokens(block.text[first:last]))
            yield _Unit(block=block, start=first, end=last, tokens=tokens)


def _within(
    text: str, start: int, end: int, count_tokens: CountTokens, limit: int
) -> list[tuple[int, int]]:
    """Halve a sentence, near spaces if it has any, until every part fits."""
    if end - start <= 1 or count_tokens(text[start:end]) <= limit:
        return [(start, end)]
    middle = _cut(text, start, end)
    return [
        *_within(text, start, middle, count_tokens, limit),
        *_within(text, middle, end, count_tokens, limit),
    ]


def _cut(text: str, start: int, end: int) -> int:
    middle = (start + end) // 2
    quarter = (end - start) // 4
    for mark in _CUTS:
        found = mark.search(text, middle, middle + quarter)
        if found is not None and found.end() < end:
            return found.end()
    return max(middle, start + 1)


def _packed(
    units: Sequence[_Unit], count_tokens: CountTokens, limit: int, overlap: int
) -> Iterator[list[_Unit]]:
    overlap = min(overlap, limit // 2)
    target = _even_length(_size(units, count_tokens), limit, overlap)
    current: list[_Unit] = []
    fresh = 0  # units of `current` that are not repeated from the passage before
    for unit in units:
        full = _size(current, count_tokens) >= target
        if fresh and (full or _size([*current, unit], count_tokens) > limit):
            yield current
            current = _repeated(current, unit, count_tokens, limit, overlap)
            fresh = 0
        current.append(unit)
        fresh += 1
    if current:
        yield current


def _even_length(total: int, limit: int, overlap: int) -> int:
    """Return the length at which passages come out even instead of full and a rest."""
    if total <= limit:
        return limit
    count = math.ceil((total - overlap) / (limit - overlap))
    return math.ceil((total + (count - 1) * overlap) / count)


def _repeated(
    before: Sequence[_Unit],
    unit: _Unit,
    count_tokens: CountTokens,
    limit: int,
    overlap: int,
) -> list[_Unit]:
    """Return the last sentences of a passage that the next one begins with."""
    repeated: list[_Unit] = []
    for previous in reversed(before[1:]):
        longer = [previous, *repeated]
        if (
            _size(longer, count_tokens) > overlap
            or _size([*longer, unit], count_tokens) > limit
        ):
            break
        repeated = longer
    return repeated


def _size(units: Sequence[_Unit], count_tokens: CountTokens) -> int:
    tokens = sum(unit.tokens for unit in units)
    return tokens + sum(count_tokens(line) for line in _heading_lines(units) if line)


def _text(units: Sequence[_Unit]) -> str:
    """Return the units' text: as written within a block, a new line for each block."""
    lines: list[str] = []
    block_start = 0
    for index, (unit, heading) in enumerate(
        zip(units, _heading_lines(units), strict=True)
    ):
        before = units[index - 1] if index else None
        if heading:
            lines.append(heading)
        if before is not None and before.block is unit.block and lines:
            lines[-1] = unit.block.text[block_start : unit.end]
        else:
            block_start = unit.start
            lines.append(unit.block.text[unit.start : unit.end])
    return "\n".join(lines)


def _heading_lines(units: Sequence[_Unit]) -> list[str]:
    """Return, for each unit, the headings that open before it within this passage."""
    common = len(_common_path(units))
    lines: list[str] = []
    before: Sequence[str] = ()
    for unit in units:
        path = tuple(unit.block.headings[common:])
        lines.append(" > ".join(path) if path != before else "")
        before = path
    return lines


def _common_path(units: Sequence[_Unit]) -> tuple[str, ...]:
    paths = [unit.block.headings for unit in units]
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    return tuple(level[0] for level in levels)


def _passage(
    document: Document, units: Sequence[_Unit], text: str, equals_before: int
) -> Passage:
    name = f"{document.source}\0{text}\0{equals_before}"
    first = units[0].block
    return Passage(
        id=hashlib.sha256(name.encode()).hexdigest()[:16],
        text=text,
        source=document.source,
        title=document.title,
        headings=_common_path(units),
        page=first.page,
        line=first.line,
        metadata=dict(document.metadata),
    )
