"""MMR: the order it gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.distributions import scaled
from bot.interfaces import Reranker
from bot.testing import FakeTools, a_candidate, a_tools, a_turn
from bot.testing.contracts import RerankerContract
from plugins.rerankers.mmr import Mmr, greedy_mmr


class TestMmrKeepsTheContract(RerankerContract):
    @pytest.fixture
    def subject(self) -> Reranker:
        return Mmr(Mmr.Settings())


def test_a_near_copy_of_the_winner_falls_behind_a_different_reply() -> None:
    winner = a_candidate("it takes five days", {"a": 0.9})
    copy = a_candidate("it takes five days yes", {"a": 0.8})
    other = a_candidate("ask your bank", {"a": 0.6})

    ranked = Mmr(Mmr.Settings(diversity=0.5)).rerank(
        a_turn(), [winner, copy, other], a_tools()
    )

    assert ranked == [winner, other, copy]


def test_without_diversity_the_total_decides() -> None:
    low, high = a_candidate("one", {"a": 0.1}), a_candidate("two", {"a": 0.9})

    ranked = Mmr(Mmr.Settings(diversity=0)).rerank(a_turn(), [low, high], a_tools())

    assert ranked == [high, low]


def test_the_gain_is_as_in_the_formula() -> None:
    relevance = np.array([1.0, 0.9, 0.5])
    similarity = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])

    # After 0: .65 · .9 - .35 · .9 = .27 against .65 · .5 - .35 · .1 = .29.
    assert greedy_mmr(relevance, similarity, 0.35) == [0, 2, 1]
    assert greedy_mmr(relevance, similarity, 0.3) == [0, 1, 2]


def test_totals_are_scaled_within_the_set() -> None:
    assert scaled([-1.0, None, 3.0, 1.0]).tolist() == [0, 0, 1, 0.5]
    assert scaled([2.0, 2.0]).tolist() == [0, 0]
    assert scaled([None]).tolist() == [0]
    assert scaled([0.0, math.nan, 2.0, math.inf, -math.inf]).tolist() == [0, 0, 1, 0, 0]


def test_one_candidate_needs_no_embedding() -> None:
    tools = FakeTools()
    only = a_candidate()

    ranked = Mmr(Mmr.Settings()).rerank(a_turn(), [only], tools)

    assert ranked == [only]
    assert tools.embedded == []


@given(
    relevance=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    diversity=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_every_position_comes_once_and_the_most_relevant_first(
    relevance: list[float], diversity: float, seed: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(relevance), 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    order = greedy_mmr(np.array(relevance), vectors @ vectors.T, diversity)

    assert sorted(order) == list(range(len(relevance)))
    assert relevance[order[0]] == max(relevance)
