"""The filter of replies that were said before: what repeats, and what may."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import CandidateFilter
from bot.model import Event, Verdict
from bot.testing import a_candidate, a_tools, a_turn, an_event
from bot.testing.contracts import CandidateFilterContract
from bot.text import content_words
from plugins.filters.too_similar import TooSimilar, resemblance

REPLY = "Refunds go to your card within five working days."
OTHER = "Shipping is free above fifty euros."


class TestTooSimilarKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return TooSimilar(TooSimilar.Settings())


def after(*said: tuple[str, str]) -> tuple[Event, ...]:
    """Make the history of these questions and replies."""
    return tuple(
        event
        for question, reply in said
        for event in (an_event(question), an_event(reply, "reply"))
    )


def verdicts(
    question: str, history: tuple[Event, ...], *texts: str, **settings: object
) -> list[Verdict]:
    subject = TooSimilar(TooSimilar.Settings.model_validate(settings))
    turn = a_turn(question, history=history)
    return subject.keep(turn, [a_candidate(text) for text in texts], a_tools())


def test_the_last_reply_is_no_answer_to_another_question() -> None:
    history = after(("How do refunds work?", REPLY))

    same, other = verdicts("And is shipping free?", history, REPLY, OTHER)

    assert same == Verdict(kept=False, why="repeats the last reply (F1 1.00)")
    assert other.kept


def test_the_f1_of_content_words_decides() -> None:
    # refunds, go, card, within, five, working, days: 7; the candidate adds "usually"
    # and has no "working": 6 in common of 7 and 7, F1 = 12 / 14 = 0.857.
    history = after(("How do refunds work?", REPLY))
    text = "Refunds usually go to your card within five days."

    [strict, _] = verdicts("Is shipping free?", history, text, OTHER, threshold=0.85)
    [lenient, _] = verdicts("Is shipping free?", history, text, OTHER, threshold=0.86)

    assert strict.why == "repeats the last reply (F1 0.86)"
    assert lenient.kept


@pytest.mark.parametrize(
    "question",
    ["How do refunds work?", "how do the refunds work", "Pardon?", "?", "say it again"],
)
def test_who_asks_for_it_again_is_told_again(question: str) -> None:
    history = after(("How do refunds work?", REPLY))

    assert all(v.kept for v in verdicts(question, history, REPLY, OTHER))


@pytest.mark.parametrize(
    "text",
    [
        "Refunds do not go to your card within five working days.",
        "Refunds go to your card within 5 working days.",
    ],
)
def test_another_number_or_a_denial_makes_a_new_answer(text: str) -> None:
    history = after(("How do refunds work?", REPLY))

    assert all(v.kept for v in verdicts("Is it true?", history, text, OTHER))


def test_a_denial_in_chinese_makes_a_new_answer() -> None:
    history = after(("怎么退款？", "这个商品可以退款到您的银行卡。"))  # noqa: RUF001
    candidates = ("这个商品可以退款到您的银行卡。", "这个商品不可以退款到您的银行卡。")

    [same, denied] = verdicts("配件呢", history, *candidates)

    assert not same.kept
    assert denied.kept


def test_short_replies_may_be_said_twice() -> None:
    history = after(("Is it red?", "Yes, it is."))

    assert verdicts("Is it big?", history, "Yes, it is.", OTHER)[0].kept


def test_where_all_repeat_the_old_answer_is_left_unless_forbidden() -> None:
    history = after(("How do refunds work?", REPLY))

    [left] = verdicts("How soon?", history, REPLY)
    [forbidden] = verdicts("How soon?", history, REPLY, leave_some=False)

    assert left.kept
    assert not forbidden.kept


def test_only_the_last_replies_count_and_the_reason_says_which() -> None:
    history = after(
        ("How do refunds work?", REPLY), ("Which colours?", "Red and blue.")
    )

    [one_back, _] = verdicts("Any fee?", history, REPLY, OTHER, replies=1)
    [two_back, _] = verdicts("Any fee?", history, REPLY, OTHER, replies=2)

    assert one_back.kept
    assert two_back.why == "repeats the last reply but 1 (F1 1.00)"


@hypothesis_settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_resemblance_is_symmetric_and_from_0_to_1(one: str, other: str) -> None:
    first, second = content_words(one), content_words(other)

    there, back = resemblance(first, second), resemblance(second, first)

    assert there == back
    assert 0 <= there <= 1
    assert resemblance(first, first) == (1 if first else 0)


@pytest.mark.parametrize(
    "settings",
    [{"threshold": 0}, {"threshold": 1.1}, {"replies": 0}, {"minimum_words": 0}],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TooSimilar.Settings.model_validate(settings)
