"""
Makes a token costly that was drawn before in a situation like this one.

    z_v - alpha · max over j with token v of max(0, cos(z_now, z_j))

In the spirit of contrastive search (Su et al. 2022, arXiv:2202.06417), whose penalty on
degeneration compares hidden states. Here the situation is what the model expects of the
next token, its `largest` logits above the least of them, and nothing is looked ahead:
where a loop begins the expectations repeat, and the token that went on then costs most.
Words that return in another situation cost less. Only the last `window` draws count.

Per step a top-k and O(k · window · largest). Rows may change places between steps, as
beams do: a row is recognised by its tokens, and one that is not begins without a past.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor
from bot.model import Turn


class ContrastivePenalty:
    """Pushes a reply out of a loop before its second round."""

    name = "contrastive-penalty"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        alpha: float = Field(
            2.0, ge=0, le=50, description="taken off the logit in the same situation"
        )
        window: int = Field(
            64, ge=1, le=512, description="draws that are remembered, in tokens"
        )
        largest: int = Field(
            64, ge=2, le=512, description="likeliest tokens by which steps are compared"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def begin(self, turn: Turn, siblings: int) -> ContrastivePenaltyStep:
        settings = self._settings
        return ContrastivePenaltyStep(settings.alpha, settings.window, settings.largest)


class ContrastivePenaltyStep:
    """
    One turn's memory: for each row its tokens at the last call, and for each of the
    last n steps the ids [k, n, m] and values [k, n, m] of what was expected then.
    """

    def __init__(self, alpha: float, window: int, largest: int) -> None:
        self._alpha = alpha
        self._window = window
        self._largest = largest
        self._tokens: Tensor | None = None
        self._ids = torch.empty(0, 0, 0, dtype=torch.long)
        self._values = torch.empty(0, 0, 0)

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        ids, values = expectation(logits, self._largest)
        self._follow(tokens, ids)
        changed = self._penalised(tokens, logits, ids, values)
        self._tokens = tokens.clone()
        self._ids = torch.cat([self._ids, ids.unsqueeze(1)], 1)[:, -self._window :]
        self._values = torch.cat([self._values, values.unsqueeze(1)], 1)
        self._values = self._values[:, -self._window :]
        return changed

    def _follow(self, tokens: Tensor, ids: Tensor) -> None:
        """Bring the memory into the order of the rows as they are now."""
        before = self._tokens
        if before is None or tokens.shape != (len(before), before.shape[1] + 1):
            self._ids = ids.new_empty(len(ids), 0, ids.shape[1])
            self._values = torch.empty_like(self._ids, dtype=torch.float32)
            return
        parents, known = origins(before, tokens[:, :-1])
        self._ids = self._ids[parents]
        self._values = self._values[parents] * known[:, None, None]

    def _penalised(
        self, tokens: Tensor, logits: Tensor, ids: Tensor, values: Tensor
    ) -> Tensor:
        remembered = self._ids.shape[1]
        if not remembered:
            return logits
        now = torch.zeros_like(logits).scatter_(1, ids, values)
        costs = likeness(now, self._ids, self._values)
        drawn = tokens[:, -remembered:]
        # A token that was drawn more than once costs what the likest draw says.
        alike = drawn.unsqueeze(2) == drawn.unsqueeze(1)
        costs = costs.unsqueeze(1).where(alike, 0).amax(dim=2)
        return logits.scatter(1, drawn, logits.gather(1, drawn) - self._alpha * costs)


def expectation(logits: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """
    Return the ids [k, m] and values [k, m] of each row's largest logits, measured from
    the smallest of them and scaled to length one; zero where they are all the same.
    """
    top, ids = logits.topk(min(largest, logits.shape[1]), dim=1)
    # From there, not from zero or from the mean: else all steps look alike, and a token
    # that comes in or drops out would make a jump.
    smallest = top.masked_fill(top == -math.inf, math.inf).amin(dim=1, keepdim=True)
    return ids, torch.nn.functional.normalize((top - smallest).clamp(min=0), dim=1)


def likeness(now: Tensor, ids: Tensor, values: Tensor) -> Tensor:
    """
    Return the cosine [k, n] of `now` [k, vocab] with each of n earlier expectations,
    given by their ids and values [k, n, m]; all are of length one, or zero.
    """
    rows, steps, size = ids.shape
    met = now.gather(1, ids.reshape(rows, steps * size)).reshape(rows, steps, size)
    return (met * values).sum(dim=2).clamp(0, 1)


def origins(before: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return which row of `before` [k, t] each row of `now` [k, t] is, its own where that
    fits, and whether there is one: [k] and [k] bool. Rows of the same tokens had the
    same logits, so any of them will do.
    """
    same = (now.unsqueeze(1) == before.unsqueeze(0)).all(dim=2)
    own = torch.arange(len(now), device=now.device)
    parents = same.int().argmax(dim=1).where(~same.diagonal(), own)
    return parents, same.any(dim=1)
