# ruff: noqa: RUF001, SIM905 - typographic marks are meant, lists read best as text
"""
Drops candidates that say again what the bot has said a moment ago.

    similarity = F1 of the content words of the candidate and of an earlier reply

What a customer expects: whoever asks something new and reads the old answer feels not
listened to, so another candidate is better. Whoever asks the same thing again, or says
"pardon?", wants the same answer, and a different one would be worse: nothing is dropped
then. A reply with other numbers, or with a "not" more or less, is a new answer however
alike it looks. When every candidate repeats, the old answer again is still better than
none, unless the operator says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Event, Turn, Verdict, dropped
from bot.text import content_words, overlap_f1

# A question of these alone asks for the last reply again, as "pardon?" does.
_AGAIN = frozenset(
    "again answer could excuse hear huh last please pardon repeat say sorry tell "
    "understand didn't didn’t not catch wiederholen bitte nochmal répéter "
    "再说 说一 一遍 重复 一次 请再 请重 复一 什么".split()
)
_NEGATIONS = frozenset(
    "no not never none nor neither without cannot unable kein keine nicht pas jamais "
    "不 没 無 无 非 未".split()
)


class TooSimilar:
    """Refuses to answer a new question with an old reply."""

    name = "too-similar"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        threshold: float = Field(
            0.8, gt=0, le=1, description="F1 of content words from which on it repeats"
        )
        replies: int = Field(
            3, ge=1, le=50, description="how many of the bot's last replies count"
        )
        minimum_words: int = Field(
            4,
            ge=1,
            le=100,
            description="content words under which a reply, such as 'Yes, it does.', "
            "may be said again",
        )
        same_question: float = Field(
            0.6,
            gt=0,
            le=1,
            description="F1 of content words from which on a question is the earlier "
            "one, so that its answer may be the earlier one too",
        )
        leave_some: bool = Field(
            default=True,
            description="keep what repeats when every candidate does; without it the "
            "bot may be left with nothing to say",
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        said = self._said(turn)
        verdicts = [self._verdict(candidate.text, said) for candidate in candidates]
        if self._settings.leave_some and not any(v.kept for v in verdicts):
            return [KEPT] * len(verdicts)
        return verdicts

    def _said(self, turn: Turn) -> list[tuple[int, list[str]]]:
        """The last replies to other questions: how long ago, and content words."""
        asked = content_words(turn.question)
        if _AGAIN.issuperset(asked):  # also "?" and "👍", which have no words
            return []
        last = exchanges(turn.history)[::-1][: self._settings.replies]
        return [
            (ago, content_words(one.reply))
            for ago, one in enumerate(last, 1)
            if overlap_f1(asked, content_words(one.question))
            < self._settings.same_question
        ]

    def _verdict(self, text: str, said: Iterable[tuple[int, Sequence[str]]]) -> Verdict:
        read = content_words(text)
        if len(read) < self._settings.minimum_words:
            return KEPT
        for ago, reply in said:
            similarity = resemblance(read, reply)
            if similarity >= self._settings.threshold:
                which = (
                    "the last reply" if ago == 1 else f"the last reply but {ago - 1}"
                )
                return dropped(f"repeats {which} (F1 {similarity:.2f})")
        return KEPT


@dataclass(frozen=True, slots=True)
class Exchange:
    """A reply, and the last message before it."""

    question: str
    reply: str


def exchanges(history: Iterable[Event]) -> list[Exchange]:
    """Return what was asked and replied, oldest first."""
    found: list[Exchange] = []
    question = ""
    for event in history:
        if event.kind == "message":
            question = event.text
        elif event.kind == "reply":
            found.append(Exchange(question, event.text))
    return found


def resemblance(one: Sequence[str], other: Sequence[str]) -> float:
    """
    Return the F1 of two bags of content words, 0 where they differ in a number or in
    whether something is denied.
    """
    if _numbers(one) != _numbers(other) or _denials(one) != _denials(other):
        return 0.0
    return overlap_f1(one, other)


def _numbers(read: Iterable[str]) -> frozenset[str]:
    return frozenset(word for word in read if word[0].isdigit())


def _denials(read: Iterable[str]) -> int:
    return sum(_denies(word) for word in read)


def _denies(word: str) -> bool:
    # Chinese comes in pairs of characters, of which a denial is one.
    return (
        word in _NEGATIONS
        or word.endswith(("n't", "n’t"))
        or any(character in _NEGATIONS for character in word if not word.isascii())
    )
