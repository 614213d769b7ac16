"""
What bench `generation` has written, and how: prompts, settings, and the check of it.

Knows none of the ways of writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

SAMPLING = {"temperature": 0.7, "top_k": 50, "top_p": 0.95}

_TEXT = (
    "A bicycle that was bought less than thirty days ago can be returned to any shop "
    "if it was ridden for less than fifty kilometres. The refund is paid to the card "
    "that was used, within five working days after the workshop has looked at it. "
)


class WroteOtherwise(AssertionError):
    """A comparison of different amounts of work would mean nothing."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text, and its tokens for those who take tokens."""

    text: str
    tokens: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)


class Prompts:
    """Makes prompts that differ where they begin, so that no cache has them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._numbers = count(1)

    def new(self, tokens: int) -> Prompt:
        """Return a prompt of so many tokens, a few more or less where words meet."""
        # No tokenizer takes 40 characters for one token.
        text = f"{next(self._numbers)} questions. " + _TEXT * (tokens // 6 + 1)
        return self.of(self._tokenizer.decode(self._encoded(text)[:tokens]))

    def crowd(self, lengths: Sequence[int], common: int) -> list[Prompt]:
        """Return prompts of these lengths whose first tokens are the same."""
        if not common:
            return [self.new(length) for length in lengths]
        shared = self.new(common).text
        return [
            self.of(f"{shared} {self.new(max(1, length - common)).text}")
            for length in lengths
        ]

    def anew(self, prompt: Prompt) -> Prompt:
        """Return the prompt with something else before it."""
        return self.of(f"{next(self._numbers)} times. {prompt.text}")

    def after(self, prompt: Prompt, reply: str, tokens: int) -> Prompt:
        """Return the prompt of the next turn: all that was said, and a new message."""
        message = self._tokenizer.decode(self._encoded(_TEXT * 4)[:tokens])
        return self.of(f"{prompt.text} {reply}\n{message}")

    def of(self, text: str) -> Prompt:
        return Prompt(text, tuple(self._encoded(text)))

    def _encoded(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def check_written(written: Sequence[int], rows: int, tokens: int) -> None:
    if list(written) != [tokens] * rows:
        raise WroteOtherwise(f"{tokens} tokens in {rows} rows asked for; {written}")
