"""
Scores how likely a customer is to call a reply good, as learned from stored thumbs.

    score(reply) = b + Σ w_i · (score_i - mean_i) / scale_i + v · embedding(reply)

The log-odds of a logistic regression over what the scorers before this one said and the
reply's embedding, with an L2 penalty (Hoerl and Kennard 1970; le Cessie and van
Houwelingen 1992). `chorus feedback train` writes the file; it says there what the model
is worth. A score that is not there, because its scorer is off or comes later in the
list, counts as its mean.

Thumbs are few, and were given to replies that had won already: keep the other scorers,
and give this one a modest weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bot import hookimpl
from bot.errors import ConfigError, PluginError
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Beyond it there is nothing to tell, and a wild score would decide the whole ranking.
_MOST_LOG_ODDS = 20.0
_WILDEST = 1e6  # spreads from the mean: two infinite ones would add up to no number


class Learned(BaseModel):
    """The file that `chorus feedback train` writes, version 1."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1]
    names: tuple[str, ...]
    means: tuple[Number, ...]
    scales: tuple[Positive, ...]
    weights: tuple[Number, ...]
    embedding: tuple[Number, ...]
    bias: Number
    trained_on: int

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        lengths = {len(self.means), len(self.scales), len(self.weights)}
        if lengths != {len(self.names)}:
            raise ValueError("names, means, scales and weights differ in length")
        return self


class Feedback:
    """Prefers replies like those that customers called good. From -20 to 20."""

    name = "feedback"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        model: str = Field(
            "feedback.json",
            min_length=1,
            max_length=1000,
            description="file written by `chorus feedback train`, from where you are",
        )

    def __init__(self, settings: Settings) -> None:
        self._model = settings.model
        self._learned = learned(Path(settings.model))

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        if not candidates:
            return []
        log_odds = np.full(len(candidates), self._learned.bias)
        log_odds += [by_scores(one.scores, self._learned) for one in candidates]
        if self._learned.embedding:
            log_odds += self._by_embedding([one.text for one in candidates], tools)
        bounded = np.clip(log_odds, -_MOST_LOG_ODDS, _MOST_LOG_ODDS)
        return [float(score) for score in bounded]

    def _by_embedding(self, texts: Sequence[str], tools: Tools) -> NDArray[np.float64]:
        vectors = tools.embed(texts).astype(np.float64)
        if vectors.shape[1] != len(self._learned.embedding):
            raise PluginError(
                self.name,
                f"{self._model!r} was learned with vectors of length "
                f"{len(self._learned.embedding)} and the embedder's have "
                f"{vectors.shape[1]}; run `chorus feedback train` again",
            )
        found: NDArray[np.float64] = vectors @ np.array(self._learned.embedding)
        return found


def learned(path: Path) -> Learned:
    """Read what was learned; raise ConfigError where there is nothing to read."""
    try:
        return Learned.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(
            f"feedback: there is no file {str(path)!r}; run `chorus feedback train` to "
            "write it, or disable the plugin until customers have judged enough replies"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"feedback: {str(path)!r} cannot be read ({error.strerror}); correct "
            "`model`, or the file's permissions"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"feedback: {str(path)!r} is not what `chorus feedback train` writes "
            f"({where}: {first['msg']}); run it again"
        ) from error


def by_scores(scores: Mapping[str, float], model: Learned) -> float:
    """Return what the scores add to the log-odds; one that is missing adds nothing."""
    parts = zip(model.names, model.means, model.scales, model.weights, strict=True)
    return sum(
        weight * min(max((scores[name] - mean) / scale, -_WILDEST), _WILDEST)
        for name, mean, scale, weight in parts
        if name in scores and math.isfinite(scores[name])
    )
