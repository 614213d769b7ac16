"""How much the texts of a set differ, by hand and by what must hold for any set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.evaluation import diversity
from bot.testing import HashEmbedder

TEXTS = st.lists(st.text(max_size=30), min_size=2, max_size=5)


def directions(*angles: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return one vector of length one for each angle, in degrees."""
    turned = np.radians(angles)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def test_distinct_is_the_share_of_different_ngrams() -> None:
    texts = ["the cat sat", "the cat ran"]

    # 6 words: the, cat twice; 4 pairs: "the cat" twice.
    assert diversity.distinct(texts, 1) == pytest.approx(4 / 6)
    assert diversity.distinct(texts, 2) == pytest.approx(3 / 4)
    assert diversity.distinct(texts, 4) == 0.0


def test_ngrams_do_not_reach_from_one_text_into_the_next() -> None:
    # Only "a b" and "b a" are pairs within a text.
    assert diversity.distinct(["a b", "b a"], 2) == 1.0


def test_adjusted_distinct_divides_by_what_chance_would_give() -> None:
    texts = ["red blue", "red green"]

    # 3 different of 4 words; V (1 - (9/10)^4) = 10 * 0.3439
    adjusted = diversity.expectation_adjusted_distinct(texts, 10)

    assert adjusted == pytest.approx(3 / 3.439)


def test_adjusted_distinct_of_a_vocabulary_of_one_word_is_one() -> None:
    assert diversity.expectation_adjusted_distinct(["red red"], 1) == 1.0


def test_entropy_is_that_of_the_ngrams_frequencies() -> None:
    # a: 1/2, b: 1/4, c: 1/4
    expected = 0.5 * math.log(2) + 0.5 * math.log(4)

    assert diversity.entropy(["a b", "a c"], 1) == pytest.approx(expected)
    assert diversity.entropy(["a a", "a"], 1) == 0.0


def test_copies_have_a_self_bleu_of_one_and_strangers_of_about_none() -> None:
    copies = ["it takes five working days"] * 3
    strangers = ["it takes five working days", "nobody came here yesterday evening"]

    assert diversity.self_bleu(copies) == pytest.approx(1.0)
    assert diversity.self_bleu(strangers) < 0.1


def test_self_bleu_of_two_texts_that_share_half_their_words_by_hand() -> None:
    # Precisions of orders 1 and 2 are 1/2 and 0, smoothed to 1/(2 * 1), and with two
    # words there is no third order: sqrt(1/2 * 1/2).
    assert diversity.self_bleu(["red fox", "red hen"]) == pytest.approx(0.5)


def test_self_bleu_knows_chinese_words_by_character() -> None:
    assert diversity.self_bleu(["退款需要五天"] * 2) == pytest.approx(1.0)


def test_distance_is_one_less_the_mean_cosine_of_the_pairs() -> None:
    # cosines of 0 and 60, 0 and 90, 60 and 90 degrees
    expected = 1 - (0.5 + 0.0 + math.sqrt(3) / 2) / 3

    found = diversity.mean_distance(directions(0, 60, 90))

    assert found == pytest.approx(expected, abs=1e-6)


def test_vendi_of_two_texts_by_hand() -> None:
    # Cosine 1/2: eigenvalues of K/2 are 3/4 and 1/4.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))

    assert diversity.vendi(directions(0, 60)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_copies_are_one_text_and_orthogonal_texts_are_as_many(k: int) -> None:
    copies = np.tile(directions(30), (k, 1))
    orthogonal = np.eye(k, dtype=np.float32)

    assert diversity.vendi(copies) == pytest.approx(1.0, abs=1e-5)
    assert diversity.mean_distance(copies) == pytest.approx(0.0, abs=1e-6)
    assert diversity.clusters_by_meaning(copies) == [0] * k
    assert diversity.vendi(orthogonal) == pytest.approx(k, abs=1e-5)
    assert diversity.clusters_by_meaning(orthogonal) == list(range(k))


def test_empty_texts_are_alike_and_like_no_other() -> None:
    vectors = np.array([[0, 0], [0, 0], [1, 0]], np.float32)

    assert diversity.clusters_by_meaning(vectors) == [0, 0, 1]
    assert diversity.clusters_by_words(["", "?!", "yes"]) == [0, 0, 1]
    # Of three pairs one has the cosine 1, the others 0.
    assert diversity.mean_distance(vectors) == pytest.approx(2 / 3)


def test_a_text_joins_the_first_cluster_whose_first_member_it_is_like() -> None:
    texts = ["a b c d", "a b x y", "a b c x", "x y z a b"]

    # Overlap F1 with the first member of cluster 0: 4/8 joins; 6/8 joins; 2*2/9 = .444
    # does not, although "x y z a b" shares 8/9 with the second text.
    assert diversity.clusters_by_words(texts) == [0, 0, 0, 1]


def test_just_the_threshold_is_not_enough_for_one_cluster() -> None:
    assert diversity.clusters_by_words(["a b", "a c"], same=0.5) == [0, 1]
    assert diversity.clusters_by_words(["a b", "a c"], same=0.49) == [0, 0]


def test_utility_weighs_by_patience_and_pays_a_cluster_once() -> None:
    # The weights 1, 0.8 and 0.64 add up to 2.44; the second 0 is seen already.
    found = diversity.utility([5, 4, 3], [0, 0, 1])

    assert found == pytest.approx((5 + 3 * 0.64) / 2.44)
    assert diversity.utility([], []) == 0.0


@pytest.mark.parametrize("texts", [[], ["alone"]])
def test_a_set_of_fewer_than_two_texts_has_no_figures(texts: list[str]) -> None:
    assert diversity.set_diversity(texts, HashEmbedder().embed(texts)) == {}


@given(TEXTS)
def test_every_figure_of_any_set_is_finite_and_within_its_bounds(
    texts: list[str],
) -> None:
    found = diversity.set_diversity(texts, HashEmbedder(dimension=16).embed(texts))

    k = len(texts)
    assert all(math.isfinite(value) for value in found.values())
    for share in ("distinct-1", "distinct-2", "distinct-3", "self-bleu"):
        assert 0 <= found[share] <= 1
    assert 0 <= found["distance"] <= 2
    assert 1 - 1e-6 <= found["vendi"] <= k + 1e-6
    assert 1 <= found["clusters"] <= k
    assert 1 <= found["clusters by meaning"] <= k


@given(st.text(min_size=1, max_size=30), st.integers(2, 5))
def test_copies_of_any_text_are_no_variety(text: str, k: int) -> None:
    found = diversity.set_diversity(
        [text] * k, HashEmbedder(dimension=16).embed([text] * k)
    )

    assert found["clusters"] == found["clusters by meaning"] == 1
    assert found["vendi"] == pytest.approx(1, abs=1e-5)
    assert found["distance"] == pytest.approx(0, abs=1e-6)
