"""The numbers of evaluations, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.evaluation import metrics


def test_comparison_folds_case_punctuation_articles_and_width() -> None:
    assert metrics.normalised("The \uff15 Working-Days, a week!") == [
        "5",
        "workingdays",
        "week",
    ]


def test_chinese_is_compared_by_characters_and_numbers_stay_whole() -> None:
    assert metrics.normalised("黑豹队丢了 308分。") == [*"黑豹队丢了", "308", "分"]


@pytest.mark.parametrize(
    ("reply", "gold", "found"),
    [
        ("A refund takes 5 working days.", "5 working days", True),
        ("It takes 15 working days.", "5 working days", False),
        ("days working 5", "5 working days", False),
        ("只丢了 308分", "308", True),
        ("anything", "", False),
        ("", "5", False),
    ],
)
def test_an_answer_is_contained_when_its_words_stand_in_a_row(
    reply: str, gold: str, *, found: bool
) -> None:
    assert metrics.contains(reply, gold) is found


def test_token_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    # common: 5, days; precision 2/4, recall 2/3
    f1 = metrics.token_f1("about 5 full days", "5 working days")

    assert f1 == pytest.approx(2 * (0.5 * 2 / 3) / (0.5 + 2 / 3))


def test_token_f1_counts_a_repeated_word_once_for_each_time_it_is_wanted() -> None:
    assert metrics.token_f1("five five five", "five") == pytest.approx(0.5)


def test_the_best_of_several_gold_answers_counts() -> None:
    golds = ["five working days", "5 working days"]

    assert metrics.best_f1("5 working days", golds) == 1.0
    assert metrics.best_containment("in 5 working days", golds) == 1.0
    assert metrics.best_f1("5 working days", []) == 0.0


def test_a_quote_counts_with_white_space_and_case_folded() -> None:
    passage = "Refunds.\nA refund  takes 5\nworking days."

    assert metrics.holds_quote(passage, "a Refund takes 5 working days")


def test_a_quote_cut_by_the_passages_border_counts_with_four_fifths_of_it() -> None:
    quote = "one two three four five six seven eight nine ten"

    assert metrics.holds_quote("zero one two three four five six seven eight", quote)
    assert not metrics.holds_quote("zero one two three four five six seven", quote)


def test_a_table_row_whose_cells_were_labelled_counts() -> None:
    passage = "Zone: B; Price: £7.90; Days: 3"

    assert metrics.holds_quote(passage, "| B | £7.90 | 3 |")
    assert not metrics.holds_quote(passage, "| C | £9.90 | 5 |")


def test_an_empty_quote_is_in_no_passage_by_words() -> None:
    assert not metrics.holds_quote("text", "—!")


def test_a_hit_is_within_the_depth_and_a_missing_rank_is_none() -> None:
    assert [metrics.hit(rank, 5) for rank in (1, 5, 6, None)] == [1, 1, 0, 0]
    assert [metrics.reciprocal(rank) for rank in (1, 4, None)] == [1, 0.25, 0]


def test_the_interval_of_equal_values_is_their_value() -> None:
    assert metrics.bootstrap([0.5] * 10) == (0.5, 0.5)


def test_the_interval_of_a_coin_is_near_the_binomial_one() -> None:
    low, high = metrics.bootstrap([0.0, 1.0] * 50)

    # 1.96 * sqrt(0.25 / 100) = 0.098
    assert low == pytest.approx(0.402, abs=0.02)
    assert high == pytest.approx(0.598, abs=0.02)


def test_the_interval_is_the_same_every_time() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]

    assert metrics.bootstrap(values) == metrics.bootstrap(values)


def test_a_quantile_has_an_interval_round_it() -> None:
    values = [float(number) for number in range(101)]

    low, high = metrics.quantile_bootstrap(values, 0.9)

    assert metrics.quantile(values, 0.9) == 90
    assert 80 < low < 90 < high < 99
    assert metrics.quantile_bootstrap([], 0.9) == (0.0, 0.0)


def test_paired_differences_need_the_same_questions() -> None:
    assert metrics.differences([1.0, 0.0], [0.0, 0.0]) == [1.0, 0.0]
    with pytest.raises(ValueError, match="zip"):
        metrics.differences([1.0], [1.0, 0.0])


@given(st.text(), st.text())
def test_f1_is_symmetric_and_between_0_and_1(one: str, other: str) -> None:
    f1 = metrics.token_f1(one, other)

    assert 0 <= f1 <= 1
    assert f1 == pytest.approx(metrics.token_f1(other, one))


@given(st.text(min_size=1))
def test_a_text_contains_itself_unless_nothing_of_it_is_compared(text: str) -> None:
    assert metrics.contains(text, text) is bool(metrics.normalised(text))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interval_lies_within_the_values(values: list[float]) -> None:
    low, high = metrics.bootstrap(values)

    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
