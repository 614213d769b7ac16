"""Reciprocal rank fusion: the sum, ties, and what is missing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import Reranker
from bot.testing import a_candidate, a_tools, a_turn
from bot.testing.contracts import RerankerContract
from plugins.rerankers.rank_fusion import RankFusion, fused, ranks

SCORES = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.floats(-1e6, 1e6)), max_size=8
)


class TestRankFusionKeepsTheContract(RerankerContract):
    @pytest.fixture
    def subject(self) -> Reranker:
        return RankFusion(RankFusion.Settings())


def test_places_are_summed_as_in_the_formula() -> None:
    scores = [{"a": 0.9, "b": 1.0}, {"a": 0.5, "b": 3.0}, {"a": 0.1, "b": 2.0}]

    values = fused(scores, 60, {"b": 2})

    # Places by a: 1, 2, 3; by b, which weighs 2: 3, 1, 2.
    assert values == pytest.approx([1 / 61 + 2 / 63, 1 / 62 + 2 / 61, 1 / 63 + 2 / 62])


def test_equal_scores_share_the_mean_of_their_places() -> None:
    found = ranks([5.0, 7.0, 5.0, 5.0, 1.0])

    # The three fives have the places 2, 3 and 4.
    assert found == {1: 1, 0: 3, 2: 3, 3: 3, 4: 5}


def test_a_scorer_that_calls_all_equal_has_no_say() -> None:
    alone = RankFusion(RankFusion.Settings())
    good, bad = {"a": 0.2, "equal": 5.0}, {"a": 0.1, "equal": 5.0}
    candidates = [a_candidate("bad", bad), a_candidate("good", good)]

    ranked = alone.rerank(a_turn(), candidates, a_tools())

    assert [one.text for one in ranked] == ["good", "bad"]


def test_one_scorers_large_numbers_do_not_drown_the_others() -> None:
    loud = a_candidate("loud", {"a": 1000.0, "b": 0.1, "c": 0.1})
    liked = a_candidate("liked", {"a": 1.0, "b": 0.9, "c": 0.9})

    ranked = RankFusion(RankFusion.Settings()).rerank(
        a_turn(), [loud, liked], a_tools()
    )

    assert ranked == [liked, loud]


def test_a_scorer_adds_nothing_where_it_has_no_number() -> None:
    values = fused([{"a": 1.0}, {}, {"a": math.nan}, {"a": -math.inf}], 1, {})

    assert values == [1 / 2, 0, 0, 1 / 3]


def test_without_scores_the_order_stays() -> None:
    candidates = [a_candidate(text) for text in ("two", "one", "three")]

    ranked = RankFusion(RankFusion.Settings()).rerank(a_turn(), candidates, a_tools())

    assert ranked == candidates


def test_places_by_three_scorers_in_any_order_tie() -> None:
    # Summed one after the other, 1/3 + 1/4 + 1/5 depends on the order.
    scores = [
        {"a": 3.0, "b": 2.0, "c": 1.0},
        {"a": 1.0, "b": 3.0, "c": 2.0},
        {"a": 2.0, "b": 1.0, "c": 3.0},
    ]

    assert len(set(fused(scores, 2, {}))) == 1


@given(SCORES)
def test_only_the_order_of_a_scorers_numbers_counts(
    scores: list[dict[str, float]],
) -> None:
    doubled = [{name: 2 * number for name, number in each.items()} for each in scores]

    assert fused(doubled, 60, {}) == fused(scores, 60, {})


@given(SCORES, st.floats(0, 10_000))
def test_the_best_by_every_scorer_comes_first(
    scores: list[dict[str, float]], k: float
) -> None:
    best = {"a": 2e6, "b": 2e6, "c": 2e6}
    candidates = [a_candidate(str(n), each) for n, each in enumerate([*scores, best])]

    ranked = RankFusion(RankFusion.Settings(k=k)).rerank(
        a_turn(), candidates, a_tools()
    )

    assert ranked[0] is candidates[-1]
    assert sorted(map(id, ranked)) == sorted(map(id, candidates))


@pytest.mark.parametrize(
    "settings", [{"k": -1}, {"weights": {"a": -0.1}}, {"weights": {"a": 101}}]
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RankFusion.Settings.model_validate(settings)
