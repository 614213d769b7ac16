"""
Scores how well the question can be told from the reply, beside the reply's likelihood.

    score(y) = mean log p(y | x) + λ · mean log p(x | y)

Maximum mutual information, bidirectional form: Li et al. 2016, arXiv:1510.03055. "I do
not know" answers everything, so nobody can tell what was asked. What DialoGPT gained
by it: NIST-4 3.06 to 3.33, dist-2 26.3 to 45.6, but BLEU-4 4.56 to 3.94. Those had a
model trained for p(x | y); here the bot's own one is asked, in its chat template, which
question a reply answers. A small model does that badly (it failed at 135M).

Costs a reading of the question after a prompt of its own for each candidate, and of the
candidates that the model did not write, in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import mean_log_prob
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn

_REPLY = "{reply}"


class MmiBidi:
    """Prefers replies that only this question calls for. From -50 (1 + λ) to 0."""

    name = "mmi-bidi"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(
            0.5, ge=0, le=10, description="λ: weight of the question's likelihood"
        )
        instruction: str = Field(
            "Which question does this text answer? Write the question only.\n\n{reply}",
            pattern=r"\{reply\}",
            max_length=2000,
            description="what the model is asked; {reply} stands for the reply",
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
        backwards = [
            tools.prompt(asking_back(turn, self._settings.instruction, one.text))
            for one in (candidates[place] for place in spoken)
        ]
        read = tools.log_probs(
            [turn.prompt] * len(unread) + backwards,
            [candidates[place].text for place in unread]
            + [turn.question] * len(spoken),
        )
        forwards = dict(zip(unread, read[: len(unread)], strict=True))
        scores = {
            place: mean_log_prob(forwards.get(place, candidates[place].log_probs))
            + self._settings.weight * mean_log_prob(question)
            for place, question in zip(spoken, read[len(unread) :], strict=True)
        }
        # A reply without words answers no question: it is put last.
        least = min(scores.values())
        return [scores.get(place, least) for place in range(len(candidates))]


def asking_back(turn: Turn, instruction: str, reply: str) -> Turn:
    """Return a turn that asks what was asked, and knows nothing but the reply."""
    # Not str.format: a reply may have braces of its own.
    message = replace(turn.message, text=instruction.replace(_REPLY, reply))
    return replace(turn, message=message, history=(), passages=(), prompt="")
