"""
Makes the operator's phrases likelier, or less likely, word by word.

    z_v + bonus · Σ over the words of the phrase of the share of each that v spells,
    for v that goes on with a phrase from where the text stands

A phrase begins at a word boundary, and goes on for as long as the text follows it,
whatever the case. However a word is cut into tokens, its shares add up to one bonus, so
" York" and " Y" + "ork" are helped alike and a stray " Y" little. A phrase that the
reply has said gets no bonus again; a malus stays.

Phrases are guided one token at a time: nothing looks ahead, so a beginning is helped
that never becomes the phrase, and a phrase whose beginning is unlikely needs a large
bonus. Characters that the vocabulary only has in parts (rare Chinese, emoji) are not
guided. In scripts without spaces every character is a word. Of phrases that a token
goes on with at once, the one it spells most of counts.

The vocabulary is read once, O(vocab · longest phrase); a step reads what was drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.errors import PluginError
from bot.interfaces import LogitsProcessor, Vocabulary
from bot.model import Turn
from bot.text import folded, is_joining, is_letter, joined

_REMEMBERED = 4096
# Ids, and which share of a word each spells.
_Shares = tuple[Tensor, Tensor]


def _with_a_word(phrase: str) -> str:
    if not any(map(is_letter, read(phrase))):
        raise ValueError("has no letter or digit; write a word or a phrase")
    return phrase


Phrase = Annotated[str, Field(max_length=100), AfterValidator(_with_a_word)]


class PhraseBias:
    """Makes the phrases of your house likelier, or less likely."""

    name = "phrase-bias"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        phrases: tuple[Phrase, ...] = Field(
            min_length=1, max_length=200, description="words and phrases to guide to"
        )
        bonus: float = Field(
            2.0, ge=-100, le=100, description="added per word; below 0: guided away"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guide: Guide | None = None

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def read_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._guide = Guide(self._settings.phrases, vocabulary)

    def begin(self, turn: Turn, siblings: int) -> PhraseBiasStep:
        if self._guide is None:
            raise PluginError(
                self.name,
                "was not given the model's vocabulary, without which it cannot tell "
                "what a token says; use it with a local model",
            )
        return PhraseBiasStep(self._guide, self._settings.bonus)


class PhraseBiasStep:
    """Keeps no state: the tokens drawn so far are all it needs."""

    def __init__(self, guide: Guide, bonus: float) -> None:
        self._guide = guide
        self._bonus = bonus

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        shares = torch.zeros_like(logits)
        for row, drawn in enumerate(tokens.tolist()):
            text = self._guide.text(drawn)
            said = self._guide.said(text) if self._bonus > 0 else frozenset[str]()
            for ids, share in self._guide.following(text, said):
                shares[row, ids] = shares[row, ids].maximum(share.to(shares.device))
        return logits + self._bonus * shares


class Guide:
    """The phrases, folded, against one vocabulary."""

    def __init__(self, phrases: Sequence[str], vocabulary: Vocabulary) -> None:
        self._texts = [read(vocabulary.piece(t)) for t in range(vocabulary.size)]
        self._phrases = frozenset(" ".join(read(each).split()) for each in phrases)
        # A space may belong to a phrase's first token; no boundary is needed then.
        spelt = sorted(self._phrases | {f" {phrase}" for phrase in self._phrases})
        self._longest = max(map(len, spelt))
        self._places = defaultdict[str, list[str]](list)
        for phrase in spelt:
            for length in range(len(phrase)):
                self._places[phrase[:length]].append(phrase)
        self._spelling, self._ending = self._tokens_by_text(spelt)
        self._known: dict[tuple[str, bool, frozenset[str]], _Shares] = {}

    def text(self, drawn: Sequence[int]) -> str:
        """Return what the tokens say, folded."""
        return "".join([self._texts[token] for token in drawn])

    def said(self, text: str) -> frozenset[str]:
        """Return the phrases that a folded text holds, as whole words."""
        return frozenset(phrase for phrase in self._phrases if holds(phrase, text))

    def following(self, text: str, said: frozenset[str]) -> Iterator[_Shares]:
        """Return ids and shares of what goes on with a phrase that is not `said`."""
        for length in range(min(len(text), self._longest - 1) + 1):
            start = len(text) - length
            if text[start:] in self._places:
                inside = start > 0 and is_joining(text[start - 1])
                yield self._shares(text[start:], inside=inside, said=said)

    def _shares(self, spelt: str, *, inside: bool, said: frozenset[str]) -> _Shares:
        """
        Return [n] ids, each once, and [n] the shares of words that they spell of the
        phrases that begin with `spelt`; a phrase does not begin `inside` a word.
        """
        key = (spelt, inside, said)
        if key not in self._known:
            best = dict[int, float]()
            for phrase in self._places[spelt]:
                if phrase.strip() in said or (inside and is_joining(phrase[0])):
                    continue
                for token, share in self._going_on(phrase, len(spelt)):
                    best[token] = max(share, best.get(token, 0.0))
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            ids = torch.tensor(list(best), dtype=torch.long)
            self._known[key] = ids, torch.tensor(list(best.values()))
        return self._known[key]

    def _going_on(self, phrase: str, spelt: int) -> Iterator[tuple[int, float]]:
        """Return the tokens that go on with a phrase, and what they spell of it."""
        shares = shares_of(phrase)
        for end in range(spelt + 1, len(phrase) + 1):
            share = sum(shares[spelt:end])
            for token in self._spelling.get(phrase[spelt:end], ()):
                yield token, share
        for token in self._ending.get(phrase[spelt:], ()):
            yield token, sum(shares[spelt:])

    def _tokens_by_text(
        self, phrases: Sequence[str]
    ) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """
        Return the tokens by their whole text, and by the end of a phrase with which
        their text begins, if no letter follows it there.
        """
        rests = {phrase[at:] for phrase in phrases for at in range(len(phrase))}
        whole, ending = (
            defaultdict[str, list[int]](list),
            defaultdict[str, list[int]](list),
        )
        for token, text in enumerate(self._texts):
            whole[text].append(token)
            for end in range(1, min(len(text) - 1, self._longest) + 1):
                if text[:end] in rests and not joined(text, end):
                    ending[text[:end]].append(token)
        return dict(whole), dict(ending)


def holds(phrase: str, text: str) -> bool:
    """Tell whether a folded text holds a folded phrase that is not part of a word."""
    start = text.find(phrase)
    while start >= 0:
        end = start + len(phrase)
        if not joined(text, start) and not joined(text, end):
            return True
        start = text.find(phrase, start + 1)
    return False


def shares_of(phrase: str) -> list[float]:
    """
    Return for each character of a folded phrase which share of its word it is; what is
    no letter has none. A character of a script without spaces is a word.
    """
    shares: list[float] = []
    for joining, run in groupby(phrase, key=is_joining):
        characters = list(run)
        if joining:
            shares.extend([1 / len(characters)] * len(characters))
        else:
            shares.extend(float(is_letter(character)) for character in characters)
    return shares


def read(text: str) -> str:
    """Return the text folded, with spaces for white space."""
    return "".join(" " if c.isspace() else c for c in folded(text))
