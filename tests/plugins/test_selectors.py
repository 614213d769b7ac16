"""The selectors: which candidate, how often, and why."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.interfaces import Selector
from bot.testing import a_candidate, a_turn
from bot.testing.contracts import SelectorContract
from plugins.selectors.best import Best
from plugins.selectors.sample import Sample, softmax


class TestBestKeepsTheContract(SelectorContract):
    @pytest.fixture
    def subject(self) -> Selector:
        return Best(Best.Settings())


class TestSampleKeepsTheContract(SelectorContract):
    @pytest.fixture
    def subject(self) -> Selector:
        return Sample(Sample.Settings())


def test_best_takes_the_first_of_the_ranking_even_with_a_lower_total() -> None:
    ranked = [a_candidate("a", {"x": 0.25}), a_candidate("b", {"x": 0.5})]

    chosen = Best(Best.Settings()).select(a_turn(), ranked)

    assert (chosen.index, chosen.why) == (0, "ranked first of 2, total 0.25")


def test_sample_draws_as_often_as_the_softmax_says() -> None:
    ranked = [a_candidate("a", {"x": 1.0}), a_candidate("b", {"x": 0.0})]
    sample = Sample(Sample.Settings(temperature=1))
    turns = 4000

    first = sum(
        sample.select(a_turn(seed=seed), ranked).index == 0 for seed in range(turns)
    )

    # p = e / (e + 1) = .731; five standard deviations are .035.
    assert first / turns == pytest.approx(0.731, abs=0.035)


def test_a_low_temperature_is_as_good_as_best() -> None:
    ranked = [a_candidate("a", {"x": 0.0}), a_candidate("b", {"x": 1.0})]
    sample = Sample(Sample.Settings(temperature=0.01))

    chosen = {sample.select(a_turn(seed=seed), ranked).index for seed in range(50)}

    assert chosen == {1}


def test_sample_says_how_probable_its_choice_was() -> None:
    ranked = [a_candidate("a"), a_candidate("b")]

    chosen = Sample(Sample.Settings()).select(a_turn(), ranked)

    assert chosen.why == "drawn with probability 0.50 from 2"


@pytest.mark.parametrize("total", [None, math.nan, math.inf, -math.inf])
def test_a_total_that_is_no_number_counts_as_the_least(total: float | None) -> None:
    chances = softmax([1.0, total, 0.0], temperature=1)

    # e / (e + 1 + 1) = .576
    assert chances.tolist() == pytest.approx([0.576, 0.212, 0.212], abs=0.001)


@given(
    st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=20),
    st.floats(0.01, 100),
)
def test_chances_sum_to_one_and_keep_the_order_of_totals(
    totals: list[float | None], temperature: float
) -> None:
    chances = softmax(totals, temperature)

    assert chances.sum() == pytest.approx(1)
    known = [(t, c) for t, c in zip(totals, chances, strict=True) if t is not None]
    ordered = [chance for _, chance in sorted(known)]
    assert (np.diff(ordered) >= -1e-12).all()
