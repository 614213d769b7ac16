"""
Scores how much likelier the question makes a reply: it punishes what is said anywhere.

    score(y) = mean log p(y | x) - λ · mean over its first g tokens of log p(y)

Maximum mutual information, anti-language-model form: Li et al. 2016, arXiv:1510.03055,
who punish the first tokens alone, because those decide whether a reply is generic and
the later ones only whether it is grammatical. Here both terms are means, so that long
replies are not put first or last by their length. Meant for small talk; on grounded
questions it did not help (.417 of the answers contained against .450 for greedy, 135M
model).

Costs one reading of every candidate without a prompt, and of those that the model did
not write with it, in one call.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import LogProbs, mean_log_prob
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn


class MmiAntilm:
    """Prefers what would not be said to any question. Between -50 and λ times 50."""

    name = "mmi-antilm"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(
            0.5, ge=0, le=2, description="λ: how much being said anywhere costs"
        )
        tokens: int = Field(
            5, ge=1, le=1000, description="g: how many first tokens are judged by it"
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
        if not spoken:
            return [0.0] * len(candidates)
        unread = [place for place in spoken if not len(candidates[place].log_probs)]
        read = tools.log_probs(
            [turn.prompt] * len(unread) + [""] * len(spoken),
            [candidates[place].text for place in (*unread, *spoken)],
        )
        asked = dict(zip(unread, read[: len(unread)], strict=True))
        scores = {
            place: anti_lm(
                asked.get(place, candidates[place].log_probs),
                anywhere,
                self._settings.weight,
                self._settings.tokens,
            )
            for place, anywhere in zip(spoken, read[len(unread) :], strict=True)
        }
        # A reply without words says nothing to this question: it is put last.
        least = min(scores.values())
        return [scores.get(place, least) for place in range(len(candidates))]


def anti_lm(asked: LogProbs, anywhere: LogProbs, weight: float, tokens: int) -> float:
    """Return what is gained over the first tokens' likelihood anywhere."""
    return mean_log_prob(asked) - weight * mean_log_prob(anywhere[:tokens])
