"""
What the machine can do, and what a case needs at least: the roofline of a case.

Measured, best of a few: bytes per second of a large copy (read and written) and of a
product of a large matrix and a vector (read), and operations per second of a product
of two large matrices, in the model's number type and on the threads of the bench.

Needed, counted from the model's configuration: one pass over `rows` tokens computes
2 operations per weight and token, the output layer's only where a token is drawn or
scored, and 4 per dimension of the heads for each token that attention looks at. It
reads every weight once, and the keys and values of each prompt once, however many
siblings go on from it, and of what each sibling has written. Writing, and everything
that is done beside the matrix products, such as drawing tokens, counts as nothing.

A pass can take no less than bytes / bandwidth, nor than operations / rate: the larger
of the two is its roof. The prompts of a case are read in one pass, then follows a pass
for each further token. The shares of a case are its bytes, its operations and the sum
of its roofs, each over the time that ours took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

_REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Bytes and operations per second."""

    copied: float
    read: float
    rate: float

    @property
    def bandwidth(self) -> float:
        return max(self.copied, self.read)


def measured_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    on_gpu = device.type == "cuda"
    side, height = (8192, 16) if on_gpu else (2048, 32)
    square = torch.rand(side, side, device=device, dtype=dtype)
    tall = torch.rand(height * side, side, device=device, dtype=dtype)
    other = torch.empty_like(tall)
    vector = torch.rand(side, device=device, dtype=dtype)
    size = tall.numel() * tall.element_size()
    return Machine(
        copied=2 * size / _least_s(lambda: other.copy_(tall), device),
        read=size / _least_s(lambda: tall.mv(vector), device),
        rate=2 * side**3 / _least_s(lambda: square.mm(square), device),
    )


def _least_s(work: Callable[[], object], device: torch.device) -> float:
    spent = []
    for _ in range(_REPEATS + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - began)
    return min(spent[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The least that one pass computes and moves."""

    operations: float
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One text in a pass: how many tokens are kept, read now, and used to draw."""

    kept: int
    new: int
    drawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a pass costs, from the model's own numbers."""

    weight_bytes: float  # without an input embedding, of which only rows are looked up
    body: int  # weights every token goes through
    head: int  # weights of the output layer
    attended: int  # operations per query and key
    kv_bytes: int  # keys and values of one token

    @classmethod
    def of(cls, model: Any) -> Costs:
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        layers = config.num_hidden_layers
        head = model.get_output_embeddings().weight
        looked_up = {id(head), id(model.get_input_embeddings().weight)}
        body = sum(p.numel() for p in model.parameters() if id(p) not in looked_up)
        return cls(
            weight_bytes=(body + head.numel()) * head.element_size(),
            body=body,
            head=head.numel(),
            attended=4 * layers * heads * head_dim,
            kv_bytes=2 * layers * kv_heads * head_dim * head.element_size(),
        )

    def reading(self, parts: Sequence[Part]) -> Pass:
        """One pass over several texts that have nothing in common."""
        pairs = sum(p.new * p.kept + p.new * (p.new + 1) // 2 for p in parts)
        new, drawn = sum(p.new for p in parts), sum(p.drawn for p in parts)
        return Pass(
            operations=2 * (self.body * new + self.head * drawn)
            + self.attended * pairs,
            bytes=self.weight_bytes + self.kv_bytes * sum(p.kept for p in parts),
        )

    def scoring(self, prompt: int, continuations: Sequence[int]) -> Pass:
        """One pass over a prompt and texts that go on from it; nothing was kept."""
        parts = [Part(kept=prompt, new=each, drawn=each) for each in continuations]
        read = self.reading([Part(kept=0, new=prompt, drawn=0), *parts])
        return replace(read, bytes=self.weight_bytes)

    def writing(self, prompts: Sequence[int], siblings: int, tokens: int) -> list[Pass]:
        """A pass for each token after the first, which the prompt's reading gives."""
        rows = len(prompts) * siblings
        return [
            Pass(
                operations=2 * (self.body + self.head) * rows
                + self.attended * (siblings * sum(prompts) + rows * written),
                bytes=self.weight_bytes
                + self.kv_bytes * (sum(prompts) + rows * written),
            )
            for written in range(1, tokens)
        ]

    def sets(
        self, prompts: Sequence[int], siblings: int, tokens: int, common: int = 0
    ) -> list[Pass]:
        """
        Read the prompts and write `tokens` of each of their siblings; what prompts have
        in common is read once.
        """
        kept = [0, *[common] * (len(prompts) - 1)]
        parts = [
            Part(kept=known, new=max(1, prompt - known), drawn=1)
            for known, prompt in zip(kept, prompts, strict=True)
        ]
        return [self.reading(parts), *self.writing(prompts, siblings, tokens)]


def shares(
    passes: Sequence[Pass], seconds: float, machine: Machine
) -> Mapping[str, float]:
    roofs = [
        max(one.bytes / machine.bandwidth, one.operations / machine.rate)
        for one in passes
    ]
    moved = sum(one.bytes for one in passes) / machine.bandwidth
    computed = sum(one.operations for one in passes) / machine.rate
    return {
        "of bandwidth": moved / seconds,
        "of rate": computed / seconds,
        "of roofline": sum(roofs) / seconds,
    }
