# ruff: noqa: RUF001 (Chinese punctuation is meant)
"""The quotation writer: where sentences end, and which is quoted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.interfaces import Writer
from bot.testing import FakeTools, a_passage, a_tools, a_turn
from bot.testing.contracts import WriterContract
from plugins.writers.quotation import Quotation, stated


class TestQuotationKeepsTheContract(WriterContract):
    @pytest.fixture
    def subject(self) -> Writer:
        return Quotation(Quotation.Settings())


class TestLongQuotationKeepsTheContract(WriterContract):
    @pytest.fixture
    def subject(self) -> Writer:
        return Quotation(Quotation.Settings(sentences=3, candidates=5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.50 euros. Pay.", ["It costs 3.50 euros.", "Pay."]),
        (
            "Ask Dr. Smith, e.g. by mail. Or me.",
            ["Ask Dr. Smith, e.g. by mail.", "Or me."],
        ),
        (
            "See no. 5 below. The answer is no. Pay.",
            ["See no. 5 below.", "The answer is no.", "Pay."],
        ),
        ("At 5 p.m. we close. Go.", ["At 5 p.m. we close.", "Go."]),
        ('He said "Stop." Then left.', ['He said "Stop."', "Then left."]),
        (
            "退款需要五天。款项退回原卡！好吗？",
            ["退款需要五天。", "款项退回原卡！", "好吗？"],
        ),
        ("- First item\n- Second item", ["First item", "Second item"]),
        ("1. Open it.\n2. Close it.", ["Open it.", "Close it."]),
        (
            "Plan: Basic; Price: 5\nPlan: Pro; Price: 9",
            ["Plan: Basic; Price: 5", "Plan: Pro; Price: 9"],
        ),
        ("A wrapped\nsentence here.", ["A wrapped sentence here."]),
        ("# Refunds\nThey take five days.", ["They take five days."]),
        ("Version 2.0.1 is out", ["Version 2.0.1 is out"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(
    text: str, expected: list[str]
) -> None:
    assert stated(text) == expected


@given(st.text(alphabet="ab .!?。\n-1#A", max_size=60))
def test_splitting_loses_no_letter_outside_headings_and_markers(text: str) -> None:
    text = text.replace("#", "")

    split = "".join(stated(text))

    assert [c for c in split if c in "abA"] == [c for c in text if c in "abA"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{'So' * 50} we use approx. 5 of dr. X.", 1),
        ("Xapprox. Five", 2),
        (f"{'x' * 20}(e.g. Five", 1),
        ("mrs. Five", 1),
    ],
)
def test_an_abbreviation_is_told_by_its_last_letters(text: str, expected: int) -> None:
    assert len(stated(text)) == expected


def quotations(
    question: str, *passages: str, tools: FakeTools | None = None, **settings: float
) -> list[str]:
    writer = Quotation(Quotation.Settings.model_validate(settings))
    written = writer.write(a_turn(question, passages), tools or a_tools())
    return [candidate.text for candidate in written]


def test_the_sentence_that_shares_most_with_the_question_is_quoted_first() -> None:
    best, *_ = quotations(
        "How long does a refund take?",
        "We sell shoes. A refund will take five days. Shops open at nine.",
    )

    assert best == "A refund will take five days."


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    best, *_ = quotations(
        "plan telephone",
        "The plan is old. The plan is good. The telephone is extra.",
    )

    assert best == "The telephone is extra."


def test_a_quotation_says_where_it_comes_from() -> None:
    turn = a_turn("When is lunch?", ["We sell shoes.", "Lunch is at noon."])

    [first, second] = Quotation(Quotation.Settings()).write(turn, a_tools())

    assert (first.origin, first.finish, first.citations) == (
        "quotation",
        "written",
        ("p2",),
    )
    assert second.citations == ("p1",)


def test_a_question_is_not_quoted_but_leads_to_its_answer() -> None:
    found = quotations(
        "How long does a refund take?",
        "Do you ship abroad? Yes, everywhere.\n"
        "How long does a refund take? Five working days.",
    )

    assert found == ["Five working days.", "Yes, everywhere."]


def test_the_heading_tells_equal_sentences_apart() -> None:
    passages = [
        a_passage("It takes two days.", id="d", headings=["Delivery"]),
        a_passage("It takes five days.", id="r", headings=["Refund"]),
    ]
    turn = a_turn("How long does a refund take?", passages)

    best, *_ = Quotation(Quotation.Settings()).write(turn, a_tools())

    assert best.citations == ("r",)


def test_more_sentences_are_quoted_in_the_order_of_their_passage() -> None:
    found = quotations(
        "red apples or green apples",
        "Red is sweet. Blue is odd. Green apples are sour apples.",
        sentences=2,
        candidates=2,
    )

    assert found == [
        "Green apples are sour apples.",
        "Red is sweet. Green apples are sour apples.",
    ]


def test_chinese_sentences_are_joined_without_a_space() -> None:
    found = quotations(
        "退款需要多久", "退款需要五天。退款退回原卡。", sentences=2, candidates=2
    )

    assert found[1] == "退款需要五天。退款退回原卡。"


def test_an_earlier_passage_wins_between_equals() -> None:
    turn = a_turn("refund", ["A refund is free.", "A refund is quick."])

    best, *_ = Quotation(Quotation.Settings()).write(turn, a_tools())

    assert best.citations == ("p1",)


def test_a_sentence_in_two_passages_is_quoted_once() -> None:
    found = quotations("refund", "A refund is free.", "A refund is free.")

    assert found == ["A refund is free."]


def test_what_is_too_long_is_not_quoted() -> None:
    found = quotations("x", "x " * 40, "Short.", longest_characters=40)

    assert found == ["Short."]


def test_nothing_is_written_or_embedded_without_sentences() -> None:
    tools = FakeTools()

    nothing = [
        quotations("Why?", tools=tools),
        quotations("Why?", "", "Why not?", tools=tools),
    ]

    assert nothing == [[], []]
    assert tools.embedded == []


def test_one_embedding_call_reads_everything() -> None:
    tools = FakeTools()

    quotations("Why?", "One. Two.", "Three.", tools=tools)

    assert tools.embedded == [("Why?", "One.", "Two.", "Three.")]
