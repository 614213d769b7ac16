"""
Scores how much likelier the passages make a reply.

    score(y) = mean log p(y | x, knowledge) - λ · mean log p(y | x)

Pointwise mutual information with the context: Holtzman et al. 2021, arXiv:2104.08315,
against the competition of surface forms; Shi et al. 2023 (context-aware decoding,
arXiv:2305.14739) do the same token by token. A reply that the model would give without
having read anything gains nothing. The best of the scorers that ask the generator in
our trials on grounded questions; without passages there is nothing to tell, and all are
0.

Costs one reading of every candidate without the passages, and of those that the model
did not write with them, in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import mean_log_prob
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn


class Pmi:
    """Prefers what was read over what was known. Between -50 and λ times 50."""

    name = "pmi"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(
            1.0,
            ge=0,
            le=2,
            description="λ: how much being likely without the passages costs",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        spoken = [place for place, one in enumerate(candidates) if one.text.strip()]
        if not spoken or not turn.passages:
            return [0.0] * len(candidates)
        unread = [place for place in spoken if not len(candidates[place].log_probs)]
        unknowing = tools.prompt(replace(turn, passages=(), prompt=""))
        read = tools.log_probs(
            [turn.prompt] * len(unread) + [unknowing] * len(spoken),
            [candidates[place].text for place in (*unread, *spoken)],
        )
        knowing = dict(zip(unread, read[: len(unread)], strict=True))
        scores = {
            place: mean_log_prob(knowing.get(place, candidates[place].log_probs))
            - self._settings.weight * mean_log_prob(without)
            for place, without in zip(spoken, read[len(unread) :], strict=True)
        }
        # A reply without words has nothing from the passages: it is put last.
        least = min(scores.values())
        return [scores.get(place, least) for place in range(len(candidates))]
