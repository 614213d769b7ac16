"""
A candidate set as a model server streams it: chunks in, candidates out.

Knows the request and the form of a chunk; knows nothing of HTTP. Chunks of siblings
come in any order. A chunk may hold several tokens, and its text may come after them (a
server holds back what could begin a stop text), so `until` is asked at every token's
end, as if they had come one by one.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

from bot.generation.openai_http import Choice
from bot.interfaces import GenerationRequest
from bot.model import Candidate, Finish

UNKNOWN = -1  # the id of a token that the server does not tell
LEAST = -9999.0  # as vLLM writes minus infinity, which JSON cannot


class CandidateSet:
    """
    What became of a request so far. With fewer siblings `drawn` than asked for, there
    is one, and it stands for all: they would be equal.
    """

    def __init__(self, request: GenerationRequest, drawn: int) -> None:
        self.request = request
        self._siblings = [_Sibling(request.begun) for _ in range(drawn)]
        self._alike = request.candidates // drawn
        self._sent = time.perf_counter()
        self._first: float | None = None

    @property
    def heard(self) -> bool:
        return self._first is not None

    @property
    def cut_short(self) -> bool:
        """Whether all siblings have ended, and one only because we wanted it to."""
        ends = {sibling.finish for sibling in self._siblings}
        return None not in ends and "block" in ends

    @property
    def missing(self) -> str | None:
        """What is wrong if this was the whole stream, and what to do."""
        left = [each for each in self._siblings if each.finish is None]
        done = len(self._siblings) - len(left)
        if not left:
            return None
        if done and not any(each.raw for each in left):
            return (
                f"wrote {done} of {len(self._siblings)} candidates; for a server that "
                "does not know `n`, set generation.candidates to 1"
            )
        return (
            f"the stream ended before {len(left)} of {len(self._siblings)} candidates "
            "did; see the server's log"
        )

    def has(self, index: int) -> bool:
        return 0 <= index < len(self._siblings)

    def take(self, choice: Choice) -> None:
        """Add what a chunk brings, and tell how the text has grown."""
        if self._first is None:
            self._first = time.perf_counter()
        sibling = self._siblings[choice.index]
        if sibling.finish is not None or not sibling.take(choice, self.request.until):
            return
        if self.request.on_text is not None:
            for number in range(self._alike):
                self.request.on_text(choice.index + number, sibling.text)

    def written(self) -> list[Candidate]:
        """Return the candidates; whatever has not ended was cut by time."""
        self._tell_times()
        return [
            candidate
            for sibling in self._siblings
            for candidate in [sibling.candidate()] * self._alike
        ]

    def _tell_times(self) -> None:
        """How long the set waited, only the server knows: it is part of reading."""
        if self.request.on_ms is None or self._first is None:
            return
        self.request.on_ms("read", 1000 * (self._first - self._sent))
        self.request.on_ms("write", 1000 * (time.perf_counter() - self._first))


@dataclass(slots=True, eq=False)
class _Sibling:
    """
    One sibling so far. `raw` is what the server wrote, `ends` where its tokens end in
    it, one for each of `ids`.
    """

    begun: Candidate | None
    raw: str = ""
    ends: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def text(self) -> str:
        return self._whole(len(self.raw))

    def take(self, choice: Choice, until: Callable[[str], bool] | None) -> bool:
        """Return whether the text has grown."""
        self._take_tokens(choice)
        before, known = self.text, len(self.raw)
        self.raw += choice.text
        if choice.finish_reason is not None:
            self.finish = "stop" if choice.finish_reason == "stop" else "length"
        if until is not None and len(self.raw) > known:
            self._cut_where(until, known)
        return self.text != before

    def candidate(self) -> Candidate:
        begun = self.begun
        told = len(self.log_probs) == len(self.ids)
        log_probs = self.log_probs if told else []
        return Candidate(
            text=self.text.strip(),
            tokens=(*(begun.tokens if begun else ()), *self.ids),
            log_probs=(*(begun.log_probs if begun else ()), *log_probs),
            finish=self.finish or "length",
        )

    def _whole(self, length: int) -> str:
        written = self.raw[:length]
        whole = self.begun.text + written if self.begun else written.lstrip()
        return whole.rstrip("\N{REPLACEMENT CHARACTER}")

    def _take_tokens(self, choice: Choice) -> None:
        told = choice.logprobs
        pieces = told.tokens if told else ()
        if told and pieces:
            self.log_probs += [
                LEAST if each is None else min(each, 0.0)
                for each in told.token_logprobs
            ]
        elif choice.text:
            pieces = (choice.text,)  # as far as anyone can tell
        ids = choice.token_ids or ()
        self.ids += ids if len(ids) == len(pieces) else [UNKNOWN] * len(pieces)
        for piece in pieces:
            self.ends.append((self.ends[-1] if self.ends else 0) + len(piece))

    def _cut_where(self, until: Callable[[str], bool], known: int) -> None:
        length = len(self.raw)
        for end in (*(end for end in self.ends if known < end < length), length):
            if end == length and self.finish == "stop":
                return  # the reply is over, which says more
            if until(self._whole(end)):
                kept = bisect_left([0, *self.ends[:-1]], end)
                self.raw, self.finish = self.raw[:end], "block"
                for each in (self.ends, self.ids, self.log_probs):
                    del each[kept:]
                return
