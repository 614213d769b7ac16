# ruff: noqa: RUF001 - Chinese marks are meant
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.knowledge.index import Index
from bot.knowledge.retriever import (
    LEGS,
    HybridRetriever,
    Relevance,
    fuse,
    newer_first,
    standalone_question,
)
from bot.model import Passage
from bot.testing.makers import a_passage, a_turn, an_event

Ingest = Callable[..., Any]


@pytest.fixture
def retriever(
    run_ingest: Ingest, open_index: Callable[..., Index], documents: Path, words: Any
) -> Callable[..., HybridRetriever]:
    def make(legs: frozenset[str] = LEGS, **texts: str) -> HybridRetriever:
        for name, text in texts.items():
            (documents / f"{name}.md").write_text(text)
        run_ingest()
        return HybridRetriever(open_index(), words, legs)

    return make


Make = Callable[..., HybridRetriever]


async def test_the_best_passage_comes_first_with_its_scores(retriever: Make) -> None:
    turn = a_turn("How many days does a refund of batteries take?")

    found = await retriever().retrieve(turn, 2)

    assert found[0].source == "refunds.md"
    assert set(found[0].scores) == {*LEGS, "coverage", "relevance"}
    assert found[0].score > found[-1].score
    assert 0 <= found[-1].scores["relevance"] < found[0].scores["relevance"] <= 1


@pytest.mark.parametrize("leg", sorted(LEGS))
def test_each_leg_finds_by_itself(retriever: Make, leg: str) -> None:
    [best] = retriever(frozenset({leg})).search("refund days", 1)

    assert best.source == "refunds.md"
    assert set(best.scores) == {leg, "coverage", "relevance"}


def test_an_unknown_leg_is_refused(retriever: Make) -> None:
    with pytest.raises(ValueError, match="legs must be some of"):
        retriever(frozenset({"bm52"}))


async def test_chinese_is_found_by_words_alone(retriever: Make, words: Any) -> None:
    made = retriever(chinese="# 退款\n\n退款需要五个工作日。")
    words.embedded.clear()

    found = await made.retrieve(a_turn("退款需要多长时间？"), 5)

    assert [passage.source for passage in found] == ["chinese.md"]
    assert set(found[0].scores) == {"bm25", "coverage", "relevance"}
    assert "退款需要多长时间？" not in words.embedded


async def test_unrelated_words_in_an_untrusted_language_find_nothing(
    retriever: Make,
) -> None:
    assert await retriever().retrieve(a_turn("天气怎么样？"), 5) == []


@pytest.mark.parametrize("question", ["", "  \n", "\x00"])
async def test_an_empty_question_has_no_passages(
    retriever: Make, question: str
) -> None:
    assert await retriever().retrieve(a_turn(question), 5) == []


@pytest.mark.parametrize(
    "question",
    [
        '" OR 1=1 --',
        "NEAR(refund, 5) AND NOT",
        "refund*:^(){}[]",
        "refund \ud800 \x00",
        "refund " * 20_000,
        "退款" * 50_000,
        "?!…",
    ],
)
async def test_hostile_questions_are_only_questions(
    retriever: Make, question: str
) -> None:
    found = await retriever().retrieve(a_turn(question), 3)

    assert len(found) <= 3
    assert all(np.isfinite(list(passage.scores.values())).all() for passage in found)


def test_a_filter_is_applied_before_the_search(retriever: Make) -> None:
    made = retriever(
        **{
            f"note{number}": f"---\nteam: {'a' if number % 5 else 'b'}\n---\n"
            f"Note {number} says that a refund takes {number} days."
            for number in range(30)
        }
    )

    found = made.search("refund days", 20, {"team": "b"})

    assert len(found) == 6
    assert {passage.metadata["team"] for passage in found} == {"b"}
    assert len(made.search("天气", 4, {"team": "b"})) == 4
    assert len(made.search("refund", 100)) == 33
    assert made.search("refund", 5, {"team": "'; --"}) == []


async def test_a_near_copy_is_left_out_and_another_number_is_not(
    retriever: Make,
) -> None:
    text = "# Bells\n\nEvery bicycle bell of ours is made of brass and costs {} euro."
    made = retriever(one=text.format(5), two=text.format(5) + " ", three=text.format(7))

    found = await made.retrieve(a_turn("What does a brass bell cost?"), 3)

    texts = [passage.text for passage in found if "bell" in passage.text]
    assert len(texts) == 2
    assert len(made.search("brass bell", 6)) == 6


def version(date: str, score: float, days: int) -> Passage:
    text = f"A refund of a bike takes {days} working days after the inspection."
    metadata = {"date": date} if date else {}
    return a_passage(text, id=f"{date}:{days}", score=score, metadata=metadata)


def test_the_newer_of_two_versions_wins_a_tie() -> None:
    old = version("2024-05-01", 2.1, 14)
    new = version("2026-03-01", 2.0, 5)
    other = a_passage("Parcels travel by train.", score=1.9, metadata={"date": "2027"})

    assert newer_first([old, new, other]) == [new, old, other]


def test_a_clearly_better_older_version_stays_first() -> None:
    old = version("2024-05-01", 4.0, 14)
    new = version("2026-03-01", 2.0, 5)
    undated = version("", 3.9, 9)

    assert newer_first([old, undated, new]) == [old, undated, new]


def test_scores_are_fused_by_their_distance_from_the_mean() -> None:
    scores = np.array([[10, 0.5, 1], [0, 0.9, 1], [2, 0.1, 1]], np.float32)

    fused = fuse(scores)

    assert fused.argmax() == 0
    assert fused.sum() == pytest.approx(0, abs=1e-5)
    assert fuse(scores[:1]) == pytest.approx([0.0])


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("and for batteries?", "How do I return a bike?\nand for batteries?"),
        ("why?", "How do I return a bike?\nwhy?"),
        ("Thanks!", "Thanks!"),
        ("How long is the battery warranty?", "How long is the battery warranty?"),
    ],
)
def test_a_follow_up_is_read_with_the_question_before_it(
    question: str, expected: str
) -> None:
    history = [
        an_event("Which bells?"),
        an_event("How do I return a bike?"),
        an_event("By post.", kind="reply"),
    ]

    assert standalone_question(a_turn(question, history=history)) == expected


def test_a_short_question_without_history_stays_as_it_is() -> None:
    assert standalone_question(a_turn("batteries?")) == "batteries?"


def test_relevance_grows_with_each_of_its_parts() -> None:
    relevance = Relevance()

    assert relevance.of(0.1, 0.0) < 0.15
    assert relevance.of(0.8, 0.9) > 0.8
    assert relevance.of(0.5, 0.2) < relevance.of(0.6, 0.2) < relevance.of(0.6, 0.4)
    assert relevance.of(None, 0.0) < 0.15
    assert relevance.of(None, 1.0) > 0.9


@pytest.mark.model
async def test_meaning_is_found_where_no_word_is_shared(
    run_ingest: Ingest, open_index: Callable[..., Index], minilm: Any
) -> None:
    run_ingest(embedder=minilm)
    retriever = HybridRetriever(open_index(minilm), minilm)

    found = await retriever.retrieve(a_turn("When do I get my money back?"), 3)

    assert found[0].source == "refunds.md"
