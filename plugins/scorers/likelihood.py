"""
Scores how likely a reply is under the generator that the bot has loaded.

    score(reply) = (1 / n^penalty) Σ log p(token | prompt, earlier tokens)

The length penalty is that of Wu et al. 2016, arXiv:1609.08144, without its constant:
0 compares whole texts, 1 tokens. Weak alone (DialogRPT's human preferences: 51 %,
which is chance), useful in a sum. What the model did not write, such as a quotation,
is read by it in one call, or passed over at no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import LogProbs, mean_log_prob
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn


class Likelihood:
    """Prefers what the model finds natural to say here. At most 0."""

    name = "likelihood"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        length_penalty: float = Field(
            1.0, ge=0, le=2, description="0: sum over tokens, 1: mean of tokens"
        )
        unread: Literal["read", "mean"] = Field(
            "read",
            description="what the model did not write, such as a quotation, it reads "
            "(read), or it gets the mean of what the model wrote (mean): no cost, and "
            "no opinion",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        log_probs: dict[int, LogProbs] = {
            position: candidate.log_probs
            for position, candidate in enumerate(candidates)
            if len(candidate.log_probs)
        }
        unread = [
            position
            for position, candidate in enumerate(candidates)
            if position not in log_probs and candidate.text.strip()
        ]
        if unread and self._settings.unread == "read":
            texts = [candidates[position].text for position in unread]
            read = tools.log_probs([turn.prompt] * len(texts), texts)
            log_probs |= dict(zip(unread, read, strict=True))
        scores = {
            position: mean_log_prob(found, self._settings.length_penalty)
            for position, found in log_probs.items()
            if len(found)
        }
        if scores and self._settings.unread == "mean":
            scores |= dict.fromkeys(unread, sum(scores.values()) / len(scores))
        # A reply without tokens has no likelihood: it is put with the least likely.
        least = min(scores.values(), default=0.0)
        return [scores.get(position, least) for position in range(len(candidates))]
