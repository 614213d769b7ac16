"""
The suites of `chorus eval`: which file each reads, and which rows it makes of it.

Knows the order of things; `retrieval` and `answers` know how to measure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bot.errors import ConfigError
from bot.evaluation.answers import Way, answer_rows, answered, tuned_rows, ways
from bot.evaluation.attribution import attribution
from bot.evaluation.dialogues import dialogues
from bot.evaluation.intents import intents
from bot.evaluation.judges import AppTools, Bots
from bot.evaluation.lines import HalfOrAll
from bot.evaluation.memory import Memory, RememberingModel, drawing_of
from bot.evaluation.pairs import pairs
from bot.evaluation.prompts import prompts
from bot.evaluation.questions import (
    Article,
    Question,
    articles,
    evenly,
    handbook_questions,
)
from bot.evaluation.ratings import ratings
from bot.evaluation.report import Report
from bot.evaluation.retrieval import evidence_rows, faq, retrieval_suite
from bot.evaluation.tuning import of_half
from bot.interfaces import ChatMessage, LanguageModel, Progress, Retriever
from bot.model import Address, Passage, Turn
from bot.turn import Answerer, Pipeline

if TYPE_CHECKING:
    from bot.app import App

# More than the longest Chinese context takes in the tokens of an English model.
_WHOLE_PASSAGE_TOKENS = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionFile:
    """
    Which questions: `path` is None when the operator named none, `limit` takes so many
    of them, evenly spread, `half` those of one half.
    """

    path: Path | None = None
    limit: int | None = None
    half: HalfOrAll = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """
    What an operator can choose about a run. `tune` looks for better weights on one half
    and reports them on the other; `blocks` adds replies in blocks; `at_once` turns are
    answered at a time; `memory` keeps what models write, None keeps nothing.
    """

    tune: bool = False
    blocks: bool = False
    at_once: int = 1
    memory: Memory | None = None


class Suite(Protocol):
    """Measures bots, each with the name of its row, over a file."""

    async def __call__(
        self, bots: Bots, file: QuestionFile, progress: Progress, how: How
    ) -> Report: ...


async def handbook(
    bots: Bots, file: QuestionFile, progress: Progress, how: How
) -> Report:
    """Retrieval and answers over the shipped handbook, or a file of its format."""
    _both_halves(file, how)
    path = file.path or shipped_questions()
    found = [
        question
        for question in handbook_questions(path)
        if file.half in ("all", question.half)
    ]
    if not found:
        raise ConfigError(f"{path}: has no questions of the half {file.half!r}")
    questions = evenly(found, file.limit)
    (_, first), *_ = bots
    searched = await evidence_rows(first, questions, progress)
    tune_on = [one.id for one in questions if one.half == "tune"]
    _tunable(bots, questions, tune_on, how)
    every_way = ways(_answerers(bots, how), blocks=how.blocks)
    report = await _answered(
        "handbook", bots, every_way, questions, tune_on, progress, how
    )
    return replace(report, rows=[*searched, *report.rows])


async def qa(bots: Bots, file: QuestionFile, progress: Progress, how: How) -> Report:
    """Answers to an XQuAD file's questions, each given the passage it came with."""
    _both_halves(file, how)
    asked = [
        (question, article)
        for article in articles(_required(file, "an XQuAD file"))
        for question in article.questions
    ]
    chosen = evenly(of_half(asked, file.half), file.limit)
    given = {question.id: _passage(article) for question, article in chosen}
    questions = [question for question, _ in chosen]
    tune_on = [one.id for one in questions[::2]]
    _tunable(bots, questions, tune_on, how)
    roomy = [(name, _with_room(app)) for name, app in bots]
    every_way = [
        _given(way, given) for way in ways(_answerers(roomy, how), blocks=how.blocks)
    ]
    return await _answered("qa", bots, every_way, questions, tune_on, progress, how)


async def diversity(
    bots: Bots, file: QuestionFile, progress: Progress, how: How
) -> Report:
    """
    How much the candidates for open-ended prompts differ. The model reads the prompt
    alone, no passage and no rule; nothing is quoted, and nothing declined.
    """
    if how.tune or how.blocks:
        raise ConfigError(
            "suite 'diversity': its prompts have no right answers to tune for, and "
            "blocks are no sets; leave out --tune and --blocks"
        )
    found = prompts(_required(file, "NoveltyBench's prompts"))
    chosen = evenly(of_half(found, file.half), file.limit)
    questions = [one.question for one in chosen]
    every_way = [
        Way(name=name, answerer=_bare(answerer))
        for name, answerer in _answerers(bots, how)
    ]
    return await _answered("diversity", bots, every_way, questions, [], progress, how)


async def _answered(  # noqa: PLR0913, PLR0917 - all that makes an evaluation
    suite: str,
    bots: Bots,
    every_way: Sequence[Way],
    questions: Sequence[Question],
    tune_on: Sequence[str],
    progress: Progress,
    how: How,
) -> Report:
    details = await answered(every_way, questions, progress, at_once=how.at_once)
    rows = answer_rows(details)
    for name, app in bots if how.tune else ():
        rows += tuned_rows(name, details, app.config.ranking.weights, tune_on)
    return Report(suite=suite, rows=rows, details=details)


def _both_halves(file: QuestionFile, how: How) -> None:
    if how.tune and file.half != "all":
        raise ConfigError(
            f"--tune: one half is for tuning and the other for the report, so "
            f"{file.half!r} alone is too little; leave out --half"
        )


def _tunable(
    bots: Bots, questions: Sequence[Question], tune_on: Sequence[str], how: How
) -> None:
    """Refuse before an hour of answering what could not be tuned after it."""
    if not how.tune:
        return
    _some_scorer(bots)
    if not 0 < len(tune_on) < len(questions):
        raise ConfigError(
            f"--tune: of these {len(questions)} questions {len(tune_on)} are for "
            "tuning, and there must be some on either side; raise or leave out --limit"
        )


def _some_scorer(bots: Bots) -> None:
    if not any(app.plugins.scorers for _, app in bots):
        raise ConfigError(
            "--tune: no configuration enables a scorer, so there are no weights to "
            "tune; enable one, or leave out --tune"
        )


def _answerers(bots: Bots, how: How) -> list[tuple[str, Answerer]]:
    """A customer of a bot in the same process never waits for an evaluation."""
    found: list[tuple[str, Answerer]] = []
    for name, app in bots:
        answerer = replace(app.answerer(), background=True)
        if how.memory is not None:
            drawing = drawing_of(app.config)
            model = RememberingModel(answerer.model, how.memory, drawing)
            answerer = replace(answerer, model=model)
        found.append((name, answerer))
    return found


async def retrieval(
    bots: Bots, file: QuestionFile, progress: Progress, how: How
) -> Report:
    """Retrieval over an XQuAD file; `limit` is a number of its passages."""
    _only_read(how)
    (_, app), *_ = bots
    path = _required(file, "an XQuAD file")
    rows = await retrieval_suite(app, evenly(articles(path), file.limit), progress)
    return Report(suite="retrieval", rows=rows)


async def _ratings(
    bots: Bots, file: QuestionFile, progress: Progress, how: How
) -> Report:
    _no_blocks(how)
    if how.tune:
        _some_scorer(bots)
    tools = partial(AppTools, memory=how.memory)
    return await ratings(bots, file, progress, tools=tools, tune=how.tune)


async def _attribution(
    bots: Bots, file: QuestionFile, progress: Progress, how: How
) -> Report:
    _only_read(how)
    tools = partial(AppTools, memory=how.memory)
    return await attribution(bots, file, progress, tools=tools)


async def _pairs(
    bots: Bots, file: QuestionFile, progress: Progress, how: How
) -> Report:
    _only_read(how)
    tools = partial(AppTools, memory=how.memory)
    return await pairs(bots, file, progress, tools=tools)


def _searching(
    suite: Callable[[Bots, QuestionFile, Progress], Awaitable[Report]],
) -> Suite:
    """Return the suite of something that writes and ranks nothing."""

    async def searching(
        bots: Bots, file: QuestionFile, progress: Progress, how: How
    ) -> Report:
        _only_read(how)
        return await suite(bots, file, progress)

    return searching


def _only_read(how: How) -> None:
    _no_blocks(how)
    if how.tune:
        raise ConfigError("this suite ranks no sets; leave out --tune")


def _no_blocks(how: How) -> None:
    if how.blocks:
        raise ConfigError("this suite writes no replies; leave out --blocks")


SUITES: Mapping[str, Suite] = {
    "handbook": handbook,
    "qa": qa,
    "diversity": diversity,
    "ratings": _ratings,
    "attribution": _attribution,
    "pairs": _pairs,
    "retrieval": retrieval,
    "faq": _searching(faq),
    "intents": _searching(intents),
    "dialogues": _searching(dialogues),
}


def shipped_questions() -> Path:
    """Return the handbook's questions, which lie in a checkout, not in the wheel."""
    path = Path(__file__).parents[2] / "tests" / "data" / "handbook_questions.yaml"
    if not path.exists():
        raise ConfigError(
            f"{path}: not found, because it is shipped with the source and not with "
            "the package; name a file of questions with --data"
        )
    return path


def _required(file: QuestionFile, what: str) -> Path:
    if file.path is None:
        raise ConfigError(f"this suite ships no questions; name {what} with --data")
    return file.path


# A prompt by itself


class _Nothing:
    """A retriever that knows nothing, which is no reason to decline here."""

    name = "nothing"

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        return [Passage(id="nothing", text="", source="nothing")]


@dataclass(frozen=True, slots=True)
class _Alone:
    """A prompt that is what was asked, with one variant's instruction."""

    model: LanguageModel

    def render(self, turn: Turn, parts: Sequence[str], instruction: str = "") -> Turn:
        content = f"{turn.question}\n\n{instruction}".strip()
        message = ChatMessage(role="user", content=content)
        return replace(turn, prompt=self.model.render([message]))


def _bare(answerer: Answerer) -> Answerer:
    original = answerer.pipeline
    alone = _Alone(answerer.model)

    def pipeline(address: Address) -> Pipeline:
        own = original(address)
        ranking = replace(own.ranking, writers=())
        return replace(own, retrievers=(_Nothing(),), prompter=alone, ranking=ranking)

    return replace(answerer, pipeline=pipeline)


# A question with its own passage


class _GivenPassage:
    """A retriever that knows which passage a question came with."""

    name = "given"

    def __init__(self, passages: Mapping[str, Passage]) -> None:
        self._passages = passages

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        return [self._passages[turn.id]]


def _given(way: Way, passages: Mapping[str, Passage]) -> Way:
    retriever: Retriever = _GivenPassage(passages)
    original = way.answerer.pipeline

    def pipeline(address: Address) -> Pipeline:
        return replace(original(address), retrievers=(retriever,))

    answerer: Answerer = replace(way.answerer, pipeline=pipeline)
    return replace(way, answerer=answerer)


def _passage(article: Article) -> Passage:
    return Passage(
        id="given", text=article.context, source="given", title=article.title
    )


def _with_room(app: App) -> App:
    """The passage is given whole, however small the bot's own budget is."""
    knowledge = app.config.knowledge.model_copy(
        update={"budget_tokens": _WHOLE_PASSAGE_TOKENS}
    )
    return app.variant(app.config.model_copy(update={"knowledge": knowledge}))
