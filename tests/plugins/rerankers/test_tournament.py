"""The tournament: matches, standings, and what an outlier can do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import Reranker
from bot.model import Candidate
from bot.ranking import with_totals
from bot.testing import a_candidate, a_tools, a_turn
from bot.testing.contracts import RerankerContract
from plugins.rerankers.tournament import Tournament, margins, standings, table


class TestTournamentKeepsTheContract(RerankerContract):
    @pytest.fixture(params=["copeland", "borda"])
    def subject(self, request: pytest.FixtureRequest) -> Reranker:
        return Tournament(Tournament.Settings(count=request.param))


class TestTournamentByPartsOfVotesKeepsTheContract(RerankerContract):
    @pytest.fixture
    def subject(self) -> Reranker:
        return Tournament(Tournament.Settings(votes="shares"))


def ranked_texts(candidates: Sequence[Candidate], **settings: object) -> list[str]:
    tournament = Tournament(Tournament.Settings.model_validate(settings))
    ranked = tournament.rerank(a_turn(), candidates, a_tools())
    return [one.text for one in ranked]


def an_outlier() -> list[Candidate]:
    """Return four candidates, of which one scorer sees `outlier` as from elsewhere."""
    texts = ["outlier", "favourite", "third", "fourth"]
    scores = {"a": [10, 0, 0, 0], "b": [2, 3, 1, 0], "c": [2, 3, 1, 0]}
    return with_totals([a_candidate(text) for text in texts], scores, {})


def test_one_scorers_outlier_wins_the_sum_but_not_the_tournament() -> None:
    candidates = an_outlier()

    # By z-scores: 1.73 + 2 · .45 = 2.63 against -.58 + 2 · 1.34 = 2.11. In matches, b
    # and c vote for the favourite and a for the outlier.
    assert max(candidates, key=lambda one: one.total or 0).text == "outlier"
    assert ranked_texts(candidates) == ["favourite", "outlier", "third", "fourth"]
    assert ranked_texts(candidates, votes="shares")[0] == "favourite"


def test_margins_are_weighted_votes() -> None:
    scores = np.array([[3.0, 2.0, 2.0], [1.0, 2.0, 3.0]])

    margin = margins(scores, np.array([1.0, 0.5]), whole=True)

    # 0 against 1: the first says +1, the second -.5. 1 against 2: draw, then -.5.
    assert margin.tolist() == [[0, 0.5, 0.5], [-0.5, 0, -0.5], [-0.5, 0.5, 0]]


def test_shares_of_votes_grow_with_the_difference() -> None:
    scores = np.array([[1.0, 0.0, -1.0]])

    margin = margins(scores, np.array([2.0]), whole=False)

    # z-scores ±1.2247 and 0; 2 · tanh(1.2247 / 2) and 2 · tanh(1.2247).
    assert margin[0].tolist() == pytest.approx([0, 1.0916, 1.6821], abs=1e-4)
    assert np.allclose(margin, -margin.T)


def test_copeland_counts_matches_and_borda_margins() -> None:
    # 0 wins both matches narrowly; 1 loses one narrowly and wins one by three.
    margin = np.array([[0.0, 1.0, 1.0], [-1.0, 0.0, 3.0], [-1.0, -3.0, 0.0]])

    assert standings(margin, copeland=True) == [0, 1, 2]
    # Sums: 2, 2, -4. With one vote more 1 is ahead.
    margin[1, 2], margin[2, 1] = 4, -4
    assert standings(margin, copeland=False) == [1, 0, 2]


def test_equal_numbers_of_matches_are_parted_by_margins() -> None:
    # A circle: each wins once. 2 wins by the most.
    margin = np.array([[0.0, 1.0, -5.0], [-1.0, 0.0, 1.0], [5.0, -1.0, 0.0]])

    assert standings(margin, copeland=True) == [2, 1, 0]


def test_a_weight_decides_who_is_heard() -> None:
    candidates = [
        a_candidate("short", {"a": 1.0, "b": 0.0}),
        a_candidate("right", {"a": 0.0, "b": 1.0}),
    ]

    assert ranked_texts(candidates, weights={"b": 2}) == ["right", "short"]
    assert ranked_texts(candidates, weights={"b": 0.5}) == ["short", "right"]


def test_without_scores_the_order_stays() -> None:
    candidates = [a_candidate(text) for text in ("b", "a", "c")]

    assert ranked_texts(candidates) == ["b", "a", "c"]
    assert ranked_texts(candidates, votes="shares", count="borda") == ["b", "a", "c"]


def test_a_scorer_abstains_where_it_has_no_number() -> None:
    scores = table([{"a": 1.0}, {"a": math.nan}, {}, {"a": math.inf}], ["a", "b"])

    for whole in (True, False):
        margin = margins(scores, np.ones(2), whole=whole)

        assert not margin.any()


@given(
    st.lists(
        st.tuples(*[st.floats(-1e6, 1e6)] * 3),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["whole", "shares"]),
    st.sampled_from(["copeland", "borda"]),
)
def test_who_beats_everybody_comes_first(
    rows: list[tuple[float, float, float]], votes: str, count: str
) -> None:
    numbers = [*rows, (2e6, 2e6, 2e6)]
    candidates = [
        a_candidate(str(n), dict(zip("abc", row, strict=True)))
        for n, row in enumerate(numbers)
    ]

    texts = ranked_texts(candidates, votes=votes, count=count)

    assert texts[0] == candidates[-1].text
    assert sorted(texts) == sorted(one.text for one in candidates)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=7))
def test_the_scores_scale_does_not_matter_to_whole_votes(
    rows: list[tuple[int, int, int]],
) -> None:
    scores = np.array(rows, np.float64).T
    stretched = np.exp(scores * 3)

    before = standings(margins(scores, np.ones(3), whole=True), copeland=True)
    after = standings(margins(stretched, np.ones(3), whole=True), copeland=True)

    assert after == before


@pytest.mark.parametrize(
    "settings", [{"votes": "half"}, {"count": "coin"}, {"weights": {"a": -1}}]
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Tournament.Settings.model_validate(settings)
