"""
Suite `ratings`: do the bot's scorers prefer what people prefer?

It reads replies to one question each that people rated, and compares what every scorer
alone, and the configured ranking as a whole, would pick with a random and with the best
pick. The format is that of the sets of DSTC9's first track (Kim et al. 2020), one JSON
object in a line:

    {"id": 3157, "faq_question": "What languages are spoken there?",
     "faq_answer": "English and Spanish.",
     "candidates": [{"response": "English and Spanish.", "accuracy": 4.667,
                     "appropriateness": 4.333}, …]}

The dialogues that the replies were written for are not in the published data, so the
question of the FAQ stands for what was asked, and the passage is question and answer.
`accuracy` decides what is best; `appropriateness` may be missing. Of equal scores the
first reply is picked.

With `tune`, weights are sought on the contexts at even positions of the file, and every
row is over those at odd ones. Weights are tuned for the sum of the scores; rerankers
and selector have no part in the tuned rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bot.errors import ConfigError
from bot.evaluation import quality, tuning
from bot.evaluation.judges import AppTools, Bots, Judge, Judged, Toolbox, knowledge
from bot.evaluation.lines import DataFile, Line, chosen, inside, json_lines, named
from bot.evaluation.questions import evenly
from bot.evaluation.report import Detail, Report, Row, row
from bot.evaluation.tuning import ScoredSet
from bot.evaluation.turns import asking
from bot.interfaces import Progress

if TYPE_CHECKING:
    from bot.app import App

_NEEDS = (
    "one JSON object in each line, with id, faq_question, faq_answer and the rated "
    "candidates"
)

Rating = Annotated[float, Field(allow_inf_nan=False)]
Floats = NDArray[np.float64]
_Judgements = tuple["Sequence[Context]", Sequence[Judged]]


class Reply(Line):
    """A reply and what people thought of it."""

    response: str
    accuracy: Rating
    appropriateness: Rating | None = None


class Context(Line):
    """A question, what is known, and the rated replies."""

    id: int | str
    faq_question: Annotated[str, Field(min_length=1)]
    faq_answer: str
    gold_response: str = ""
    candidates: Annotated[tuple[Reply, ...], Field(min_length=1)]

    @property
    def accuracies(self) -> Floats:
        return np.array([one.accuracy for one in self.candidates])

    @property
    def appropriatenesses(self) -> Floats | None:
        found = [one.appropriateness for one in self.candidates]
        rated = [one for one in found if one is not None]
        return np.array(rated) if len(rated) == len(found) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranking:
    """What one way of ranking does with each context: its pick, and a score of each."""

    name: str
    picks: Sequence[int]
    scores: Sequence[Floats]


async def ratings(
    bots: Bots,
    file: DataFile,
    progress: Progress,
    *,
    tools: Callable[[App], Toolbox] = AppTools,
    tune: bool = False,
) -> Report:
    """Compare the bots' rankings with people; `tune` looks for better weights."""
    if tune and file.half != "all":
        raise ConfigError(
            f"tuning takes one half and reports on the other, not on {file.half!r}; "
            "leave out --half"
        )
    path = inside(named(file, "a file of rated replies"), "candidates.jsonl")
    found = json_lines(path, Context, _NEEDS)
    tuned_on, reported = tuning.halves(found) if tune else ([], found)
    contexts = chosen(path, reported, file)
    tuned_on = evenly(tuned_on, file.limit)
    rows = _bounds(contexts)
    details: list[Detail] = []
    for name, app in bots:
        judge = Judge.of(name, app, tools)
        judged = await _judged(judge, contexts, progress)
        rankings = [_alone(judge, judged, scorer) for scorer in judge.scorers]
        rows += [_row(one, contexts) for one in [*rankings, _whole(judge, judged)]]
        if tune and judge.scorers:
            seen = await _judged(judge, tuned_on, progress)
            rows += _tuned(judge, (tuned_on, seen), (contexts, judged))
        details += [
            _detail(judge, *each) for each in zip(judged, contexts, strict=True)
        ]
    return Report(suite="ratings", rows=rows, details=details)


async def _judged(
    judge: Judge, contexts: Sequence[Context], progress: Progress
) -> list[Judged]:
    step = f"Ranking ({judge.name})"
    judged = []
    for done, context in enumerate(contexts):
        progress(step, done, len(contexts))
        turn = replace(
            asking(str(context.id), context.faq_question),
            passages=knowledge(f"{context.faq_question}\n{context.faq_answer}"),
        )
        texts = [one.response for one in context.candidates]
        judged.append(await judge.judge(turn, texts))
    progress(step, len(contexts), len(contexts))
    return judged


# What ranks


def _alone(judge: Judge, judged: Sequence[Judged], scorer: str) -> _Ranking:
    scores = [one.scores[scorer] for one in judged]
    return _Ranking(
        name=f"{judge.name}: {scorer}",
        picks=[int(one.argmax()) for one in scores],
        scores=scores,
    )


def _whole(judge: Judge, judged: Sequence[Judged]) -> _Ranking:
    return _Ranking(
        name=judge.name,
        picks=[one.picked for one in judged],
        scores=[_by_place(one.order) for one in judged],
    )


def _by_place(order: Sequence[int]) -> Floats:
    """Return a score for each position that grows towards the front of the order."""
    scores = np.zeros(len(order))
    scores[list(order)] = np.arange(len(order), 0, -1)
    return scores


# Rows


def _bounds(contexts: Sequence[Context]) -> list[Row]:
    """Return what no ranking can do worse than on average, and none better."""

    def bound(name: str, of: Callable[[Floats], float]) -> Row:
        appropriatenesses = [one.appropriatenesses for one in contexts]
        return row(
            name,
            {
                "accuracy": [of(one.accuracies) for one in contexts],
                "appropriateness": [
                    of(one) for one in appropriatenesses if one is not None
                ],
            },
        )

    return [
        bound("random", lambda rated: float(rated.mean())),
        bound("oracle", lambda rated: float(rated.max())),
    ]


def _row(ranking: _Ranking, contexts: Sequence[Context]) -> Row:
    figures = [
        _figures(context, pick, scores)
        for context, pick, scores in zip(
            contexts, ranking.picks, ranking.scores, strict=True
        )
    ]
    names = dict.fromkeys(name for one in figures for name in one)
    measured = {name: [one[name] for one in figures if name in one] for name in names}
    share = quality.share_of_gap(
        measured["accuracy"],
        [float(one.accuracies.mean()) for one in contexts],
        [float(one.accuracies.max()) for one in contexts],
    )
    made = row(ranking.name, measured)
    return replace(
        made,
        metrics={**made.metrics, "share of gap": share.value},
        intervals={**made.intervals, "share of gap": share.interval},
    )


def _figures(context: Context, pick: int, scores: Floats) -> dict[str, float]:
    """Return one context's figures; correlations only where people saw differences."""
    rated = context.accuracies
    figures = {
        "accuracy": float(rated[pick]),
        "gain": float(rated[pick] - rated.mean()),
    }
    appropriatenesses = context.appropriatenesses
    if appropriatenesses is not None:
        figures["appropriateness"] = float(appropriatenesses[pick])
    pairwise = quality.pairwise_accuracy(scores, rated)
    if pairwise is not None:
        figures["spearman"] = quality.spearman(scores, rated)
        figures["pairwise"] = pairwise
    return figures


def _detail(judge: Judge, judged: Judged, context: Context) -> Detail:
    rated = context.accuracies
    return Detail(
        config=judge.name,
        record=judge.record(judged),
        expected=(context.gold_response,) if context.gold_response else (),
        worth=[float(rated[at]) for at in judged.order],
        metrics=_figures(context, judged.picked, _by_place(judged.order)),
    )


# Tuning


def _tuned(judge: Judge, tuned_on: _Judgements, reported: _Judgements) -> list[Row]:
    """
    Return what tuned weights reach on the other half, what they seemed to reach where
    they were found, and what they reach without each of their scorers.
    """
    names = judge.scorers
    seen, unseen = _scored_sets(names, tuned_on), _scored_sets(names, reported)
    start = {name: judge.weight(name) for name in names}
    weights = tuning.tune(seen, names, start)
    validated = tuning.cross_validated(seen, names, start)
    title, contexts = f"{judge.name}, tuned", reported[0]

    def reached(name: str, weights: Mapping[str, float]) -> Row:
        return _row(_by_weights(name, unseen, names, weights), contexts)

    return [
        reached(f"{title} ({_said(weights)})", weights),
        row(
            f"{title}, where it was tuned",
            {"accuracy": tuning.worths(seen, names, weights)},
        ),
        row(f"{title}, held out in five folds", {"accuracy": validated.held_out}),
        *(
            _and(
                reached(f"{title}, without {name}", {**weights, name: 0.0}),
                row(name, {"what it adds": added}),
            )
            for name, added in tuning.leave_one_out(unseen, names, weights).items()
            if weights[name]
        ),
    ]


def _and(one: Row, further: Row) -> Row:
    return replace(
        one,
        metrics={**one.metrics, **further.metrics},
        intervals={**one.intervals, **further.intervals},
    )


def _scored_sets(names: Sequence[str], judgements: _Judgements) -> list[ScoredSet]:
    return [
        ScoredSet(
            scores=np.stack([one.scores[name] for name in names], axis=1),
            worth=context.accuracies,
        )
        for context, one in zip(*judgements, strict=True)
    ]


def _by_weights(
    title: str,
    sets: Sequence[ScoredSet],
    names: Sequence[str],
    weights: Mapping[str, float],
) -> _Ranking:
    vector = np.array([weights[name] for name in names])
    return _Ranking(
        name=title,
        picks=tuning.evaluate(sets, names, weights),
        scores=[tuning.z_scores(one.scores) @ vector for one in sets],
    )


def _said(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in weights.items() if weight)
