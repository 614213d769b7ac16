"""Ranks of the right passages, by leg."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from bot.app import App
from bot.config import Config, GenerationConfig, KnowledgeConfig
from bot.errors import ConfigError
from bot.evaluation.questions import Evidence, Question, articles
from bot.evaluation.retrieval import (
    LEGS,
    Search,
    evidence_rows,
    faq,
    is_document,
    retrieval_suite,
    search_rows,
)
from bot.evaluation.suites import How, QuestionFile, handbook, qa, retrieval
from bot.evaluation.turns import asking
from bot.model import Passage, Turn
from bot.testing import a_passage


class Finding:
    """A retriever that finds the same passages for every question."""

    name = "found"

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        return self._passages[:limit]


class FakeApp:
    """An app whose retrievers find what they are told, by legs."""

    def __init__(self, found: dict[frozenset[str] | None, list[Passage]]) -> None:
        self.config = Config(
            knowledge=KnowledgeConfig(model="e"), generation=GenerationConfig(model="g")
        )
        self.ingested: list[tuple[Config, list[str]]] = []
        self._found = found

    def retriever(self, legs: frozenset[str] | None = None) -> Finding:
        return Finding(self._found[legs])

    def variant(self, config: Config) -> FakeApp:
        self.config = config
        return self

    def ingest(self) -> None:
        (folder,) = self.config.knowledge.paths
        texts = [path.read_text() for path in sorted(folder.iterdir())]
        self.ingested.append((self.config, texts))


def quiet(step: str, done: int, total: int | None) -> None:
    """Progress that nobody looks at."""


def found_at(rank: int, right: Passage) -> list[Passage]:
    wrong = a_passage("something else", source="other.md")
    return [*[wrong] * (rank - 1), right]


def the_app(right: Passage) -> FakeApp:
    return FakeApp(
        {
            frozenset({"dense"}): found_at(6, right),
            frozenset({"bm25"}): found_at(2, right),
            None: found_at(1, right),
        }
    )


async def test_evidence_is_found_by_source_and_quote() -> None:
    question = Question(
        id="q",
        question="How long?",
        answers=("five days",),
        evidence=(Evidence(source="refunds.md", quote="five days"),),
    )
    unanswerable = Question(id="u", question="Who?")
    app = the_app(a_passage("It takes five days.", source="refunds.md"))

    rows = await evidence_rows(cast("App", app), [question, unanswerable], quiet)

    assert {row.config: row.metrics for row in rows} == {
        "dense": {"recall@5": 0.0, "mrr": pytest.approx(1 / 6), "ndcg@5": 0.0},
        "bm25": {
            "recall@5": 1.0,
            "mrr": 0.5,
            "ndcg@5": pytest.approx(1 / math.log2(3)),
        },
        "hybrid": {"recall@5": 1.0, "mrr": 1.0, "ndcg@5": 1.0},
    }
    assert [row.n for row in rows] == [1, 1, 1]


async def test_the_same_words_in_another_document_are_no_evidence() -> None:
    question = Question(
        id="q",
        question="How long?",
        evidence=(Evidence(source="refunds.md", quote="five days"),),
    )
    app = the_app(a_passage("It takes five days.", source="refunds-2024.md"))

    rows = await evidence_rows(cast("App", app), [question], quiet)

    assert [row.metrics["mrr"] for row in rows] == [0.0, 0.0, 0.0]


async def test_xquads_contexts_become_documents_and_the_own_one_is_right(
    tmp_path: Path,
) -> None:
    path = tmp_path / "xquad.json"
    path.write_text(
        '[{"context": "Wrong.", "qas": [{"id": "1", "question": "?", "answers": '
        '[{"text": "x"}]}]}, {"context": "Right.", "qas": [{"id": "2", "question": '
        '"?", "answers": [{"text": "x"}]}]}]'
    )
    app = the_app(a_passage("Right.", source="0001.txt"))

    rows = await retrieval_suite(cast("App", app), articles(path), quiet)

    assert {row.config: row.metrics["hit@1"] for row in rows} == {
        "dense": 0.0,
        "bm25": 0.0,
        "hybrid": 0.5,
    }
    ((config, texts),) = app.ingested
    assert texts == ["Wrong.", "Right."]
    assert not config.data.exists(), "the temporary index was left behind"


async def test_a_half_without_questions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "questions.yaml"
    path.write_text("questions: [{id: a, half: tune, question: Why}]")
    file = QuestionFile(path=path, half="report")

    with pytest.raises(ConfigError, match="no questions of the half 'report'"):
        await handbook([("bot", cast("App", the_app(a_passage())))], file, quiet, How())


@pytest.mark.parametrize("suite", [qa, retrieval])
async def test_a_suite_that_ships_no_questions_asks_for_a_file(suite: object) -> None:
    assert callable(suite)
    bots = [("bot", cast("App", the_app(a_passage())))]

    with pytest.raises(ConfigError, match="--data"):
        await suite(bots, QuestionFile(), quiet, How())


SNIPPETS = (
    '{"entity": "A", "domain": "hotel", "question": "Wifi?", "answer": "Yes."}',
    '{"entity": "B", "domain": "hotel", "question": "Wifi?", "answer": "No."}',
    '{"entity": null, "domain": "taxi", "question": "Dogs?", "answer": "Small ones."}',
)


def faq_folder(folder: Path, *asked: str) -> Path:
    (folder / "faq_kb.jsonl").write_text("\n".join(SNIPPETS))
    (folder / "candidates.jsonl").write_text("\n".join(asked))
    return folder


async def test_a_frequent_question_is_asked_of_its_place(tmp_path: Path) -> None:
    folder = faq_folder(
        tmp_path,
        '{"id": 1, "entity": "B", "faq_question": "Wifi?", "faq_answer": "No.", '
        '"domain": "hotel"}',
        '{"id": 2, "entity": null, "faq_question": "Dogs?", "faq_answer": '
        '"Small ones.", "domain": "taxi"}',
    )
    right = the_app(a_passage("Wifi", source="0001.txt"))

    report = await faq([("bot", cast("App", right))], QuestionFile(path=folder), quiet)

    ((_, texts),) = right.ingested
    assert texts == ["A: Wifi?\nYes.", "B: Wifi?\nNo.", "taxi: Dogs?\nSmall ones."]
    # The first question wants 0001.txt, the other 0002.txt, which is never found.
    assert {row.config: row.metrics["hit@1"] for row in report.rows} == {
        "bot: dense": 0.0,
        "bot: bm25": 0.0,
        "bot: hybrid": 0.5,
    }


async def test_a_question_without_its_snippet_is_refused(tmp_path: Path) -> None:
    folder = faq_folder(
        tmp_path, '{"id": 7, "entity": "C", "faq_question": "?", "faq_answer": "!"}'
    )

    with pytest.raises(ConfigError, match=r"id 7: .*; give both files"):
        await faq(
            [("bot", cast("App", the_app(a_passage())))],
            QuestionFile(path=folder),
            quiet,
        )


async def test_where_several_things_are_wanted_recall_is_their_share() -> None:
    search = Search(
        turn=asking("q", "?"), wanted=[partial(is_document, at) for at in (1, 2, 3)]
    )
    found = [a_passage(source=f"{at:04d}.txt") for at in (9, 2, 8, 7, 6, 3)]
    app = FakeApp(dict.fromkeys(LEGS.values(), found))

    (row, *_) = await search_rows("", cast("App", app), [search], quiet)

    # At rank 2 and 6, and never: of three, one is in the first five.
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert row.metrics == {
        "hit@1": 0.0,
        "hit@5": 1.0,
        "recall@1": 0.0,
        "recall@5": pytest.approx(1 / 3),
        "recall@20": pytest.approx(2 / 3),
        "mrr": 0.5,
        "ndcg@5": pytest.approx((1 / math.log2(3)) / ideal),
    }
