"""
A reply written in blocks: k siblings write a sentence, one is chosen, k go on from it.

So a reply is ranked and still shown while it is written. What was shown cannot be taken
back: filters judge the text so far in every round, and whatever goes wrong later, the
reply ends with what is settled. Knows nothing about how siblings are written or ranked,
nor who is shown anything.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

from bot.errors import TurnCancelled
from bot.interfaces import GenerationRequest
from bot.model import Candidate
from bot.ranking import Ranked
from bot.text import sentence_spans

_INSIDE_A_NAME = frozenset("./@_")

Write = Callable[[GenerationRequest], Awaitable[Sequence[Candidate]]]


class Rank(Protocol):
    """Ranks a round; what writers wrote is in the `first` one only."""

    async def __call__(self, written: Sequence[Candidate], *, first: bool) -> Ranked:
        """Never raises."""
        ...


async def in_blocks(
    request: GenerationRequest, *, write: Write, rank: Rank, show: Callable[[str], None]
) -> Ranked:
    """
    Write the reply that `request` asks for, and show it as far as it is settled. Limits
    of tokens and of time are those of the whole reply. Returns the candidates of every
    round; the chosen one is the reply.
    """
    rounds: list[Ranked] = []
    problems: list[str] = []
    asked: GenerationRequest | None = request
    while asked is not None:
        began = time.monotonic()
        try:
            written = await write(replace(asked, until=_end_of_block(asked.begun)))
        except TurnCancelled:
            raise
        except Exception as error:
            if asked.begun is None:
                raise
            # No apology can take back what was shown, so the reply ends with it.
            problems.append(f"block {len(rounds) + 1}: {type(error).__name__}: {error}")
            break
        spent = time.monotonic() - began
        rounds.append(await rank(written, first=asked.begun is None))
        _check_stopped(request)
        asked = _rest(asked, _winner(rounds[-1]), spent)
        if asked is not None and asked.begun is not None:
            show(asked.begun.text)
    return _together(rounds, problems)


def ends_block(text: str) -> bool:
    """
    Say whether a growing text has come to the end of its first sentence. A line's end
    is one, if something stands before it. Asked in the middle of "3.5", it waits for
    what follows; a stop that only looks like an end costs a round, and no text.
    """
    marked = text.rstrip("*_")  # emphasis that closes after the stop
    decided = marked[:-1] if _is_undecided(marked) else marked
    # Would a sentence begin here? A word that opens one is put there to find out.
    return len(sentence_spans(f"{decided} A")) > 1


def _is_undecided(text: str) -> bool:
    """
    Whether only the next character says what the stop at the end is: 3.5, v2.0,
    example.com/a.b, U.S.
    """
    if not text.endswith("."):
        return False
    word = text.rsplit(maxsplit=1)[-1][:-1]
    return word[-1:].isdecimal() or not _INSIDE_A_NAME.isdisjoint(word)


def _end_of_block(begun: Candidate | None) -> Callable[[str], bool]:
    settled = 0 if begun is None else len(begun.text.lstrip())
    return lambda text: ends_block(text.lstrip()[settled:])


def _check_stopped(request: GenerationRequest) -> None:
    if request.cancelled is not None and request.cancelled.is_set():
        raise TurnCancelled("stopped while a block of its reply was ranked")


def _rest(
    asked: GenerationRequest, winner: Candidate | None, spent_s: float
) -> GenerationRequest | None:
    """Ask for what follows the winner; None when it is the end of the reply."""
    if winner is None or winner.finish != "block" or winner.origin != "model":
        return None
    fresh = len(winner.tokens) - len(asked.begun.tokens if asked.begun else ())
    tokens = asked.max_new_tokens - fresh
    left_s = None if asked.timeout_s is None else asked.timeout_s - spent_s
    if tokens <= 0 or (left_s is not None and left_s <= 0):
        return None
    return replace(
        asked,
        begun=winner,
        max_new_tokens=tokens,
        timeout_s=left_s,
        # With the same one, a sibling would draw with the same numbers in every block.
        turn=replace(asked.turn, seed=asked.turn.seed + 1),
    )


def _winner(ranked: Ranked) -> Candidate | None:
    return None if ranked.chosen is None else ranked.candidates[ranked.chosen]


def _together(rounds: Sequence[Ranked], problems: Sequence[str]) -> Ranked:
    """Return one ranking of all rounds; the last that has a winner has the reply."""
    starts = accumulate((len(one.candidates) for one in rounds), initial=0)
    chosen = [
        start + one.chosen
        for start, one in zip(starts, rounds, strict=False)
        if one.chosen is not None
    ]
    candidates = [
        replace(candidate, block=block, settled=position == one.chosen)
        for block, one in enumerate(rounds, 1)
        for position, candidate in enumerate(one.candidates)
    ]
    return Ranked(
        candidates=candidates,
        chosen=chosen[-1] if chosen else None,
        why=_why(rounds) if chosen else rounds[0].why,
        orders={
            f"{name}, block {block}": order
            for block, one in enumerate(rounds, 1)
            for name, order in one.orders.items()
        },
        problems=[*(each for one in rounds for each in one.problems), *problems],
    )


def _why(rounds: Sequence[Ranked]) -> str:
    settled = sum(one.chosen is not None for one in rounds)
    reasons = " ".join(f"({block}) {one.why}" for block, one in enumerate(rounds, 1))
    return f"{settled} block{'s' if settled > 1 else ''}: {reasons}"
