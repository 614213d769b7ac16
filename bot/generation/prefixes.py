"""
Prefixes: what the model keeps of a prompt it has read, so that it reads it once.

Knows nothing about text. A prefix is found again by exactly its tokens, never by a
part of them: only then is the arithmetic the same to the last bit, and the same
request gives the same candidates whatever was asked before.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefix:
    """
    A prompt that was read: its keys and values (batch of one), and the logits
    [1, vocab] of the token that follows it. Shared, so fork it before use.
    """

    tokens: tuple[int, ...]
    cache: Cache
    logits: Tensor

    def fork(self, rows: int) -> Cache:
        """Return a cache of its own with `rows` copies of the prompt."""
        cache = copy.deepcopy(self.cache)
        if rows > 1:
            reorder(cache, [0] * rows, self.logits.device)
        return cache


def reorder(cache: Cache, rows: Sequence[int], device: torch.device) -> None:
    """
    Make the cache's rows those named, in that order, some twice, others dropped.
    `reorder_cache` is the one such method that every kind of layer has.
    """
    cache.reorder_cache(torch.tensor(rows, device=device))


class Prefixes:
    """The last few prefixes, least recently used out, the newest always in."""

    def __init__(self, capacity_tokens: int) -> None:
        self._capacity_tokens = capacity_tokens
        self._kept: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()

    def find(self, tokens: tuple[int, ...]) -> Prefix | None:
        prefix = self._kept.get(tokens)
        if prefix is not None:
            self._kept.move_to_end(tokens)
        return prefix

    def keep(self, prefix: Prefix) -> None:
        self._kept[prefix.tokens] = prefix
        while len(self._kept) > 1 and self._tokens() > self._capacity_tokens:
            self._kept.popitem(last=False)

    def _tokens(self) -> int:
        return sum(len(tokens) for tokens in self._kept)
