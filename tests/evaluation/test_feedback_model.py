"""What is learned from thumbs, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import ConfigError
from bot.evaluation.feedback_model import (
    Example,
    auc,
    fitted,
    log_odds_of,
    logistic,
    train,
)

Rated = Callable[[np.random.Generator, bool], tuple[dict[str, float], list[float]]]


def examples(count: int, rated: Rated, seed: int = 1) -> list[Example]:
    """Make so many replies, every other one good, as `rated` says they look."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        good = number % 2 == 0
        scores, vector = rated(rng, good)
        made.append(
            Example(scores=scores, vector=np.array(vector, np.float32), good=good)
        )
    return made


def by_score(
    rng: np.random.Generator, good: bool
) -> tuple[dict[str, float], list[float]]:
    shift = 5.0 if good else -5.0
    return {"grounded": shift + rng.normal(), "noise": rng.normal()}, [1.0, 0.0]


def by_meaning(
    rng: np.random.Generator, good: bool
) -> tuple[dict[str, float], list[float]]:
    return {"noise": rng.normal()}, [1.0, 0.0] if good else [0.0, 1.0]


def by_nothing(
    rng: np.random.Generator, good: bool
) -> tuple[dict[str, float], list[float]]:
    vector = rng.normal(size=8)
    return {"noise": rng.normal()}, list(vector / np.linalg.norm(vector))


def test_a_score_that_tells_good_from_bad_is_found() -> None:
    trained = train(examples(60, by_score), minimum=20)

    weights = dict(zip(trained.model.names, trained.model.weights, strict=True))
    assert trained.auc == 1
    assert trained.useful
    assert weights["grounded"] > 10 * abs(weights["noise"])
    assert (trained.good, trained.bad, trained.model.trained_on) == (30, 30, 60)


def test_a_meaning_that_tells_good_from_bad_is_found() -> None:
    trained = train(examples(60, by_meaning), minimum=20)

    toward_good, toward_bad = trained.model.embedding
    assert trained.auc == 1
    assert toward_good == pytest.approx(-toward_bad)
    assert toward_good > 0


@pytest.mark.parametrize("seed", range(5))
def test_what_tells_nothing_is_worth_chance_and_said_to_be(seed: int) -> None:
    trained = train(examples(200, by_nothing, seed), minimum=20)

    # .5 + 2 · sqrt(201 / (12 · 100 · 100)).
    assert trained.chance_auc == pytest.approx(0.5819, abs=1e-4)
    assert trained.auc == pytest.approx(0.5, abs=0.12)
    assert not trained.useful


def test_too_few_of_a_kind_are_refused_with_their_number() -> None:
    few = [one for one in examples(60, by_score) if one.good][:19]
    few += [one for one in examples(60, by_score) if not one.good]

    with pytest.raises(ConfigError, match=r"19 good and 30 bad .* wait for 20 of each"):
        train(few, minimum=20)


def test_no_reply_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 good and 0 bad"):
        train([], minimum=1)


def test_a_constant_score_and_one_that_is_no_number_do_no_harm() -> None:
    def rated(
        rng: np.random.Generator, good: bool
    ) -> tuple[dict[str, float], list[float]]:
        scores = by_score(rng, good)[0]
        return {**scores, "constant": 3.0, "broken": math.nan}, [0.0]

    model = fitted(examples(40, rated), l2=1.0)

    weights = dict(zip(model.names, model.weights, strict=True))
    assert (weights["constant"], weights["broken"]) == pytest.approx((0, 0))
    assert np.isfinite([*model.means, *model.scales, model.bias]).all()


def test_a_score_that_only_some_have_counts_as_its_mean_elsewhere() -> None:
    some = examples(40, by_score)
    mean = np.mean([one.scores["grounded"] for one in some])
    without, average = (
        Example(scores=scores, vector=np.array([1.0, 0.0], np.float32), good=True)
        for scores in ({"noise": 0.0}, {"noise": 0.0, "grounded": float(mean)})
    )

    model = fitted(some, l2=1.0)

    assert log_odds_of(without, model) == pytest.approx(log_odds_of(average, model))


def test_it_does_not_learn_from_its_own_opinion() -> None:
    def rated(
        rng: np.random.Generator, good: bool
    ) -> tuple[dict[str, float], list[float]]:
        return {"feedback": float(good), "noise": rng.normal()}, [0.0]

    assert fitted(examples(40, rated), l2=1.0).names == ("noise",)


def test_without_scores_the_meaning_alone_is_learned() -> None:
    def rated(
        rng: np.random.Generator, good: bool
    ) -> tuple[dict[str, float], list[float]]:
        return {}, by_meaning(rng, good)[1]

    assert train(examples(40, rated), minimum=20).auc == 1


def test_the_same_thumbs_teach_the_same() -> None:
    first, second = (train(examples(60, by_nothing), minimum=20) for _ in range(2))

    assert first == second


def test_the_auc_counts_pairs_and_half_the_ties() -> None:
    scores = np.array([3.0, 1.0, 1.0, 0.0])
    good = np.array([True, True, False, False])

    # 3 is above both bad ones, 1 above one and level with the other: 3.5 of 4.
    assert auc(scores, good) == 0.875


def test_the_fit_is_where_the_slope_ends() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(50, 4))
    good = (features[:, 0] + rng.normal(size=50) > 0).astype(float)

    weights, bias = logistic(features, good, l2=2.0)

    missed = 1 / (1 + np.exp(-features @ weights - bias)) - good
    assert missed.sum() == pytest.approx(0, abs=1e-3)
    assert features.T @ missed + 2.0 * weights == pytest.approx(np.zeros(4), abs=1e-3)


def test_no_feature_leaves_the_share_of_good_ones() -> None:
    good = np.array([1.0, 1.0, 1.0, 0.0])

    weights, bias = logistic(np.zeros((4, 2)), good, l2=1.0)

    assert weights.tolist() == [0, 0]
    assert bias == pytest.approx(math.log(3))


@given(
    st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=2, max_size=20
    ).filter(lambda rows: len({good for _, good in rows}) == 2)
)
def test_any_scores_make_a_finite_model(rows: list[tuple[float, bool]]) -> None:
    judged = [
        Example(scores={"s": score}, vector=np.zeros(1, np.float32), good=good)
        for score, good in rows
    ]

    model = fitted(judged, l2=1.0)

    numbers = [*model.weights, *model.embedding, *model.means, *model.scales]
    assert np.isfinite([*numbers, model.bias]).all()
    assert all(math.isfinite(log_odds_of(one, model)) for one in judged)
