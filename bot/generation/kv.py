"""
Keys and values: what the model keeps of the tokens it has read.

Two shapes. A `Segment` is part of a prompt, read once and shared by whoever goes on
from it. `Rows` are what siblings wrote after it, each its own. Knows nothing about
tokens: who owns which row, and what was read, is the engine's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from torch import Tensor

# [layers, 2, kv heads, tokens, head size]; keys are 0, values 1.
Segment: TypeAlias = "Tensor"

FIRST_CAPACITY = 32  # tokens a row has room for at first; doubled when it is full


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one token's keys and values look like in a model, and where they are."""

    layers: int
    kv_heads: int
    head_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        size = self.layers * 2 * self.kv_heads * self.head_size
        return size * self.dtype.itemsize


class Rows:
    """
    Keys and values of k rows of equal length, [layers, 2, kv heads, k, capacity, head
    size], of which the first `length` tokens count. The attention writes behind them;
    `length` moves on when the whole pass has succeeded, so a pass can be repeated.
    """

    def __init__(self, shape: Shape, count: int, capacity: int) -> None:
        self._shape = shape
        self._memory = self._empty(count, capacity)
        self.length = 0

    @property
    def memory(self) -> Tensor:
        return self._memory

    @property
    def count(self) -> int:
        return self.memory.shape[3]

    @property
    def capacity(self) -> int:
        return self.memory.shape[4]

    def make_room(self, tokens: int, limit: int) -> None:
        """Make sure that so many more fit; `limit` is the most a row will ever have."""
        needed = self.length + tokens
        if needed <= self.capacity:
            return
        capacity = min(max(needed, 2 * self.capacity), max(needed, limit))
        grown = self._empty(self.count, capacity)
        grown[..., : self.length, :] = self.memory[..., : self.length, :]
        self._memory = grown

    def keep(self, rows: Sequence[int]) -> None:
        """Make the rows those named, in that order, some twice, others dropped."""
        index = torch.tensor(rows, device=self.memory.device)
        self._memory = self.memory.index_select(3, index)

    def release(self) -> None:
        """Give back what was taken; nothing here, where memory is the rows' own."""

    def segment(self, row: int, tokens: int) -> Segment:
        """Return the first tokens of one row, as a view."""
        return self.memory[:, :, :, row, :tokens]

    def _empty(self, count: int, capacity: int) -> Tensor:
        shape = self._shape
        size = (shape.layers, 2, shape.kv_heads, count, capacity, shape.head_size)
        return torch.empty(size, dtype=shape.dtype, device=shape.device)
