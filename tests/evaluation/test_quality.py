"""Figures of replies, picks and detectors, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.evaluation import quality

FLOATS = st.floats(-100, 100)
SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


def test_bleu_of_the_reference_itself_is_one_and_of_nothing_none() -> None:
    reference = "It takes five working days."

    assert quality.bleu(reference, [reference]) == pytest.approx(1.0)
    assert quality.bleu("  ", [reference]) == 0.0
    assert quality.bleu(reference, []) == 0.0


def test_bleu_by_hand_with_the_brevity_penalty() -> None:
    # All of "it takes five" is there (three orders, effective), 3 words against 5.
    found = quality.bleu("it takes five", ["it takes five working days"])

    assert found == pytest.approx(math.exp(1 - 5 / 3))


def test_bleu_splits_chinese_by_character() -> None:
    # Of 6 characters 5, of 5 pairs 3, of 4 triples 2, of 3 quadruples 1 are right.
    found = quality.bleu("退款需要三天", ["退款需要五天"])

    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    assert found == pytest.approx(expected, abs=1e-6)


def test_rouge_l_takes_the_best_reference_with_articles_folded() -> None:
    # "five days" is a subsequence of both: 2 * 2 / (2 + 3)
    found = quality.rouge_l("The five days!", ["no", "five working days"])

    assert found == pytest.approx(2 * 2 / 5)
    assert quality.rouge_l("anything", []) == 0.0


def test_perplexity_is_the_inverse_geometric_mean_probability() -> None:
    # p = 1/2 and 1/8: sqrt(2 * 8)
    assert quality.perplexity([math.log(0.5), math.log(0.125)]) == pytest.approx(4.0)
    assert quality.perplexity([]) == 1.0


def test_an_impossible_token_leaves_the_perplexity_finite() -> None:
    assert quality.perplexity([-math.inf, math.nan]) == pytest.approx(math.exp(50))


def test_coverage_says_from_which_candidate_on_the_answer_is_there() -> None:
    assert quality.coverage_at([False, True, False]) == [0.0, 1.0, 1.0]
    assert quality.coverage_at([]) == []


def test_the_share_of_the_gap_is_a_ratio_of_means() -> None:
    # gained: 1 and 0; possible: 1 and 3. Not the mean of 1/1 and 0/3.
    found = quality.share_of_gap([3, 2], [2, 2], [3, 5])

    assert found.value == pytest.approx(1 / 4)
    assert found.interval == pytest.approx((0.0, 1.0))


def test_where_every_pick_is_as_good_there_is_no_gap_to_close() -> None:
    found = quality.share_of_gap([2, 2], [2, 2], [2, 2])

    assert found == quality.Estimate(value=0.0, interval=(0.0, 0.0))
    assert quality.share_of_gap([], [], []).value == 0.0


def test_the_oracle_goes_all_the_way_and_chance_none_of_it() -> None:
    oracle, chance = [5.0, 4.0, 5.0], [3.0, 3.5, 4.0]

    assert quality.share_of_gap(oracle, chance, oracle).interval == (1.0, 1.0)
    assert quality.share_of_gap(chance, chance, oracle).interval == (0.0, 0.0)


def test_spearman_with_ties_by_hand() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    found = quality.spearman([10, 20, 20, 30], [1, 2, 3, 4])

    assert quality.average_ranks([10, 20, 20, 30]).tolist() == [1, 2.5, 2.5, 4]
    assert found == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_a_side_that_calls_all_equal_correlates_with_nothing() -> None:
    assert quality.spearman([1, 1, 1], [1, 2, 3]) == 0.0
    assert quality.spearman([], []) == 0.0


@given(st.lists(FLOATS, min_size=2, max_size=10, unique=True))
def test_spearman_of_an_order_with_itself_is_one_and_turned_round_minus_one(
    values: list[float],
) -> None:
    assert quality.spearman(values, values) == pytest.approx(1)
    assert quality.spearman(values, [-one for one in values]) == pytest.approx(-1)


def test_pairwise_accuracy_counts_unequal_pairs_and_half_of_equal_scores() -> None:
    # Pairs by worth: (0, 1) right, (0, 2) equal scores, (1, 2) has equal worth.
    found = quality.pairwise_accuracy([3, 1, 3], [5, 2, 2])

    assert found == pytest.approx((1 + 0.5) / 2)
    assert quality.pairwise_accuracy([1, 2], [3, 3]) is None


def test_auc_counts_the_pairs_that_are_in_order() -> None:
    # 3 > 2, 3 > 0, 1 > 0, 1 < 2; and a tie is a half
    assert quality.auc([3, 1], [2, 0]) == pytest.approx(3 / 4)
    assert quality.auc([1], [1]) == 0.5
    assert quality.auc([], [1]) is None
    assert quality.auc_estimate([1], []) is None


@given(SCORES, SCORES)
def test_auc_is_the_complement_of_the_other_way_round_and_within_its_interval(
    positives: list[float], negatives: list[float]
) -> None:
    found = quality.auc_estimate(positives, negatives)

    other = quality.auc(negatives, positives)
    assert found is not None
    assert other is not None
    assert found.value == pytest.approx(1 - other)
    assert 0 <= found.interval[0] <= found.interval[1] <= 1 + 1e-6


def test_the_interval_of_auc_is_about_the_known_one() -> None:
    generator = np.random.default_rng(1)
    positives = generator.normal(1, 1, 100).tolist()
    negatives = generator.normal(0, 1, 100).tolist()

    found = quality.auc_estimate(positives, negatives)

    # Hanley and McNeil's standard error at AUC .76 with 100 of each is .034.
    assert found is not None
    low, high = found.interval
    assert (high - low) / (2 * 1.96) == pytest.approx(0.034, abs=0.005)


def test_the_threshold_parts_the_two_kinds_best() -> None:
    # From 3 on: 2/3 of the positives, all negatives refused. From 1 on: all and 1/2.
    assert quality.threshold([1, 3, 4], [0, 2]) == 3
    assert quality.threshold([5], [9]) == 5


def test_wilsons_interval_of_eight_in_ten() -> None:
    # Centre (0.8 + 1.9207/10) / 1.38415, half width 0.22680
    low, high = quality.wilson(8, 10)

    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)


@given(st.integers(0, 50), st.integers(0, 50))
def test_wilsons_interval_holds_the_share_and_stays_within_0_and_1(
    hits: int, misses: int
) -> None:
    low, high = quality.wilson(hits, hits + misses)

    share = hits / (hits + misses) if hits + misses else 0.5
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_recall_is_the_share_of_what_is_wanted() -> None:
    assert quality.recall_at([1, 6, None, 2], 5) == 0.5
    assert quality.recall_at([], 5) == 0.0


def test_ndcg_discounts_by_rank_and_divides_by_the_best_order() -> None:
    # Two wanted at ranks 1 and 3: (1 + 1/2) / (1 + 1/log2 3)
    expected = 1.5 / (1 + 1 / math.log2(3))

    assert quality.ndcg([3, 1], 5) == pytest.approx(expected)
    assert quality.ndcg([2, 1], 5) == pytest.approx(1.0)
    assert quality.ndcg([6, None], 5) == 0.0
    assert quality.ndcg([], 5) == 0.0


def test_two_things_in_one_place_are_no_more_than_a_perfect_order() -> None:
    assert quality.ndcg([1, 1], 5) == 1.0
