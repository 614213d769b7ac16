"""
Shared-prefix attention: k siblings, one copy of what they have in common.

Softmax over [shared prefix | own suffix], where the siblings' queries are folded into
one product with the prefix (Hydragen, Juravsky et al. 2024, arXiv:2402.05099). The
tokens of a whole batch come flat, [1, heads, tokens, head size], and are told apart by
the `reads` that travel through the model as a keyword argument. A prompt being read,
k siblings writing, and continuations being scored are all the same thing here: k rows
that read n tokens behind a prefix. Knows nothing about who reads, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional
from transformers import AttentionInterface

from bot.generation import grid
from bot.generation.grid import GridRead
from bot.generation.kv import Rows, Segment

if TYPE_CHECKING:
    from torch import Tensor

NAME = "chorus"
# What models hand to their attention that changes its result and is not done here.
_NOT_DONE = ("s_aux", "position_bias", "cu_seq_lens_q", "sinks")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """
    `tokens` [k, n] that follow what `rows` (k of them) hold already, which follow the
    segments of `prefix`. `outputs` says of which positions logits are wanted.
    """

    tokens: Tensor
    prefix: Sequence[Segment]
    rows: Rows
    outputs: Literal["none", "last", "all"] = "last"

    @property
    def wanted(self) -> int:
        """How many positions logits are wanted of."""
        count, new = self.tokens.shape
        return {"none": 0, "last": count, "all": count * new}[self.outputs]

    @property
    def start(self) -> int:
        """The position of the first token read."""
        return sum(part.shape[3] for part in self.prefix) + self.rows.length


def register() -> None:
    AttentionInterface.register(NAME, attend)


def attend(  # noqa: PLR0913, PLR0917 - transformers' signature
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 - the same
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    reads: Sequence[Read] | GridRead = (),
    told: set[int | None] | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """
    transformers' attention function: query [1, heads, tokens, head size] in, [1,
    tokens, heads, head size] out. `told` is told the window. Raises
    NotImplementedError for what it cannot do.
    """
    if told is not None:
        told.add(sliding_window)
    undone = [name for name in _NOT_DONE if more.get(name) is not None]
    if undone:
        raise NotImplementedError(f"attention with {undone[0]}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(reads, GridRead):
        if sliding_window is not None or softcap is not None:
            raise NotImplementedError("sliding windows and soft caps in a grid")
        scaled = query[0] * scale
        placed = grid.attend(reads, module.layer_idx, scaled, key[0], value[0])
        return placed.transpose(0, 1).unsqueeze(0), None
    query = query * scale  # once for all
    layer = _Layer(module.layer_idx, sliding_window, softcap)
    parts, start = [], 0
    for read in reads:
        end = start + read.tokens.numel()
        keep = (slice(None), slice(start, end))
        parts.append(layer(read, query[0][keep], key[0][keep], value[0][keep]))
        start = end
    out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return out.transpose(0, 1).unsqueeze(0), None


@dataclass(frozen=True, slots=True)
class _Layer:
    """
    One layer's attention, of queries that are scaled. `window` counts the token itself,
    as transformers does.
    """

    index: int
    window: int | None
    softcap: float | None

    def __call__(self, read: Read, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Keep key and value, and return [heads, k · n, head size]."""
        count, new = read.tokens.shape
        end = read.rows.length + new
        heads, size = key.shape[0], key.shape[2]
        own = read.rows.memory[self.index]
        own[0, :, :, end - new : end] = key.view(heads, count, new, size)
        own[1, :, :, end - new : end] = value.view(heads, count, new, size)
        prefix = [part[self.index] for part in read.prefix]
        if count == 1 and new > 1 and self.softcap is None:
            return self._one_row(query, prefix, own[:, :, 0, :end])
        return self._siblings(query, prefix, own[:, :, :, :end], new)

    def _one_row(self, query: Tensor, prefix: list[Tensor], own: Tensor) -> Tensor:
        """A prompt: many queries, so that torch's own kernel is the fastest."""
        keys, values = torch.cat([*prefix, own], dim=2) if prefix else own
        new, total = query.shape[1], keys.shape[1]
        groups = query.shape[0] // keys.shape[0]
        if groups > 1:
            keys = keys.repeat_interleave(groups, dim=0)
            values = values.repeat_interleave(groups, dim=0)
        plain = new == total and not self._cuts(total)
        mask = None if plain else _visible(new, total, self.window, query.device)
        return functional.scaled_dot_product_attention(
            query[None],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=plain,
            scale=1.0,
        )[0]

    def _siblings(
        self, query: Tensor, prefix: list[Tensor], own: Tensor, new: int
    ) -> Tensor:
        """
        Few queries a row. With h key heads and g query heads for each, scores are
        [h, k · g · n, prefix | own]: one softmax over both.
        """
        _, heads, count, length, size = own.shape
        groups = query.shape[0] // heads
        folded = query.view(heads, groups, count, new, size).transpose(1, 2)
        folded = folded.reshape(heads, count * groups * new, size)
        apart = folded.view(heads, count, groups * new, size)
        scores = [folded @ part[0].transpose(1, 2) for part in prefix]
        own_scores = apart @ own[0].transpose(2, 3)
        scores.append(own_scores.view(heads, count * groups * new, length))
        together = torch.cat(scores, dim=2) if prefix else scores[0]
        weights = self._weights(together, new)
        *of_prefix, of_own = weights.split_with_sizes(
            [s.shape[2] for s in scores], dim=2
        )
        of_own = of_own.reshape(heads, count, groups * new, length)
        out = (of_own @ own[1]).view(heads, count * groups * new, size)
        for part_weights, part in zip(of_prefix, prefix, strict=True):
            out = torch.baddbmm(out, part_weights, part[1])
        out = out.view(heads, count, groups, new, size).transpose(1, 2)
        return out.reshape(heads * groups, count * new, size)

    def _weights(self, scores: Tensor, new: int) -> Tensor:
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        total = scores.shape[2]
        if new > 1 or self._cuts(total):
            seen = _visible(new, total, self.window, scores.device)
            by_query = scores.view(scores.shape[0], -1, new, total)
            scores = by_query.masked_fill(~seen, -torch.inf).view_as(scores)
        return scores.softmax(dim=2, dtype=torch.float32).to(scores.dtype)

    def _cuts(self, total: int) -> bool:
        return self.window is not None and total > self.window


# Every layer of a pass asks for the same few.
@lru_cache(maxsize=64)
def _visible(new: int, total: int, window: int | None, device: torch.device) -> Tensor:
    """Return which of `total` keys the last `new` tokens see: [new, total] bool."""
    keys = torch.arange(total, device=device)
    queries = torch.arange(total - new, total, device=device).unsqueeze(1)
    seen = keys <= queries
    if window is not None:
        seen &= keys > queries - window
    return seen
