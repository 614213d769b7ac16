"""
Contrastive search: writes one reply, from likely tokens that do not repeat its course.

    next = argmax over the k likeliest v of (1 - a) · p(v) - a · max_j cos(h_v, h_j)
    h_v: the model's state after v; h_j: its states at the tokens of the reply so far

Su et al. 2022, arXiv:2202.06417; its authors find that it needs a model whose states
differ enough, so measure before trusting it. A plugin sees logits, not states: since
logits are W h, the cosine of centred logits stands for that of states. Of the prompt
only its last state is seen. Processors that leave few tokens possible leave little to
compare.

The siblings are the look-ahead: they are the k likeliest tokens after one text, and
what the next step is shown are their states. The best of them wins, and all go on from
it. So there is one reply, in k copies when it ended with an end token; one cut short
differs in its last token, which nothing has judged yet, and row 0 has the likeliest. A
row that has ended has no state after it: against the best of the others it competes by
its probability alone. With one candidate this is greedy decoding. Nothing is random.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.distributions import finished
from bot.interfaces import Draw, Sampler
from bot.model import Turn


class Contrastive:
    """One deterministic reply that does not turn in circles; k is its look-ahead."""

    name = "contrastive"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        alpha: float = Field(
            0.6, ge=0, le=1, description="0: by probability alone, 1: by novelty alone"
        )
        window: int = Field(
            128,
            ge=1,
            le=1024,
            description="last tokens compared with; each takes 4 bytes · vocabulary",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def samplers(self) -> list[Sampler]:
        return [self]

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> ContrastiveStep:
        return ContrastiveStep(alpha=self._settings.alpha, window=self._settings.window)


class ContrastiveStep:
    """
    One turn's reply: p of each row's last token, and the states of the reply so far.
    O(k · vocab · min(window, t)) per step t, and window · vocab floats of memory.
    """

    def __init__(self, *, alpha: float, window: int) -> None:
        self._alpha = alpha
        self._window = window
        self._chances: Tensor | None = None
        self._states = torch.empty(0)
        self._seen = 0

    def __call__(self, logits: Tensor) -> Draw:
        states = directions(logits)
        winner = self._winner(logits, states)
        self._remember(states[winner])
        self._chances, tokens = continuations(logits[winner], len(logits))
        return Draw(tokens=tokens, parents=torch.full_like(tokens, winner))

    def _winner(self, logits: Tensor, states: Tensor) -> int:
        if self._chances is None:
            return 0  # all rows are still the same text
        known = self._states[: min(self._seen, self._window)]
        likeness = (states @ known.T).amax(dim=1)
        return best(self._chances, likeness, finished(logits), self._alpha)

    def _remember(self, state: Tensor) -> None:
        if not self._seen:
            self._states = state.new_empty(self._window, len(state))
        self._states[self._seen % self._window] = state
        self._seen += 1


def best(chances: Tensor, likeness: Tensor, ended: Tensor, alpha: float) -> int:
    """
    Return the row that wins: `chances` and `likeness` are [k], `ended` says for which
    rows there is no likeness. Those win by being likelier than the best of the others.
    """
    scores = (1 - alpha) * chances - alpha * likeness
    rival = int(scores.masked_fill(ended, -torch.inf).argmax())
    end = int(chances.masked_fill(~ended, -torch.inf).argmax())
    if ended[end] and chances[end] > chances[rival]:
        return end
    return rival


def directions(logits: Tensor) -> Tensor:
    """
    Return logits [k, vocab] as rows of length one round their mean, whose products are
    cosines. An impossible token is put at the mean; a row without any difference is 0.
    """
    possible = logits.isfinite()
    # In float64, where the largest float32 can be summed and squared.
    values = logits.double().where(possible, 0.0)
    mean = values.sum(dim=1, keepdim=True) / possible.sum(dim=1, keepdim=True)
    centred = (values - mean).where(possible, 0.0)
    return torch.nn.functional.normalize(centred, dim=1).float()


def continuations(logits: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """
    Return p and the ids of the likeliest tokens, two [number] tensors, likeliest first.
    Where fewer are possible the likeliest is repeated.
    """
    largest, tokens = logits.topk(min(number, len(logits)), sorted=True)
    largest = torch.cat(
        [largest, largest.new_full((number - len(largest),), -torch.inf)]
    )
    tokens = torch.cat([tokens, tokens.new_zeros(number - len(tokens))])
    impossible = largest.isneginf()
    largest = largest.where(~impossible, largest[0])
    chances = (largest - logits.logsumexp(dim=0)).exp()
    return chances.double(), tokens.where(~impossible, tokens[0])
