"""
The ways of writing that bench `generation` compares with: those of transformers.

`generate` with as many sequences as there are siblings, and continuous batching, which
on a CPU needs its memory bounded: left to itself it took 3.3 GB for keys and values and
2.6 GB for a mask (SmolLM2-135M). Neither returns before it has seen that exactly as
much was written as asked for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig
from transformers.generation.continuous_batching.utils import WorkloadHints

from bot.evaluation.bench_generation_prompts import (
    SAMPLING,
    Prompt,
    WroteOtherwise,
    check_written,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAGE_TOKENS = 256  # as it is unless told otherwise
# Without flash attention each row looks, masked, at the memory of all: of 64 rows at
# once the 16 conversations took 167 CPU seconds, of 16 rows 113, of 8 rows 115; 256 or
# 1024 tokens in a pass made no difference.
BOUNDS = {
    "cpu": {"max_batch_tokens": 256, "max_requests_per_batch": 16},
    "cuda": {"max_batch_tokens": 2048},
}
PATIENCE_S = 600


class Generate:
    """transformers as most people call it; one call for each prompt, in turn."""

    def __init__(self, model: Any, end_token: int) -> None:
        self._model = model
        self._end_token = end_token

    def write(self, prompts: Sequence[Prompt], siblings: int, tokens: int) -> None:
        for prompt in prompts:
            ids = torch.tensor([prompt.tokens], device=self._model.device)
            rows = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=_settings(self._end_token, siblings, tokens),
            ).tolist()
            check_written([len(row) - len(prompt) for row in rows], siblings, tokens)

    @torch.inference_mode()
    def log_probs(
        self, prompt: Prompt, continuations: Sequence[Prompt]
    ) -> Sequence[NDArray[np.float32]]:
        """One forward pass over a full row for each, padded on the right."""
        longest = max(map(len, continuations))
        rows = [
            [*prompt.tokens, *one.tokens, *[0] * (longest - len(one))]
            for one in continuations
        ]
        ids = torch.tensor(rows, device=self._model.device)
        # What is said of the prompt's own tokens is not even computed.
        read = self._model(ids, logits_to_keep=longest + 1).logits[:, :-1].float()
        scores = read.log_softmax(dim=-1)
        chosen = scores.gather(2, ids[:, -longest:].unsqueeze(2)).squeeze(2)
        return [
            row[: len(one)].cpu().numpy()
            for row, one in zip(chosen, continuations, strict=True)
        ]


class Continuous:
    """transformers' continuous batching, with memory for just what it is to write."""

    def __init__(self, model: Any, end_token: int) -> None:
        self._model = model
        self._end_token = end_token
        # On a CPU it complains at every start that it cannot look at the memory.
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)

    @contextmanager
    def ready(
        self, prompts: Sequence[int], siblings: int, tokens: int
    ) -> Iterator[Batches]:
        """
        Start it for as many prompts of these lengths. Being ready is not timed: memory
        is there, and on a GPU its graphs are captured.
        """
        with self._model.continuous_batching_context_manager(
            generation_config=_settings(self._end_token, siblings, tokens),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE_TOKENS,
                num_blocks=_blocks(prompts, siblings, tokens),
                **BOUNDS[self._model.device.type],
            ),
            workload_hints=WorkloadHints(
                max_prompt_length=max(prompts),
                max_generated_length=tokens,
                num_requests=len(prompts) * siblings,
            ),
        ) as manager:
            yield Batches(manager)


class Batches:
    """What `generate_batch` does with its manager, without making one each time."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def write(self, prompts: Sequence[Prompt], siblings: int, tokens: int) -> None:
        self._manager.add_requests([list(one.tokens) for one in prompts])
        rows = len(prompts) * siblings
        check_written([self._written() for _ in range(rows)], rows, tokens)

    def _written(self) -> int:
        result = self._manager.get_result(timeout=PATIENCE_S)
        if result is None or result.error is not None:
            raise WroteOtherwise(result and result.error)
        return len(result.generated_tokens)


def _settings(end_token: int, siblings: int, tokens: int) -> GenerationConfig:
    return GenerationConfig(
        do_sample=True,
        num_return_sequences=siblings,
        max_new_tokens=tokens,
        eos_token_id=end_token,
        pad_token_id=end_token,
        **SAMPLING,
    )


def _blocks(prompts: Sequence[int], siblings: int, tokens: int) -> int:
    """Siblings share the blocks that their prompt fills, and copy the last one."""
    needed = 0
    for prompt in prompts:
        shared = prompt // PAGE_TOKENS
        own = math.ceil((prompt + tokens) / PAGE_TOKENS) - shared
        needed += shared + siblings * own
    # It takes nothing new up while less than 15 % are free.
    return math.ceil(1.25 * needed) + 4
