"""
Fit: what the configured generator takes of a machine's memory, and what is left.

Numbers in, numbers out; only `fit`, at the end, looks at a folder and at the machine.
No weights are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bot.errors import ModelError
from bot.generation.network import Device, device_of, shape_of
from bot.generation.precision import Precision, number_type
from bot.packing import is_linear

if TYPE_CHECKING:
    from torch import Tensor

# A tenth of the memory, and not less than this, is kept for everything else: logits
# and activations, the embedder, Redis, the system itself.
_LEAST_KEPT = 2**30
_CONTAINER = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a model takes: weights once, keys and values for every token."""

    parameters: int
    weights_bytes: int
    kv_bytes_per_token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What the configuration asks for. `turns` are answered at once by one process; a
    set's prompt is there once for all of its candidates.
    """

    kv_tokens: int
    turns: int
    prompt_tokens: int
    candidates: int
    max_new_tokens: int

    @property
    def set_tokens(self) -> int:
        return self.prompt_tokens + self.candidates * self.max_new_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A model and a plan on a device with so much memory."""

    size: Size
    plan: Plan
    device: str
    precision: str
    memory_bytes: int

    @property
    def kept_bytes(self) -> int:
        """What is kept for everything but weights, keys and values."""
        return max(self.memory_bytes // 10, _LEAST_KEPT)

    @property
    def left_bytes(self) -> int:
        """What remains for keys and values; below 0 the weights do not fit."""
        return self.memory_bytes - self.kept_bytes - self.size.weights_bytes

    @property
    def placed_tokens(self) -> int:
        """What a GPU's places take beside generation.kv_tokens, one for each turn."""
        return 0 if self.device == "cpu" else self.plan.turns * self.plan.set_tokens

    @property
    def tokens(self) -> int:
        """The most that generation.kv_tokens can be."""
        fit = self.left_bytes // self.size.kv_bytes_per_token
        return max(0, fit - self.placed_tokens)

    @property
    def sets(self) -> int:
        """How many candidate sets are written at once with generation.kv_tokens."""
        return self.plan.kv_tokens // self.plan.set_tokens

    @property
    def most_sets(self) -> int:
        """How many they were if generation.kv_tokens were all that fits."""
        return self.tokens // self.plan.set_tokens

    @property
    def problems(self) -> list[str]:
        """Say what does not fit, and what to change; nothing when all is well."""
        plan, problems = self.plan, []
        if self.left_bytes < 0:
            weights, room = self.size.weights_bytes, self.memory_bytes - self.kept_bytes
            problems.append(
                f"generation.model: its weights take {weights / 1e9:.2f} GB, and "
                f"{room / 1e9:.2f} GB are there for them; name a smaller model"
            )
        elif plan.kv_tokens > self.tokens:
            problems.append(
                f"generation.kv_tokens: {plan.kv_tokens} are asked for, and "
                f"{self.tokens} fit; lower it"
            )
        if plan.kv_tokens < plan.set_tokens:
            problems.append(
                f"generation.kv_tokens: {plan.kv_tokens} are allowed, and one set of "
                f"candidates may need {plan.set_tokens}; raise it, or lower "
                "generation.candidates or max_new_tokens"
            )
        return problems


def fit(folder: Path, precision: Precision, device: Device, plan: Plan) -> Fit:
    """
    Look whether the model of a folder fits this machine. Raises ModelError for a
    device or a precision that is not there, and for a folder without a usable model.
    """
    where = device_of(device)
    return Fit(
        size=measure(folder, precision, where),
        plan=plan,
        device=where.type,
        precision=precision if precision == "int8" else _name(precision, where),
        memory_bytes=memory_bytes(where),
    )


def measure(folder: Path, precision: Precision, device: torch.device) -> Size:
    """Say what a model takes, from its config.json: its layers are made empty."""
    model = _outline(folder, number_type(precision, device))
    return Size(
        parameters=_count(model.parameters()),
        weights_bytes=_weights_bytes(model, precision, device),
        kv_bytes_per_token=shape_of(model, device).bytes_per_token,
    )


def memory_bytes(device: torch.device) -> int:
    """Return what the machine or its container has, or what is free on a GPU."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CONTAINER.read_text().strip() if _CONTAINER.is_file() else "max"
    return machine if limit == "max" else min(machine, int(limit))


def _name(precision: Precision, device: torch.device) -> str:
    return str(number_type(precision, device)).removeprefix("torch.")


def _outline(folder: Path, dtype: torch.dtype) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=dtype)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"model folder {str(folder)!r}: its config.json cannot be used ({error}); "
            "fetch it again or name another model"
        ) from error


def _weights_bytes(model: Any, precision: Precision, device: torch.device) -> int:
    """On a CPU, packing gives a head that is also the embedding a copy of its own."""
    if device.type != "cpu":
        dtype: torch.dtype = model.dtype
        return _count(model.parameters()) * dtype.itemsize
    packed = _count(each.weight for each in model.modules() if is_linear(each))
    others = {
        part
        for layer in model.modules()
        for name, part in layer.named_parameters(recurse=False)
        if not (is_linear(layer) and name == "weight")
    }
    return packed * (1 if precision == "int8" else 4) + _count(others) * 4


def _count(parts: Iterable[Tensor]) -> int:
    return sum(part.numel() for part in parts)
