"""
Drops candidates that say again what was said: the customer's question, the text of an
earlier candidate, a loop inside one text or, on request, the bot's last reply.

Texts are compared by their words alone, so that case, punctuation and white space do
not make a copy look new. The loop is a tandem repeat: the same run of words, of up to
1,000, several times in a row, which is how small models fail (Holtzman et al. 2020,
arXiv:1904.09751, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from bot import hookimpl
from bot.interfaces import CandidateFilter, Tools
from bot.model import KEPT, Candidate, Turn, Verdict, dropped
from bot.text import words

# Words of a run that is looked for. Nobody remembers more of them word by word, and
# without an end the time would grow with the square of the text.
_LONGEST_RUN = 1000


class Repeated:
    """Keeps the first of equal texts and none that loops."""

    name = "repeated"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        loop_rounds: int = Field(
            3, ge=2, le=50, description="times in a row that make a loop of a run"
        )
        loop_words: int = Field(
            8,
            ge=2,
            le=1000,
            description="words (characters in Chinese) that a loop must cover, so "
            "that 'no, no, no' passes",
        )
        drop_last_reply: bool = Field(
            default=False, description="also drop what the bot said last time"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def candidate_filters(self) -> list[CandidateFilter]:
        return [self]

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> list[Verdict]:
        said = {self._last_reply(turn): "repeats the bot's last reply"}
        question = words(turn.question)
        verdicts = []
        for candidate in candidates:
            read = tuple(words(candidate.text))
            if is_echo(read, question):
                verdicts.append(dropped("only repeats the question"))
                continue
            verdicts.append(self._verdict(read, said))
            said.setdefault(read, "has the words of an earlier candidate")
        return verdicts

    def _verdict(
        self, read: tuple[str, ...], said: dict[tuple[str, ...], str]
    ) -> Verdict:
        # A text without words is no copy of another such text: "👍" and "👎".
        if read and read in said:
            return dropped(said[read])
        covered = longest_loop(read, self._settings.loop_rounds)
        if covered >= self._settings.loop_words:
            return dropped(f"repeats itself for {covered} words in a row")
        return KEPT

    def _last_reply(self, turn: Turn) -> tuple[str, ...]:
        if not self._settings.drop_last_reply:
            return ()
        replies = [event.text for event in turn.history if event.kind == "reply"]
        return tuple(words(replies[-1])) if replies else ()


def is_echo(text: Sequence[str], question: Sequence[str]) -> bool:
    """
    Tell whether a text says at least half of the question and nothing else. A short
    answer ("the Wren", asked "the Wren or the Finch?") is none.
    """
    return 2 * len(text) >= len(question) > 0 and set(text) <= set(question)


def longest_loop(sequence: Sequence[str], rounds: int) -> int:
    """
    Return how many words the longest run covers that is one phrase at least `rounds`
    times in a row, 0 when there is none. Phrases have up to 1,000 words. O(n · length
    of the phrases): n is the number of words.
    """
    # Not an array of words: numpy would give each the room of the longest.
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(word, len(numbers)) for word in sequence])
    longest = 0
    for period in range(1, min(len(ids) // rounds, _LONGEST_RUN) + 1):
        # Where a word equals the one a period before it, for r words in a row, the
        # phrase of that period was said r / period + 1 times.
        same = _longest_run(ids[period:] == ids[:-period])
        if same >= period * (rounds - 1):
            longest = max(longest, same + period)
    return longest


def _longest_run(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """Return the length of the longest stretch of True."""
    breaks = np.flatnonzero(~np.concatenate(([False], flags, [False])))
    return int(np.diff(breaks).max()) - 1
