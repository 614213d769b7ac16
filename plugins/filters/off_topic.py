"""
Drops candidates that are close neither to the question nor to the passages.

    dropped where cos(reply, question) < q
    and the largest cos(reply, sentence of the passages) < p

A safeguard against fluent replies off the subject, not a judge of good ones. With the
defaults and all-MiniLM-L6-v2, on the 450 questions of DSTC9 with human ratings, it
drops 80 % of people's replies to another question, 9 % of the system replies rated
under 3 of 5, 0.05 % of those rated 4 or more, and 0.9 % of people's own replies; the
AUC of own against other replies is .96 for the question alone, .98 for the passages.
Evasions ("I'm afraid that is not possible") are about nothing and may be dropped. Short
replies ("Yes, it does.") are close to nothing and are kept, as is what the embedder was
not trained to read: its cosines outside its languages mean nothing.

One call of the embedder, for all texts at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped
from bot.text import content_words, is_written_in, sentences

Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class OffTopic:
    """Refuses to speak of something else."""

    name = "off-topic"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        question: float = Field(
            0.3, ge=-1, le=1, description="cosine to the question that is close enough"
        )
        passages: float = Field(
            0.25,
            ge=-1,
            le=1,
            description="cosine to a sentence of the passages that is close enough",
        )
        minimum_words: int = Field(
            3,
            ge=1,
            le=100,
            description="content words under which a reply is kept, whatever it says",
        )
        languages: tuple[Language, ...] = Field(
            ("en",),
            min_length=1,
            max_length=100,
            description="ISO 639-1 codes of the languages that the embedder reads; "
            "what is written in other scripts is kept",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def texts(self, turn: Turn) -> list[str]:
        """Return the question, then the sentences of the passages, if it can judge."""
        if not self._can_judge_replies_to(turn.question):
            return []
        told = [s for passage in turn.passages for s in sentences(passage.text)]
        return [turn.question, *told]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        verdicts = [KEPT] * len(candidates)
        judged = [at for at, c in enumerate(candidates) if self._can_judge(c.text)]
        if not judged or not self._can_judge_replies_to(turn.question):
            return verdicts
        replies = [candidates[at].text for at in judged]
        vectors = tools.embed([*replies, *self.texts(turn)]).astype(np.float64)
        closeness = closest(vectors[: len(judged)], vectors[len(judged) :])
        for at, (to_question, to_passages) in zip(judged, closeness, strict=True):
            if self._is_off(to_question, to_passages):
                verdicts[at] = dropped(
                    f"is about something else (cosine {to_question:.2f} to the "
                    f"question, {to_passages:.2f} to the passages)"
                )
        return verdicts

    def _can_judge_replies_to(self, question: str) -> bool:
        return bool(content_words(question)) and self._is_read(question)

    def _can_judge(self, text: str) -> bool:
        enough = len(content_words(text)) >= self._settings.minimum_words
        return enough and self._is_read(text)

    def _is_read(self, text: str) -> bool:
        return is_written_in(text, self._settings.languages)

    def _is_off(self, to_question: float, to_passages: float) -> bool:
        # A vector that is not finite says nothing, and nothing is not close.
        return not (
            to_question >= self._settings.question
            or to_passages >= self._settings.passages
        )


def closest(
    replies: NDArray[np.float64], others: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """
    Return each reply's cosine to the first of the others, the question, and to the
    closest one after it, 0 where there is none. Rows are of length one, or zero.
    """
    similarity = replies @ others.T
    to_passages = similarity[:, 1:].max(axis=1, initial=-1.0)
    if others.shape[0] == 1:
        to_passages = np.zeros(len(replies))
    return list(zip(similarity[:, 0].tolist(), to_passages.tolist(), strict=True))
