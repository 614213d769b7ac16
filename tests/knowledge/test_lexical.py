# ruff: noqa: RUF001 - Chinese marks are meant
from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from bot.knowledge.lexical import Words, content_terms, coverage, is_courtesy, terms

TEXTS = {
    1: "The refund takes five working days.",
    2: "Café batteries are charging overnight.",
    3: "退款需要五个工作日。",
}

HOSTILE = [
    '"',
    "'; DROP TABLE words; --",
    "a AND",
    "NEAR(a b",
    "body:refund*",
    "^refund + (",
    "\x00\x01\x02",
    "\ud800",
    "-refund",
    "{a b}: c",
    "%_*?",
    "",
]


@pytest.fixture
def words() -> Iterator[Words]:
    database = sqlite3.connect(":memory:")
    made = Words(database)
    made.create()
    for number, text in TEXTS.items():
        made.add(number, text, "Handbook")
    yield made
    database.close()


def test_terms_are_folded_words_and_chinese_is_cut_into_words() -> None:
    assert terms("Straße ＡＢＣ-12 don't") == ["strasse", "abc", "12", "don", "t"]
    assert "退款" in terms("退款需要多长时间？")
    assert terms("こんにちは") == ["こん", "んに", "にち", "ちは"]


def test_content_terms_leave_out_what_says_nothing() -> None:
    assert content_terms("How long does the refund of a refund take?") == [
        "long",
        "refund",
        "take",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Thanks!", True), ("hi, ok", True), ("why?", False), ("Thanks, refunds?", False)],
)
def test_a_courtesy_is_nothing_but_courtesy(text: str, *, expected: bool) -> None:
    assert is_courtesy(text) is expected


@pytest.mark.parametrize(
    ("question", "number"),
    [("refunds", 1), ("CAFE", 2), ("charged battery", 2), ("退款", 3)],
)
def test_words_are_found_in_other_forms(
    words: Words, question: str, number: int
) -> None:
    [(best, score), *_] = words.best(terms(question), 3)

    assert best == number
    assert score > 0


def test_what_stands_above_a_text_is_found_too(words: Words) -> None:
    found = words.best(["handbook"], 10)

    assert sorted(number for number, _ in found) == [1, 2, 3]


def test_a_choice_among_texts_is_kept_to(words: Words) -> None:
    assert [number for number, _ in words.best(["handbook"], 10, among=[2, 9])] == [2]
    assert words.holding("refund", [1, 2]) == {1}
    assert set(words.scores(["refund"], [1, 2])) == {1}


@pytest.mark.parametrize("question", HOSTILE)
def test_hostile_text_is_only_words(words: Words, question: str) -> None:
    asked = [*terms(question), question]

    found = words.best(terms(question), 10)

    assert {number for number, _ in found} <= set(TEXTS)
    if "\ud800" not in question:
        assert all(number in TEXTS for number, _ in words.best(asked, 10))


def test_a_flood_of_words_is_cut_to_the_rarest(words: Words) -> None:
    flood = [f"word{number}" for number in range(500)]

    rarities = words.rarest(["handbook", *flood], len(TEXTS))

    assert len(rarities) == 64
    assert "handbook" not in rarities


def test_coverage_weighs_terms_by_rarity() -> None:
    rarities = {"common": 1.0, "rare": 3.0}
    held = {"common": {1, 2}, "rare": {2}}

    assert coverage(held, rarities, 1) == pytest.approx(0.25)
    assert coverage(held, rarities, 2) == pytest.approx(1.0)
    assert coverage({}, {}, 1) == 0.0
