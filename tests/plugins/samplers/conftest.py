"""Writes with a sampler as the core does, from logits that a function makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from bot.generation.decoding import Drawing, Siblings, called
from bot.interfaces import GenerationRequest, Sampler
from bot.testing import a_turn

# The logits of each token after the tokens so far.
Logits = Callable[[tuple[int, ...]], Sequence[float]]


@pytest.fixture(scope="session")
def write() -> Callable[..., list[tuple[int, ...]]]:
    return written


def written(  # noqa: PLR0913 - all that a set is written by
    sampler: Sampler,
    model: Logits,
    *,
    siblings: int,
    limit: int,
    end: int | None = None,
    seed: int = 0,
) -> list[tuple[int, ...]]:
    """Return the tokens of each sibling, written by the core's own decoding."""
    rows = Siblings(
        siblings,
        end_tokens=frozenset() if end is None else frozenset([end]),
        limit=limit,
        padding=end or 0,
        device=torch.device("cpu"),
    )
    request = GenerationRequest(
        turn=a_turn(), candidates=siblings, max_new_tokens=limit, sampler=sampler
    )
    drawing = Drawing(request, torch.Generator().manual_seed(seed), called)
    while rows.live:
        logits = torch.tensor([model(tuple(row.tokens)) for row in rows.rows])
        draw = drawing(rows.tokens, logits, rows.ended, end or 0)
        unknown = [0.0] * siblings
        rows.extend(
            draw.tokens.tolist(),
            log_probs=unknown,
            certainties=unknown,
            parents=None if draw.parents is None else draw.parents.tolist(),
        )
    return [tuple(row.tokens) for row in rows.rows]
