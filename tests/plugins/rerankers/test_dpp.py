"""The determinantal point process: its greedy order, and what it does to a set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from bot.distributions import scaled
from bot.interfaces import Reranker
from bot.testing import FakeTools, a_candidate, a_tools, a_turn
from bot.testing.contracts import RerankerContract
from plugins.rerankers.dpp import Dpp, greedy_map, similarities


class TestDppKeepsTheContract(RerankerContract):
    @pytest.fixture
    def subject(self) -> Reranker:
        return Dpp(Dpp.Settings())


def directions(rows: int, dimension: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors, np.float32)


def log_det(kernel: NDArray[np.float64], chosen: list[int]) -> float:
    sign, magnitude = np.linalg.slogdet(kernel[np.ix_(chosen, chosen)])
    return float(magnitude) if sign > 0 else -math.inf


@given(
    rows=st.integers(1, 8), quality_weight=st.floats(0, 3), seed=st.integers(0, 10_000)
)
def test_every_pick_has_the_largest_determinant(
    rows: int, quality_weight: float, seed: int
) -> None:
    quality = np.random.default_rng(seed).uniform(size=rows)
    similarity = similarities(directions(rows, 12, seed))
    q = np.exp(quality_weight * quality)
    kernel = q[:, None] * similarity * q

    order = greedy_map(quality_weight * quality, similarity)

    for picked in range(rows):
        here = log_det(kernel, order[: picked + 1])
        best = max(
            log_det(kernel, [*order[:picked], other]) for other in order[picked:]
        )
        assert here == pytest.approx(best, abs=1e-6)
    assert sorted(order) == list(range(rows))


def test_the_gain_is_as_in_the_formula() -> None:
    similarity = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    quality = np.array([1.0, 0.9, 0.5])

    # After 0, log q² + log d²: 1 is 1.8 w + log(1 - .81) = 1.8 w - 1.66, and
    # 2 is 1 w + log(1 - .01) = 1 w - .01; they are equal at w = 2.06.
    assert greedy_map(2.0 * quality, similarity) == [0, 2, 1]
    assert greedy_map(2.1 * quality, similarity) == [0, 1, 2]


def test_what_two_replies_say_together_adds_nothing() -> None:
    # 2 is half of 0 and half of 1: as close to each as 3 is, and yet nothing new.
    vectors = np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0.5, 0.5, 0.7, 0]], np.float64
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    order = greedy_map(np.zeros(4), vectors @ vectors.T)

    assert order == [0, 1, 3, 2]


def test_copies_follow_by_total_once_nothing_is_new() -> None:
    first = a_candidate("it takes five days", {"a": 0.9})
    worse, better = (a_candidate("it takes five days", {"a": n}) for n in (0.1, 0.8))
    other = a_candidate("ask your bank", {"a": 0.0})

    ranked = Dpp(Dpp.Settings()).rerank(
        a_turn(), [first, worse, better, other], a_tools()
    )

    assert ranked == [first, other, better, worse]


def test_a_high_weight_leaves_the_order_of_totals() -> None:
    texts = ["one two", "one two three", "four", "one two three four"]
    candidates = [a_candidate(text, {"a": -n}) for n, text in enumerate(texts)]

    ranked = Dpp(Dpp.Settings(quality_weight=20)).rerank(
        a_turn(), candidates[::-1], a_tools()
    )

    assert ranked == candidates


def test_one_candidate_needs_no_embedding() -> None:
    tools = FakeTools()
    only = a_candidate()

    ranked = Dpp(Dpp.Settings()).rerank(a_turn(), [only], tools)

    assert ranked == [only]
    assert tools.embedded == []


def test_awkward_texts_are_ordered_in_one_call() -> None:
    texts = ["", "", "五天。", "五天。", "👍", "\ud800", "x" * 10_000]
    candidates = [a_candidate(text, {"a": 1.0}) for text in texts]
    tools = FakeTools()

    ranked = Dpp(Dpp.Settings()).rerank(a_turn(), candidates, tools)

    assert sorted(map(id, ranked)) == sorted(map(id, candidates))
    assert len(tools.embedded) == 1


def test_a_total_that_is_no_number_counts_as_the_lowest() -> None:
    assert scaled([math.nan, 1.0, None, 3.0, math.inf]).tolist() == [0, 0, 0, 1, 0]
    assert scaled([2.0, 2.0]).tolist() == [0, 0]
    assert scaled([]).tolist() == []


def test_similarities_are_half_of_one_plus_the_cosine() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0], [0, 0]], np.float32)

    similarity = similarities(vectors)

    # A zero row is [1, 0, 0] at length one: 1/√2 with [1, v]/√2.
    half = math.sqrt(0.5)
    expected = [
        [1, 0.5, 0, half],
        [0.5, 1, 0.5, half],
        [0, 0.5, 1, half],
        [half, half, half, 1],
    ]
    assert np.allclose(similarity, expected)
    assert np.linalg.eigvalsh(similarity).min() > -1e-12


@pytest.mark.parametrize("weight", [-0.1, 20.1, math.nan])
def test_a_weight_out_of_bounds_is_refused(weight: float) -> None:
    with pytest.raises(ValidationError):
        Dpp.Settings(quality_weight=weight)
