"""
The suites of `chorus eval`: which file each reads, and which rows it makes of it.

Knows the order of things; `retrieval` and `answers` know how to measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from bot.errors import ConfigError
from bot.evaluation.answers import Way, answer_rows, ways
from bot.evaluation.questions import Article, articles, evenly, handbook_questions
from bot.evaluation.report import Row
from bot.evaluation.retrieval import evidence_rows, retrieval_suite
from bot.interfaces import Progress, Retriever
from bot.model import Address, Passage, Turn
from bot.turn import Answerer, Pipeline

if TYPE_CHECKING:
    from bot.app import App

HalfOrAll = Literal["tune", "report", "all"]

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


class Suite(Protocol):
    """Measures a bot over a file of questions; `blocks` adds replies in blocks."""

    async def __call__(
        self, app: App, file: QuestionFile, progress: Progress, *, blocks: bool = False
    ) -> list[Row]: ...


async def handbook(
    app: App, file: QuestionFile, progress: Progress, *, blocks: bool = False
) -> list[Row]:
    """Retrieval and answers over the shipped handbook, or a file of its format."""
    path = file.path or shipped_questions()
    found = [
        question
        for question in handbook_questions(path)
        if file.half in ("all", question.half)
    ]
    if not found:
        raise ConfigError(f"{path}: has no questions of the half {file.half!r}")
    questions = evenly(found, file.limit)
    return [
        *await evidence_rows(app, questions, progress),
        *await answer_rows(
            ways(_in_background(app), blocks=blocks), questions, progress
        ),
    ]


async def qa(
    app: App, file: QuestionFile, progress: Progress, *, blocks: bool = False
) -> list[Row]:
    """Answers to an XQuAD file's questions, each given the passage it came with."""
    asked = [
        (question, article)
        for article in articles(_required(file))
        for question in article.questions
    ]
    chosen = evenly(asked, file.limit)
    given = {question.id: _passage(article) for question, article in chosen}
    answerer = _in_background(_with_room(app))
    every_way = [_given(way, given) for way in ways(answerer, blocks=blocks)]
    return await answer_rows(every_way, [question for question, _ in chosen], progress)


def _in_background(app: App) -> Answerer:
    """A customer of a bot in the same process never waits for an evaluation."""
    return replace(app.answerer(), background=True)


async def retrieval(
    app: App, file: QuestionFile, progress: Progress, *, blocks: bool = False
) -> list[Row]:
    """Retrieval over an XQuAD file; `limit` is a number of its passages."""
    if blocks:
        raise ConfigError(
            "this suite writes no replies; --blocks goes with 'handbook' and 'qa'"
        )
    return await retrieval_suite(
        app, evenly(articles(_required(file)), file.limit), progress
    )


SUITES: Mapping[str, Suite] = {
    "handbook": handbook,
    "qa": qa,
    "retrieval": retrieval,
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


def _required(file: QuestionFile) -> Path:
    if file.path is None:
        raise ConfigError(
            "this suite ships no questions; name an XQuAD file with --data"
        )
    return file.path


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
