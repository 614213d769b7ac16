"""
Makes tokens that the reply has already drawn less likely.

    z_v / penalty where z_v > 0, z_v · penalty where not, for every v drawn so far

Keskar et al. 2019 (CTRL), arXiv:1909.05858, as everybody implements it: the two cases
make the penalty one in both signs. What the prompt says is not penalised, so words of
the passages stay as likely as they were. The penalty does not grow with how often a
token was drawn; words such as "the" are hit like any other, so stay close to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bot import hookimpl
from bot.interfaces import LogitsProcessor
from bot.model import Turn


class Repetition:
    """Each token costs more the second time."""

    name = "repetition"
    changes_argmax = True

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        penalty: float = Field(
            1.1, ge=1, le=5, description="1 changes nothing, 1.2 is strong"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def logits_processors(self) -> list[LogitsProcessor]:
        return [self]

    def begin(self, turn: Turn, siblings: int) -> RepetitionStep:
        return RepetitionStep(penalty=self._settings.penalty)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepetitionStep:
    """Keeps no state: the tokens drawn so far are all it needs."""

    penalty: float

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        return penalised(tokens, logits, self.penalty)


def penalised(tokens: Tensor, logits: Tensor, penalty: float) -> Tensor:
    """Return the logits with those of each row's own `tokens` [k, t] lowered."""
    drawn = logits.gather(1, tokens)
    lowered = (drawn / penalty).where(drawn > 0, drawn * penalty)
    return logits.scatter(1, tokens, lowered)
