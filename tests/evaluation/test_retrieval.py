"""Ranks of the right passages, by leg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from bot.app import App
from bot.config import Config, GenerationConfig, KnowledgeConfig
from bot.errors import ConfigError
from bot.evaluation.questions import Evidence, Question, articles
from bot.evaluation.retrieval import evidence_rows, retrieval_suite
from bot.evaluation.suites import QuestionFile, handbook, qa, retrieval
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
        "dense": {"recall@5": 0.0, "mrr": pytest.approx(1 / 6)},
        "bm25": {"recall@5": 1.0, "mrr": 0.5},
        "hybrid": {"recall@5": 1.0, "mrr": 1.0},
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
        await handbook(cast("App", the_app(a_passage())), file, quiet)


@pytest.mark.parametrize("suite", [qa, retrieval])
async def test_a_suite_that_ships_no_questions_asks_for_a_file(suite: object) -> None:
    assert callable(suite)
    with pytest.raises(ConfigError, match="--data"):
        await suite(cast("App", the_app(a_passage())), QuestionFile(), quiet)
