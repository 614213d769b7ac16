"""
Suite `pairs`: do the bot's scorers tell a right answer from a made-up one?

It reads pairs of answers to one question with the passage that decides between them,
in the format of HaluEval's questions (Li et al. 2023, arXiv:2305.11747), one JSON
object in a line:

    {"knowledge": "…", "question": "…", "right_answer": "…", "hallucinated_answer": "…"}

An accuracy of a half is chance; a scorer that sees no difference has just that. In
HaluEval the right answer is nearly always the shorter one (2 words against 10), so a
scorer can fail there because it likes sentences; the row `the shorter one` is what
knowing nothing else would reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bot.evaluation.judges import AppTools, Bots, Judge, Judged, Toolbox, knowledge
from bot.evaluation.lines import DataFile, Line, chosen, inside, json_lines, named
from bot.evaluation.report import Detail, Report, row
from bot.evaluation.turns import asking
from bot.interfaces import Progress
from bot.text import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.app import App

_NEEDS = (
    "one JSON object in each line, with knowledge, question, right_answer and "
    "hallucinated_answer"
)


class Pair(Line):
    """A question with a right and a made-up answer."""

    knowledge: str
    question: Annotated[str, Field(min_length=1)]
    right_answer: str
    hallucinated_answer: str

    @property
    def answers(self) -> tuple[str, str]:
        return self.right_answer, self.hallucinated_answer


async def pairs(
    bots: Bots,
    file: DataFile,
    progress: Progress,
    *,
    tools: Callable[[App], Toolbox] = AppTools,
) -> Report:
    """Count how often each scorer, and the whole ranking, prefers the right answer."""
    path = inside(named(file, "a file of pairs of answers"), "qa_one-turn.jsonl")
    asked = chosen(path, json_lines(path, Pair, _NEEDS), file)
    rows = [row("the shorter one", {"pairwise": [_shorter(one) for one in asked]})]
    details: list[Detail] = []
    for name, app in bots:
        judge = Judge.of(name, app, tools)
        judged = await _judged(judge, asked, progress)
        rows += [
            row(
                f"{name}: {scorer}",
                {"pairwise": [_preference(*one.scores[scorer]) for one in judged]},
            )
            for scorer in judge.scorers
        ]
        rows.append(row(name, {"pairwise": [_preferred(one) for one in judged]}))
        details += [
            Detail(
                config=name,
                record=judge.record(one),
                expected=(pair.right_answer,),
                worth=[float(at == 0) for at in one.order],
                metrics={"pairwise": _preferred(one)},
            )
            for one, pair in zip(judged, asked, strict=True)
        ]
    return Report(suite="pairs", rows=rows, details=details)


async def _judged(
    judge: Judge, asked: Sequence[Pair], progress: Progress
) -> list[Judged]:
    step = f"Ranking ({judge.name})"
    judged = []
    for done, pair in enumerate(asked):
        progress(step, done, len(asked))
        turn = replace(
            asking(f"pair-{done}", pair.question), passages=knowledge(pair.knowledge)
        )
        judged.append(await judge.judge(turn, pair.answers))
    progress(step, len(asked), len(asked))
    return judged


def _preferred(judged: Judged) -> float:
    """Say whether the right answer, which was given first, was picked; ½ for a tie."""
    totals = {one.total for one in judged.ranked.candidates}
    reordered = bool(judged.ranked.orders)
    if len(totals) == 1 and not reordered:
        return 0.5
    return float(judged.picked == 0)


def _preference(right: float, wrong: float) -> float:
    # Rounding lets scores that are the same by their formula differ a little.
    if math.isclose(right, wrong, rel_tol=1e-9, abs_tol=1e-12):
        return 0.5
    return float(right > wrong)


def _shorter(pair: Pair) -> float:
    right, wrong = (len(words(answer)) for answer in pair.answers)
    return _preference(-right, -wrong)
