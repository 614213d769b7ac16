"""k-centre: the bound that it keeps, and who takes part."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import Reranker
from bot.testing import FakeTools, a_candidate, a_tools, a_turn
from bot.testing.contracts import RerankerContract
from plugins.rerankers.k_centre import (
    KCentre,
    distances,
    farthest_first,
    how_many_good,
)


class TestKCentreKeepsTheContract(RerankerContract):
    @pytest.fixture
    def subject(self) -> Reranker:
        return KCentre(KCentre.Settings())


@given(rows=st.integers(1, 7), seed=st.integers(0, 10_000))
def test_no_choice_of_centres_is_more_than_twice_as_good(rows: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(rows, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distance = distances(vectors.astype(np.float32))

    order = farthest_first(distance)

    for centres in range(1, rows + 1):
        ours = distance[order[:centres]].min(axis=0).max()
        best = min(
            distance[list(chosen)].min(axis=0).max()
            for chosen in combinations(range(rows), centres)
        )
        # float32 rows are of length one to seven digits; near 0 a root doubles that.
        assert ours <= 2 * best + 1e-3


def test_each_pick_is_farthest_from_those_before_it() -> None:
    # On a line at 0, 1, 4, 10: 10 is farthest from 0; then 4, 4 away from 0.
    places = np.array([0.0, 1.0, 4.0, 10.0])

    order = farthest_first(np.abs(places[:, None] - places))

    assert order == [0, 3, 2, 1]


def test_distances_are_straight_lines() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0], [0, 0]], np.float32)

    distance = distances(vectors)

    assert distance[0].tolist() == pytest.approx([0, math.sqrt(2), 2, 1])
    assert np.allclose(distance, distance.T)


def test_junk_far_from_all_others_does_not_win() -> None:
    best = a_candidate("it takes five days", {"a": 1.0})
    near = a_candidate("it takes five days yes", {"a": 0.9})
    different = a_candidate("refunds go to the card that paid", {"a": 0.8})
    junk = a_candidate("asdf qwer zxcv", {"a": 0.0})
    candidates = [best, near, different, junk]

    with_junk = KCentre(KCentre.Settings(quality=0)).rerank(
        a_turn(), candidates, a_tools()
    )
    without = KCentre(KCentre.Settings(quality=0.5)).rerank(
        a_turn(), candidates, a_tools()
    )

    assert with_junk.index(junk) < 3
    assert without == [best, different, near, junk]


def test_the_others_follow_by_total() -> None:
    totals = [0.2, 1.0, 0.4, 0.0]
    candidates = [a_candidate(f"text {n}", {"a": n}) for n in totals]

    ranked = KCentre(KCentre.Settings(quality=1)).rerank(
        a_turn(), candidates, a_tools()
    )

    assert [one.total for one in ranked] == [1.0, 0.4, 0.2, 0.0]


def test_the_good_are_counted_from_the_spread_of_totals() -> None:
    # From 1 to 3 half of the way is 2, three quarters 2.5.
    assert how_many_good([3.0, 2.5, 2.0, 1.0], 0.5) == 3
    assert how_many_good([3.0, 2.5, 2.0, 1.0], 0.75) == 2
    assert how_many_good([3.0, 1.0, -math.inf], 0.5) == 1
    assert how_many_good([2.0, 2.0], 1) == 2
    assert how_many_good([-math.inf, -math.inf], 1) == 2
    assert how_many_good([], 0.5) == 0


@given(
    totals=st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=9),
    quality=st.floats(0, 1),
)
def test_the_highest_total_stays_first(
    totals: list[float | None], quality: float
) -> None:
    candidates = [a_candidate(f"text {n}", total=t) for n, t in enumerate(totals)]

    ranked = KCentre(KCentre.Settings(quality=quality)).rerank(
        a_turn(), candidates, a_tools()
    )

    assert sorted(map(id, ranked)) == sorted(map(id, candidates))
    known = [total for total in totals if total is not None]
    assert not known or ranked[0].total == max(known)


def test_copies_come_after_all_that_differ() -> None:
    first, copy = (a_candidate("it takes five days", {"a": n}) for n in (1.0, 0.9))
    other = a_candidate("ask your bank", {"a": 0.8})

    ranked = KCentre(KCentre.Settings(quality=0)).rerank(
        a_turn(), [first, copy, other], a_tools()
    )

    assert ranked == [first, other, copy]


def test_only_the_good_are_embedded_in_one_call() -> None:
    tools = FakeTools()
    candidates = [a_candidate(text, {"a": n}) for text, n in [("a", 2), ("b", 1.5)]]
    rest = a_candidate("五天 👍", {"a": 0})

    KCentre(KCentre.Settings()).rerank(a_turn(), [*candidates, rest], tools)

    assert tools.embedded == [("a", "b")]


@pytest.mark.parametrize("quality", [-0.1, 1.1])
def test_a_quality_out_of_bounds_is_refused(quality: float) -> None:
    with pytest.raises(ValidationError):
        KCentre.Settings(quality=quality)
