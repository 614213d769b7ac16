"""How much bench `generation` measures. Lengths are in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """
    Conversations that want a candidate set at the same moment. The first tokens of all
    prompts, `common`, are the same, as a bot's persona and rules are.
    """

    prompts: Sequence[int]
    siblings: int
    common: int = 0

    @property
    def name(self) -> str:
        low, high = min(self.prompts), max(self.prompts)
        tokens = f"{low}" if low == high else f"{low} to {high}"
        name = f"{len(self.prompts)} conversations, prompt {tokens}, k {self.siblings}"
        return f"{name}, {self.common} in common" if self.common else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A conversation; each turn adds the chosen reply and a message to the prompt."""

    turns: int = 10
    first: int = 300
    message: int = 110
    new_tokens: int = 8
    siblings: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Continuations of one prompt, to be scored."""

    prompt: int = 500
    continuations: int = 8
    tokens: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """How soon a text shows, alone and beside sets that are being written."""

    prompt: int = 500
    siblings: int = 4
    others: int = 8
    others_tokens: int = 400  # they may not end meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured; with `warm_ups` each case has a round before that."""

    crowds: Sequence[Crowd]
    prompts: Sequence[int] = (100, 500, 1500)
    candidates: Sequence[int] = (1, 4, 8, 16)
    new_tokens: int = 48
    talk: Talk = field(default_factory=Talk)
    scored: Scored = field(default_factory=Scored)
    first: First = field(default_factory=First)
    warm_ups: bool = False

    @property
    def kv_tokens(self) -> int:
        """The most tokens that ours is to hold at once, and as many to keep."""
        at_once = [
            sum(crowd.prompts)
            + len(crowd.prompts) * crowd.siblings * (self.new_tokens + 1)
            for crowd in self.crowds
        ]
        first = self.first
        at_once.append(
            (first.others + 1)
            * (first.prompt + first.siblings * (first.others_tokens + 1))
        )
        return 2 * max(at_once)


LENGTHS = range(60, 541, 32)
ON_A_CPU = Scale(
    crowds=[
        Crowd(prompts=LENGTHS, siblings=4),
        # The shipped bot's persona and rules are as long.
        Crowd(prompts=LENGTHS, siblings=4, common=56),
    ]
)
ON_A_GPU = Scale(
    crowds=[
        Crowd(prompts=[1000] * conversations, siblings=8) for conversations in (16, 64)
    ],
    # Shapes are compiled and captured when they are first seen.
    warm_ups=True,
)
