"""
A turn's reply, put together from what actions said, what a form asks, how it was worded
and what the documents answer.

Pure functions; knows nothing of how any of these came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bot.actions import rewording
from bot.actions.doing import Acted
from bot.actions.replies import Said, joined
from bot.model import Candidate, Record, Reply


def together(said: Sequence[Said]) -> Reply:
    """Return all that was said as one reply."""
    return joined([one.reply for one in said if one.reply is not None])


def with_wording(said: Sequence[Said], wording: str) -> list[Said]:
    """Put the wording where the first text stood that was to be worded."""
    left = wording
    worded: list[Said] = []
    for one in said:
        if one.reply is None or not (one.reword and one.reply.text):
            worded.append(one)
            continue
        worded.append(replace(one, reply=replace(one.reply, text=left)))
        left = ""
    return worded


def between(acted: Acted, record: Record) -> Record:
    """
    Return an answer from knowledge among what actions said: before it, and what a form
    asks after it. Who is asked something need not hear that nothing was found.
    """
    answer = [] if record.outcome == "declined" and acted.asks else [record.reply]
    parts = [
        *(one.reply for one in acted.said if one.reply),
        *answer,
        *(one.reply for one in acted.asks if one.reply),
    ]
    return replace(record, reply=joined(parts))


def keeping(
    original: str, written: Sequence[Candidate]
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the wordings that keep numbers and names, and the others, dropped."""
    kept: list[Candidate] = []
    lost: list[Candidate] = []
    for candidate in written:
        why = rewording.lost(original, candidate.text)
        if why is None:
            kept.append(candidate)
        else:
            lost.append(replace(candidate, dropped=f"rewording: {why}"))
    return kept, lost
