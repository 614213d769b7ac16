"""Finding weights: that planted ones are found, and that nothing gets worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.evaluation import tuning
from bot.evaluation.tuning import ScoredSet
from bot.ranking import with_totals
from bot.testing import a_candidate

NAMES = ["good", "noise", "bad"]


def planted(sets: int, seed: int = 0) -> list[ScoredSet]:
    """Make sets of which the first scorer knows most, and the last the opposite."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(sets):
        worth = generator.uniform(1, 5, size=int(generator.integers(2, 8)))
        noise = generator.normal(size=(3, len(worth)))
        scores = np.stack([worth + 0.3 * noise[0], noise[1], -worth + noise[2]], axis=1)
        made.append(ScoredSet(scores=scores, worth=worth))
    return made


def mean(values: list[float]) -> float:
    return float(np.mean(values))


def test_the_scorer_that_knows_is_found_among_others() -> None:
    generator = np.random.default_rng(5)
    worths = [generator.permutation(6).astype(np.float64) for _ in range(40)]
    sets = [
        ScoredSet(
            scores=np.stack([worth**3, generator.normal(size=6), -worth], axis=1),
            worth=worth,
        )
        for worth in worths
    ]

    weights = tuning.tune(sets, NAMES, {"bad": 4.0, "good": 0.0})

    assert weights == {"good": 0.25, "noise": 0.0, "bad": 0.0}


def test_what_was_found_holds_on_other_sets() -> None:
    weights = tuning.tune(planted(60), NAMES, {})

    others = planted(200, seed=1)
    alone = mean(tuning.worths(others, NAMES, {"good": 1, "noise": 0, "bad": 0}))
    assert mean(tuning.worths(others, NAMES, weights)) == pytest.approx(alone, abs=0.1)


def test_of_equal_weights_the_simplest_and_lightest_are_taken() -> None:
    # Both scorers say the same, and any positive weight picks the same.
    twins = ScoredSet(
        scores=np.array([[0.0, 0.0], [1.0, 1.0]]), worth=np.array([1.0, 5.0])
    )

    weights = tuning.tune([twins], ["one", "other"], {"one": 4.0, "other": 4.0})

    assert sorted(weights.values()) == [0.0, 0.25]


def test_where_no_scorer_helps_none_is_kept() -> None:
    first_is_best = ScoredSet(
        scores=np.array([[1.0], [2.0]]), worth=np.array([5.0, 1.0])
    )

    assert tuning.tune([first_is_best], ["wrong"], {"wrong": 1.0}) == {"wrong": 0.0}


def test_the_same_sets_give_the_same_weights() -> None:
    found = [tuning.tune(planted(30), NAMES, {"good": 1.0}, seed=7) for _ in range(2)]

    assert found[0] == found[1]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 1000),
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 5), max_size=3),
)
def test_tuning_is_never_worse_on_its_own_sets_than_where_it_started(
    seed: int, start: dict[str, float]
) -> None:
    sets = planted(12, seed)

    weights = tuning.tune(sets, NAMES, start)

    before = mean(tuning.worths(sets, NAMES, start))
    assert mean(tuning.worths(sets, NAMES, weights)) >= before - 1e-9


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1000), st.lists(st.sampled_from(tuning.GRID), min_size=3, max_size=3)
)
def test_picks_are_those_of_the_ranking_itself(seed: int, weights: list[float]) -> None:
    (one,) = planted(1, seed)
    weighed = dict(zip(NAMES, weights, strict=True))
    candidates = [a_candidate(str(row)) for row in range(len(one.worth))]
    columns = {name: one.scores[:, at].tolist() for at, name in enumerate(NAMES)}

    (pick,) = tuning.evaluate([one], NAMES, weighed)

    totals = [each.total or 0.0 for each in with_totals(candidates, columns, weighed)]
    assert totals[pick] == pytest.approx(max(totals))


def test_of_equal_totals_the_first_is_picked() -> None:
    equal = ScoredSet(scores=np.zeros((3, 1)), worth=np.array([1.0, 2.0, 3.0]))

    assert tuning.evaluate([equal], ["any"], {}) == [0]
    assert tuning.evaluate([], ["any"], {}) == []


def test_sets_of_different_sizes_do_not_pick_what_is_not_there() -> None:
    # The lone candidate has a z-score of 0, and the larger set's best has 1.
    lone = ScoredSet(scores=np.array([[-9.0]]), worth=np.array([2.0]))
    two = ScoredSet(scores=np.array([[0.0], [1.0]]), worth=np.array([1.0, 4.0]))

    assert tuning.evaluate([lone, two], ["any"], {"any": -1.0}) == [0, 0]
    assert tuning.worths([lone, two], ["any"], {"any": 1.0}) == [2.0, 4.0]


def test_leaving_one_out_shows_what_each_scorer_adds() -> None:
    # "good" decides; "noise" is constant and decides nothing.
    one = ScoredSet(
        scores=np.array([[0.0, 1.0], [1.0, 1.0]]), worth=np.array([1.0, 4.0])
    )

    added = tuning.leave_one_out([one], ["good", "noise"], {"good": 2.0})

    assert added == {"good": [3.0], "noise": [0.0]}


def test_cross_validation_shows_that_noise_was_learned_by_heart() -> None:
    generator = np.random.default_rng(3)
    noise = [
        ScoredSet(scores=generator.normal(size=(6, 4)), worth=generator.normal(size=6))
        for _ in range(30)
    ]

    found = tuning.cross_validated(noise, list("abcd"), {})

    assert len(found.held_out) == 30
    assert found.tuned > mean(list(found.held_out)) + 0.1


def test_cross_validation_of_fewer_sets_than_folds_is_possible() -> None:
    found = tuning.cross_validated(planted(2), NAMES, {})

    assert len(found.held_out) == 2


def test_z_scores_are_by_column_and_none_for_a_flat_one() -> None:
    found = tuning.z_scores(np.array([[1.0, 7.0], [3.0, 7.0]]))

    assert found.tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_halves_are_the_even_and_the_odd_positions() -> None:
    assert tuning.halves(list("abcde")) == (["a", "c", "e"], ["b", "d"])
    assert tuning.of_half("abcde", "tune") == ["a", "c", "e"]
    assert tuning.of_half("abcde", "report") == ["b", "d"]
    assert tuning.of_half("abcde", "all") == list("abcde")
