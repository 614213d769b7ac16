"""
How often retrieval finds what answers a question: by words, by meaning, and by both.

Knows nothing about answers. The suite `retrieval` takes an XQuAD file: its contexts
become the documents of a temporary index, and the right document for a question is
the one it came with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bot.evaluation import metrics
from bot.evaluation.questions import Article, Question
from bot.evaluation.report import Row, row
from bot.evaluation.turns import asking
from bot.interfaces import Progress, Retriever
from bot.model import Passage, Turn

if TYPE_CHECKING:
    from bot.app import App

# A right passage below this rank would add less than 0.05 to the reciprocal rank.
DEPTH = 20

# None: the legs that the bot itself uses.
LEGS: Mapping[str, frozenset[str] | None] = {
    "dense": frozenset({"dense"}),
    "bm25": frozenset({"bm25"}),
    "hybrid": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A question, and what tells a right passage from a wrong one."""

    turn: Turn
    is_right: Callable[[Passage], bool]


async def evidence_rows(
    app: App, questions: Sequence[Question], progress: Progress
) -> list[Row]:
    """Measure recall@5 and MRR over the questions that the documents answer."""
    searches = [
        Search(turn=asking(one.id, one.question), is_right=partial(_is_evidence, one))
        for one in questions
        if one.evidence
    ]
    return [
        row(name, {"recall@5": _hits(found, 5), "mrr": _reciprocals(found)})
        for name, found in [
            (name, await _ranks(name, app.retriever(legs), searches, progress))
            for name, legs in LEGS.items()
        ]
    ]


async def retrieval_suite(
    app: App, articles: Sequence[Article], progress: Progress
) -> list[Row]:
    """Measure hit@1, hit@5 and MRR over an XQuAD file."""
    searches = [
        Search(
            turn=asking(question.id, question.question),
            is_right=partial(_is_from, _file_name(number)),
        )
        for number, article in enumerate(articles)
        for question in article.questions
    ]
    with tempfile.TemporaryDirectory(prefix="chorus-eval-") as folder:
        indexed = _indexed(app, articles, Path(folder))
        return [
            row(
                name,
                {
                    "hit@1": _hits(found, 1),
                    "hit@5": _hits(found, 5),
                    "mrr": _reciprocals(found),
                },
            )
            for name, found in [
                (name, await _ranks(name, indexed.retriever(legs), searches, progress))
                for name, legs in LEGS.items()
            ]
        ]


async def _ranks(
    name: str, retriever: Retriever, searches: Sequence[Search], progress: Progress
) -> list[int | None]:
    """Return the rank of the first right document for each search, or None."""
    step = f"Searching ({name})"
    ranks: list[int | None] = []
    for done, search in enumerate(searches):
        progress(step, done, len(searches))
        passages = await retriever.retrieve(search.turn, DEPTH)
        ranks.append(_first_right(search, passages))
    progress(step, len(searches), len(searches))
    return ranks


def _first_right(search: Search, passages: Sequence[Passage]) -> int | None:
    return next(
        (rank for rank, one in enumerate(passages, 1) if search.is_right(one)), None
    )


def _is_evidence(question: Question, passage: Passage) -> bool:
    return any(
        passage.source == one.source and metrics.holds_quote(passage.text, one.quote)
        for one in question.evidence
    )


def _is_from(source: str, passage: Passage) -> bool:
    return passage.source == source


def _hits(ranks: Sequence[int | None], depth: int) -> list[float]:
    return [metrics.hit(rank, depth) for rank in ranks]


def _reciprocals(ranks: Sequence[int | None]) -> list[float]:
    return [metrics.reciprocal(rank) for rank in ranks]


def _indexed(app: App, articles: Sequence[Article], folder: Path) -> App:
    """
    Return a variant of the bot that knows the articles and nothing else. A context is
    cut only where the longest passage that the configuration allows ends.
    """
    documents = folder / "documents"
    documents.mkdir()
    for number, article in enumerate(articles):
        (documents / _file_name(number)).write_text(article.context, encoding="utf-8")
    config = app.config
    knowledge = config.knowledge.model_copy(
        update={"paths": (documents,), "passage_tokens": 512, "overlap_tokens": 0}
    )
    variant = app.variant(
        config.model_copy(update={"data": folder / "index", "knowledge": knowledge})
    )
    variant.ingest()
    return variant


def _file_name(number: int) -> str:
    return f"{number:04d}.txt"
