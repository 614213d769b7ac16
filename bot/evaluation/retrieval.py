"""
How often retrieval finds what answers a question: by words, by meaning, and by both.

Knows nothing about answers. The suite `retrieval` takes an XQuAD file: its contexts
become the documents of a temporary index, and the right document for a question is
the one it came with. The suite `faq` takes the folder of DSTC9's first track:
`faq_kb.jsonl` holds the snippets, and the questions are those of `candidates.jsonl`
(see `ratings`), asked as `entity: question`, because many of them are asked of a
hundred places:

    {"entity": "A AND B GUEST HOUSE", "question": "Is there wifi?", "answer": "Yes."}

Where several things are wanted, recall@k is the share of them that stands within the
first k passages; hit@k asks for one of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bot.errors import ConfigError
from bot.evaluation import metrics, quality
from bot.evaluation.lines import DataFile, Line, chosen, json_lines, named
from bot.evaluation.questions import Article, Question
from bot.evaluation.report import Report, Row, row
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

# The ranks of what one question wants, from 1; None is what was not found.
Ranks = Sequence[int | None]

_SNIPPET_NEEDS = (
    "one JSON object in each line, with entity (null for a whole domain), question and "
    "answer"
)
_ASKED_NEEDS = (
    "one JSON object in each line, with id, entity (null for a whole domain), "
    "faq_question and faq_answer"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A question, and for each thing that it wants what tells it from others."""

    turn: Turn
    wanted: Sequence[Callable[[Passage], bool]]


class Snippet(Line):
    """A question that is asked often, of one place or of a whole domain."""

    entity: str | None = None
    domain: str = ""
    question: Annotated[str, Field(min_length=1)]
    answer: str

    @property
    def text(self) -> str:
        return f"{self.entity or self.domain}: {self.question}\n{self.answer}"


class Asked(Line):
    """A question whose snippet is known."""

    id: int | str
    entity: str | None = None
    domain: str = ""
    faq_question: Annotated[str, Field(min_length=1)]
    faq_answer: str

    @property
    def snippet(self) -> Snippet:
        return Snippet(
            entity=self.entity,
            domain=self.domain,
            question=self.faq_question,
            answer=self.faq_answer,
        )


async def evidence_rows(
    app: App, questions: Sequence[Question], progress: Progress
) -> list[Row]:
    """
    Measure recall@5, MRR and nDCG@5 over the questions that the documents answer. Any
    place that answers a question will do.
    """
    searches = [
        Search(turn=asking(one.id, one.question), wanted=[partial(_is_evidence, one)])
        for one in questions
        if one.evidence
    ]
    return [
        row(
            name,
            {
                "recall@5": [quality.recall_at(ranks, 5) for ranks in found],
                "mrr": [_reciprocal(ranks) for ranks in found],
                "ndcg@5": [quality.ndcg(ranks, 5) for ranks in found],
            },
        )
        for name, found in [
            (name, await _found(name, app.retriever(legs), searches, progress))
            for name, legs in LEGS.items()
        ]
    ]


async def retrieval_suite(
    app: App, articles: Sequence[Article], progress: Progress
) -> list[Row]:
    """Measure hit@1, hit@5, recall@20, MRR and nDCG@5 over an XQuAD file."""
    searches = [
        Search(
            turn=asking(question.id, question.question),
            wanted=[partial(is_document, number)],
        )
        for number, article in enumerate(articles)
        for question in article.questions
    ]
    with knowing(app, [article.context for article in articles]) as variant:
        return await search_rows("", variant, searches, progress)


async def faq(
    bots: Sequence[tuple[str, App]], file: DataFile, progress: Progress
) -> Report:
    """Measure how often the snippet that answers a frequent question is found."""
    folder = named(file, "a folder with faq_kb.jsonl and candidates.jsonl")
    snippets = json_lines(folder / "faq_kb.jsonl", Snippet, _SNIPPET_NEEDS)
    every = json_lines(folder / "candidates.jsonl", Asked, _ASKED_NEEDS)
    # The same snippet can stand there twice; either is right.
    texts = list(dict.fromkeys(one.text for one in snippets))
    number = {text: at for at, text in enumerate(texts)}
    strangers = [one.id for one in every if one.snippet.text not in number]
    if strangers:
        raise ConfigError(
            f"{folder / 'candidates.jsonl'}: id {strangers[0]!r}: its question and "
            "answer are not in faq_kb.jsonl; give both files of one release"
        )
    searches = [
        Search(
            turn=asking(str(one.id), f"{one.entity or one.domain}: {one.faq_question}"),
            wanted=[partial(is_document, number[one.snippet.text])],
        )
        for one in chosen(folder, every, file)
    ]
    rows: list[Row] = []
    for name, app in bots:
        with knowing(app, texts) as variant:
            rows += await search_rows(f"{name}: ", variant, searches, progress)
    return Report(suite="faq", rows=rows)


async def search_rows(
    prefix: str, app: App, searches: Sequence[Search], progress: Progress
) -> list[Row]:
    """Measure the legs of an app; `prefix` stands before their names."""
    several = any(len(one.wanted) > 1 for one in searches)
    return [
        row(f"{prefix}{name}", _measured(found, several=several))
        for name, found in [
            (name, await _found(name, app.retriever(legs), searches, progress))
            for name, legs in LEGS.items()
        ]
    ]


def _measured(found: Sequence[Ranks], *, several: bool) -> dict[str, list[float]]:
    """Where one thing is wanted, recall@1 and @5 are hit@1 and @5."""
    shallow = (1, 5) if several else ()
    return {
        **{
            f"hit@{depth}": [metrics.hit(_first(ranks), depth) for ranks in found]
            for depth in (1, 5)
        },
        **{
            f"recall@{depth}": [quality.recall_at(ranks, depth) for ranks in found]
            for depth in (*shallow, DEPTH)
        },
        "mrr": [_reciprocal(ranks) for ranks in found],
        "ndcg@5": [quality.ndcg(ranks, 5) for ranks in found],
    }


async def _found(
    name: str, retriever: Retriever, searches: Sequence[Search], progress: Progress
) -> list[Ranks]:
    """Return for each search the ranks of the things that it wants."""
    step = f"Searching ({name})"
    found: list[Ranks] = []
    for done, search in enumerate(searches):
        progress(step, done, len(searches))
        passages = await retriever.retrieve(search.turn, DEPTH)
        found.append([_rank(is_it, passages) for is_it in search.wanted])
    progress(step, len(searches), len(searches))
    return found


def _rank(is_it: Callable[[Passage], bool], passages: Sequence[Passage]) -> int | None:
    return next((rank for rank, one in enumerate(passages, 1) if is_it(one)), None)


def _first(ranks: Ranks) -> int | None:
    return min((rank for rank in ranks if rank is not None), default=None)


def _reciprocal(ranks: Ranks) -> float:
    return metrics.reciprocal(_first(ranks))


def _is_evidence(question: Question, passage: Passage) -> bool:
    return any(
        passage.source == one.source and metrics.holds_quote(passage.text, one.quote)
        for one in question.evidence
    )


# A bot that knows certain texts


@contextmanager
def knowing(app: App, texts: Sequence[str]) -> Iterator[App]:
    """
    Yield a variant of the bot that knows these texts and nothing else. A text is cut
    only where the longest passage that the configuration allows ends.
    """
    with tempfile.TemporaryDirectory(prefix="chorus-eval-") as name:
        folder = Path(name)
        documents = folder / "documents"
        documents.mkdir()
        for number, text in enumerate(texts):
            (documents / _file_name(number)).write_text(text, encoding="utf-8")
        config = app.config
        knowledge = config.knowledge.model_copy(
            update={"paths": (documents,), "passage_tokens": 512, "overlap_tokens": 0}
        )
        variant = app.variant(
            config.model_copy(update={"data": folder / "index", "knowledge": knowledge})
        )
        variant.ingest()
        yield variant


def is_document(number: int, passage: Passage) -> bool:
    """Tell whether a passage is from that one of the texts that a variant knows."""
    return passage.source == _file_name(number)


def _file_name(number: int) -> str:
    return f"{number:04d}.txt"
