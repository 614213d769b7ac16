"""The scorers of how a reply is worded: its tone, its ease, its length."""

from __future__ import annotations

import math
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import Scorer
from bot.testing import FakeTools, a_candidate, a_turn
from bot.testing.contracts import ScorerContract
from plugins.scorers import length, sentiment
from plugins.scorers.length import Length
from plugins.scorers.readability import Readability, reading_ease, syllables
from plugins.scorers.sentiment import Sentiment, tone


class TestSentimentKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Sentiment(Sentiment.Settings())


class TestReadabilityKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Readability(Readability.Settings())


class TestLengthKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Length(Length.Settings())


def scores_of(scorer: Scorer, *texts: str) -> list[float]:
    candidates = [a_candidate(text) for text in texts]
    return list(scorer.score(a_turn(), candidates, FakeTools()))


@pytest.mark.parametrize(
    ("kind", "setting", "wrong"),
    [
        (Sentiment, "target", 1.1),
        (Readability, "ease", 121),
        (Readability, "characters", 0),
        (Length, "words", 0),
    ],
)
def test_settings_are_bounded(
    kind: type[Sentiment | Readability | Length], setting: str, wrong: object
) -> None:
    with pytest.raises(ValidationError, match=setting):
        kind.Settings.model_validate({setting: wrong})


# sentiment


def test_tone_is_the_mean_over_the_sentences() -> None:
    compounds = {"Good.": 0.6, "Bad.": -0.4}

    assert tone("Good. Bad.", compounds.__getitem__) == pytest.approx(0.1)


def test_closeness_is_one_at_the_target_and_zero_at_the_other_extreme() -> None:
    assert sentiment.closeness(0.3, 0.3) == 1
    assert sentiment.closeness(-1, 1) == 0
    assert sentiment.closeness(0.5, 0) == 0.75


def test_a_reply_in_the_tone_that_is_wanted_is_preferred() -> None:
    texts = ("I love it, great!", "It takes five days.", "That is a terrible mess.")

    warm = scores_of(Sentiment(Sentiment.Settings(target=1)), *texts)
    sober = scores_of(Sentiment(Sentiment.Settings(target=0)), *texts)

    assert warm == sorted(warm, reverse=True)
    assert len(set(warm)) == 3
    assert max(sober) == sober[1] == 1


def test_a_text_in_another_script_counts_as_neutral() -> None:
    sober = Sentiment(Sentiment.Settings(target=0))

    assert scores_of(sober, "很好，我喜欢！good", "") == [1, 1]  # noqa: RUF001


def test_what_is_read_at_once_is_bounded() -> None:
    compound = Mock(return_value=0.5)

    read = tone("very good " * 10_000, compound)

    assert read == 0.5
    assert [len(call.args[0]) for call in compound.call_args_list] == [300]


# readability


@pytest.mark.parametrize(
    ("word", "expected"),
    [("cat", 1), ("refund", 2), ("care", 1), ("table", 2), ("the", 1), ("24", 1)],
)
def test_syllables_are_groups_of_vowels_without_a_silent_e(
    word: str, expected: int
) -> None:
    assert syllables(word) == expected


def test_reading_ease_is_fleschs() -> None:
    spoken = ["the", "refund", "takes", "five", "days"]

    # 5 words in 1 sentence, 7 syllables (ta-kes is counted as two).
    expected = 206.835 - 1.015 * 5 - 84.6 * 7 / 5

    assert reading_ease(spoken, 1) == pytest.approx(expected)


def test_the_reply_of_the_wanted_ease_is_preferred() -> None:
    easy = "It is free. You can send it back to us at no cost."
    hard = "Complimentary reimbursement necessitates authorisation by administrators."

    for_all = scores_of(Readability(Readability.Settings(ease=100)), easy, hard)
    for_experts = scores_of(Readability(Readability.Settings(ease=0)), easy, hard)

    assert for_all[0] > for_all[1]
    assert for_experts[0] < for_experts[1]


def test_chinese_is_measured_by_characters_in_a_sentence() -> None:
    readability = Readability(Readability.Settings(characters=5))

    exact, double = scores_of(
        readability, "退款五天。退回原卡了。", "退款需要五个工作日吗。"
    )

    # 4 and 5 characters in two sentences; 10 in one.
    assert exact == pytest.approx(math.log(4.5 / 5))
    assert double == pytest.approx(-math.log(2))


def test_what_cannot_be_measured_gets_the_mean_of_the_others() -> None:
    scores = scores_of(
        Readability(Readability.Settings()),
        "It is free.",
        "👍",
        "Возврат занимает пять дней.",
        "",
        "Complimentary reimbursement necessitates authorisation.",
    )

    mean = (scores[0] + scores[4]) / 2
    assert scores[1:4] == pytest.approx([mean] * 3)


@given(st.text(max_size=80))
def test_readability_stays_in_its_range(text: str) -> None:
    [score] = scores_of(Readability(Readability.Settings()), text)

    assert -1.2 <= score <= 0


# length


def test_half_the_words_cost_what_twice_as_many_do() -> None:
    assert length.closeness(3, 7) == length.closeness(15, 7) == -math.log(2)
    assert length.closeness(7, 7) == 0


def test_a_reply_of_the_wanted_length_is_preferred() -> None:
    short, right, empty = scores_of(
        Length(Length.Settings(words=5)),
        "Five days.",
        "It takes five days, usually.",
        "",
    )

    assert right == 0
    assert short == pytest.approx(-math.log(2))
    assert empty == pytest.approx(-math.log(6))
