"""
Never says the listed words as whole words, in whatever tokens they could be spelt.

    p(v) = 0 where the text so far and the text of v hold a listed word that ends in v,
    with no letter before it, and none after it in v

By words, not by ids: case, width, zero-width characters and the cut into tokens make no
difference. Accents do; several on one letter, as tokens of their own, are known in the
order of Unicode only. "class" does not hold "ass". Chinese, Japanese, Thai, Lao, Khmer
and Burmese have no spaces, so their words match anywhere. Put this step first: one that
leaves a single token may leave a listed word, and the reply then ends before it.

What stays sayable: every word that some row of tokens spells without stopping right
behind a listed word. The end of a token counts as the end of the word there, because
the reply may be cut off at any token: " assume" can be said, " ass" + "ume" cannot. A
short listed word at which the vocabulary cuts longer ones ("a", "un") therefore costs
those their usual spelling.

The vocabulary is read once, O(vocab · longest word). A step looks at the last few
characters of each row. A character of which only some bytes are drawn is completed in
every way there is, the first time it is met: some milliseconds, then remembered.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.errors import PluginError
from bot.interfaces import LogitsProcessor, Vocabulary
from bot.model import Turn
from bot.text import folded, is_joining, is_letter, joined, visible

# What a token's text holds for bytes that are no whole character.
PART = "\N{REPLACEMENT CHARACTER}"
_MOST_BYTES = 4
_LOOKED_BACK = 3 * _MOST_BYTES
_REMEMBERED = 4096
_Completions = tuple[int, dict[str, Tensor]]


def _one_word(word: str) -> str:
    spelt = read(word)
    if not spelt or any(map(str.isspace, spelt)):
        raise ValueError("is not one word; list each word by itself")
    if not (is_letter(spelt[0]) and is_letter(spelt[-1])):
        raise ValueError("does not begin and end with a letter or digit")
    return word


Word = Annotated[str, Field(max_length=50), AfterValidator(_one_word)]


class BlockedWords:
    """Never draws the listed words, so that no reply is lost for them."""

    name = "blocked-words"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        words: tuple[Word, ...] = Field(
            min_length=1, max_length=1000, description="words that no reply may hold"
        )

    def __init__(self, settings: Settings) -> None:
        self._words = frozenset(map(read, settings.words))
        self._spellings: Spellings | None = None

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def read_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._spellings = Spellings(self._words, vocabulary)

    def begin(self, turn: Turn, siblings: int) -> BlockedWordsStep:
        if self._spellings is None:
            raise PluginError(
                self.name,
                "was not given the model's vocabulary, without which it cannot tell "
                "what a token says; use it with a local model",
            )
        return BlockedWordsStep(self._spellings)


class BlockedWordsStep:
    """Keeps no state: the tokens drawn so far are all it needs."""

    def __init__(self, spellings: Spellings) -> None:
        self._spellings = spellings

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        blocked = logits.clone()
        blocked[:, self._spellings.everywhere] = -math.inf
        for row, drawn in enumerate(tokens.tolist()):
            for ids in self._spellings.completing(drawn):
                blocked[row, ids] = -math.inf
        stuck = blocked.amax(dim=1) == -math.inf
        if bool(stuck.any()):
            blocked[stuck] = self._ended(logits[stuck])
        return blocked

    def _ended(self, logits: Tensor) -> Tensor:
        """Return logits that end a row, or as they are where no token does."""
        ends = sorted(self._spellings.end_tokens)
        if not ends:
            return logits
        ended = torch.full_like(logits, -math.inf)
        ended[:, ends] = logits.amax(dim=1, keepdim=True)
        return ended


class Spellings:
    """
    The listed words, folded, against one vocabulary. `everywhere` are the tokens that
    hold one whatever stands before; which others complete one, the text so far decides.
    """

    def __init__(self, words: frozenset[str], vocabulary: Vocabulary) -> None:
        self._words = words
        self._longest = max(map(len, words))
        self._characters = frozenset("".join(words))
        self._vocabulary = vocabulary
        pieces = [vocabulary.piece(token) for token in range(vocabulary.size)]
        self._texts = [read(piece) for piece in pieces]
        self._parts = {token for token, piece in enumerate(pieces) if PART in piece}
        self._endings = [t for t in sorted(self._parts) if pieces[t].startswith(PART)]
        self.end_tokens = vocabulary.end_tokens
        self.everywhere = torch.tensor(self._holding(), dtype=torch.long)
        self._after = self._by_beginning()
        self._completed: dict[tuple[int, ...], _Completions] = {}

    def completing(self, drawn: Sequence[int]) -> Iterator[Tensor]:
        """Return the ids that complete a word after `drawn`, beside `everywhere`."""
        text, part = self._tail(drawn)
        before = text + read(self._vocabulary.decode(part)) if part else text
        for length in range(min(len(before), self._longest - 1) + 1):
            # Words of a script without spaces that begin in v are in `everywhere`.
            start = len(before) - length
            ids = self._after.get(before[start:])
            if ids is not None and not joined(before + "a", start):
                yield ids
        if part:
            whole, completions = self._completions(part)
            for added, ids in completions.items():
                if self._says(text, added, whole):
                    yield ids

    def _holding(self) -> list[int]:
        """Return the tokens that hold a word whatever stands before them."""
        return [
            token
            for token, text in enumerate(self._texts)
            if any(
                start > 0 or not is_joining(word[0])
                for start, word in self._whole_words(text)
            )
        ]

    def _by_beginning(self) -> dict[str, Tensor]:
        """Return, by what the text so far ends with, which ids complete a word."""
        rests = defaultdict[str, list[str]](list)
        for word in self._words:
            for length in range(len(word)):
                rests[word[length:]].append(word[:length])
        firsts = frozenset(rest[0] for rest in rests)
        found = defaultdict[str, set[int]](set)
        for token, text in enumerate(self._texts):
            if text[:1] not in firsts:
                continue
            for end in range(1, min(len(text), self._longest) + 1):
                if text[:end] in rests and not joined(text, end):
                    for beginning in rests[text[:end]]:
                        found[beginning].add(token)
        return {
            beginning: torch.tensor(sorted(tokens), dtype=torch.long)
            for beginning, tokens in found.items()
        }

    def _whole_words(self, text: str) -> Iterator[tuple[int, str]]:
        for start, first in enumerate(text):
            if first not in self._characters or joined(text, start):
                continue
            for end in range(start + 1, min(len(text), start + self._longest) + 1):
                if text[start:end] in self._words and not joined(text, end):
                    yield start, text[start:end]

    def _says(self, text: str, added: str, known: int) -> bool:
        """Tell whether a word ends in what is `added` behind its `known` beginning."""
        kept = text[-self._longest :]
        return any(
            start + len(word) > len(kept) + known
            for start, word in self._whole_words(kept + added)
        )

    def _tail(self, drawn: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """
        Return at least the last characters that matter, folded, and the tokens of a
        last character of which only some bytes are drawn.
        """
        texts: list[str] = []
        part: tuple[int, ...] = ()
        length, at = 0, len(drawn)
        while at and length <= self._longest:
            stop, at = at, at - 1
            if drawn[at] in self._parts:
                at = self._run(drawn, stop)
                text = self._vocabulary.decode(drawn[at:stop])
                if stop == len(drawn) and text.endswith(PART):
                    part = self._unfinished(drawn[at:])
                    text = self._vocabulary.decode(drawn[at : stop - len(part)])
                text = read(text)
            else:
                text = self._texts[drawn[at]]
            texts.append(text)
            length += len(text)
        return "".join(reversed(texts)), part

    def _run(self, drawn: Sequence[int], stop: int) -> int:
        """Return where the tokens that are parts of characters begin, near enough."""
        at = stop - 1
        least = max(0, stop - _MOST_BYTES * (self._longest + 2))
        while at > least and drawn[at - 1] in self._parts:
            at -= 1
        return at

    def _unfinished(self, run: Sequence[int]) -> tuple[int, ...]:
        """Return the last tokens of a run that hold its unfinished character."""
        for number in range(1, _LOOKED_BACK):
            rest = run[-_LOOKED_BACK - number : -number]
            if not rest or not self._vocabulary.decode(rest).endswith(PART):
                return tuple(run[-number:])
        return tuple(run[-_LOOKED_BACK:])

    def _completions(self, part: tuple[int, ...]) -> _Completions:
        """
        Return how many characters of the unfinished ones are whole, what each token
        makes of all of them, and the tokens that do.
        """
        known = self._completed.get(part)
        if known is not None:
            return known
        whole = len(read(self._vocabulary.decode(part).rstrip(PART)))
        found = defaultdict[str, list[int]](list)
        for token in self._endings:
            text = read(self._vocabulary.decode([*part, token]))
            if not self._characters.isdisjoint(text[whole:]):
                found[text].append(token)
        if len(self._completed) >= _REMEMBERED:
            self._completed.clear()
        completions = whole, {text: torch.tensor(ids) for text, ids in found.items()}
        self._completed[part] = completions
        return completions


def read(text: str) -> str:
    """Return the text folded, as far as it can be seen."""
    return visible(folded(text))
