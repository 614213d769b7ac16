"""Thompson sampling: how often each arm is picked, from what, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bot.errors import ConfigError
from bot.interfaces import Selector
from bot.testing import a_candidate, a_turn
from bot.testing.contracts import SelectorContract
from plugins.selectors.thompson import Thompson, arm, draws, first_of_arms

QUOTATION = a_candidate("Refunds take five days.", {"a": 1.0}, origin="quotation")
MODEL = a_candidate("It takes five days.", {"a": 0.9})
BRIEF = a_candidate("Five days.", {"a": 0.8}, variant="brief")


class TestThompsonKeepsTheContract(SelectorContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Selector:
        return a_thompson(tmp_path, {"model": {"up": 3, "down": 1}})


class TestThompsonWithoutThumbsKeepsTheContract(SelectorContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Selector:
        return Thompson(Thompson.Settings(counts=str(tmp_path / "missing.json")))


def a_thompson(
    folder: Path, arms: Mapping[str, Mapping[str, int]], **settings: float
) -> Thompson:
    counts = folder / "arms.json"
    counts.write_text(json.dumps({"arms": arms}))
    return Thompson(
        Thompson.Settings.model_validate({"counts": str(counts), **settings})
    )


def chance_that_second_is_better(
    up_1: int, down_1: int, up_2: int, down_2: int
) -> float:
    """
    Return P(θ2 > θ1) for two Beta distributions with whole counts, exactly:
    Σ over i < up_2 of B(up_1 + i, down_1 + down_2) / ((down_2 + i) B(1 + i, down_2)
    B(up_1, down_1)).
    """

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return sum(
        math.exp(
            log_beta(up_1 + i, down_1 + down_2)
            - math.log(down_2 + i)
            - log_beta(1 + i, down_2)
            - log_beta(up_1, down_1)
        )
        for i in range(up_2)
    )


def test_two_arms_are_picked_as_often_as_each_is_the_better(tmp_path: Path) -> None:
    thompson = a_thompson(
        tmp_path, {"quotation": {"up": 4, "down": 6}, "model": {"up": 6, "down": 5}}
    )
    turns = 4000

    model = sum(
        thompson.select(a_turn(seed=seed), [QUOTATION, MODEL]).index == 1
        for seed in range(turns)
    )

    # With one of each to begin with: Beta(5, 7) against Beta(7, 6).
    expected = chance_that_second_is_better(5, 7, 7, 6)
    assert 0.6 < expected < 0.9
    deviation = math.sqrt(expected * (1 - expected) / turns)
    assert model / turns == pytest.approx(expected, abs=4 * deviation)


def test_three_arms_are_picked_as_often_as_each_is_the_best(tmp_path: Path) -> None:
    thompson = a_thompson(
        tmp_path,
        {
            "quotation": {"up": 8, "down": 2},
            "model": {"up": 3, "down": 1},
            "model: brief": {"up": 1, "down": 1},
        },
        prior_up=0.5,
        prior_down=2,
    )
    turns, many = 4000, 200_000

    picked = np.bincount(
        [
            thompson.select(a_turn(seed=seed), [QUOTATION, MODEL, BRIEF]).index
            for seed in range(turns)
        ],
        minlength=3,
    )

    # Beta(a, b) is a share of two Gamma draws: made without numpy's beta.
    rng = np.random.default_rng(7)
    up = rng.gamma([8.5, 3.5, 1.5], size=(many, 3))
    down = rng.gamma([4.0, 3.0, 3.0], size=(many, 3))
    expected = np.bincount((up / (up + down)).argmax(axis=1), minlength=3) / many
    assert (expected > 0.05).all()
    assert np.allclose(picked / turns, expected, atol=0.035)


def test_the_mean_of_the_draws_is_that_of_the_posterior() -> None:
    rng = np.random.default_rng(3)

    drawn = [draws({"a": (30.0, 10.0)}, rng)["a"] for _ in range(2000)]

    # 30 of 40; the deviation of one is sqrt(.75 · .25 / 41) = .068.
    assert np.mean(drawn) == pytest.approx(0.75, abs=4 * 0.068 / math.sqrt(2000))


def test_an_arm_that_is_known_to_be_better_is_nearly_always_picked(
    tmp_path: Path,
) -> None:
    thompson = a_thompson(
        tmp_path,
        {
            "quotation": {"up": 10, "down": 990},
            "model: brief": {"up": 900, "down": 100},
        },
    )

    chosen = {
        thompson.select(a_turn(seed=seed), [QUOTATION, BRIEF]).index
        for seed in range(50)
    }

    assert chosen == {1}


def test_the_best_ranked_of_the_winning_arm_is_picked(tmp_path: Path) -> None:
    thompson = a_thompson(
        tmp_path, {"quotation": {"down": 1000}, "model": {"up": 1000}}
    )
    other = a_candidate("Five days, it takes.", {"a": 1.0})

    chosen = thompson.select(a_turn(), [QUOTATION, MODEL, other])

    assert chosen.index == 1


def test_a_reply_far_below_the_best_is_never_sent(tmp_path: Path) -> None:
    thompson = a_thompson(tmp_path, {"model": {"up": 1000}}, within=0.05)

    chosen = {
        thompson.select(a_turn(seed=seed), [QUOTATION, MODEL]).index
        for seed in range(50)
    }

    assert chosen == {0}


def test_who_competes_is_near_the_best_total_whatever_its_rank() -> None:
    low, best, unscored = (
        a_candidate("low", {"a": 0.1}),
        a_candidate("best", {"a": 1.0}, origin="quotation"),
        a_candidate("unscored", origin="writer"),
    )

    assert first_of_arms([low, best, unscored], 0.5) == {"quotation": 1}
    assert first_of_arms([low, best, unscored], 1.0) == {"model": 0, "quotation": 1}
    assert first_of_arms([unscored, unscored], 0) == {"writer": 0}


def test_a_total_that_is_no_number_is_near_none() -> None:
    broken = a_candidate("broken", {"a": math.nan}, origin="writer")

    assert first_of_arms([broken, MODEL], 0.5) == {"model": 1}


def test_an_arm_is_who_wrote_it_with_which_variant() -> None:
    assert [arm(one) for one in (QUOTATION, MODEL, BRIEF)] == [
        "quotation",
        "model",
        "model: brief",
    ]


def test_it_says_what_was_drawn_and_what_is_known(tmp_path: Path) -> None:
    thompson = a_thompson(
        tmp_path, {"quotation": {"up": 990, "down": 10}, "model": {"down": 998}}
    )

    chosen = thompson.select(a_turn(), [QUOTATION, MODEL])

    assert chosen.why.startswith("arm 'quotation' drew 0.9")
    assert "against model 0.00; 990 up and 10 down" in chosen.why


def test_a_missing_file_is_said_and_all_arms_are_equal(tmp_path: Path) -> None:
    missing = tmp_path / "arms.json"
    thompson = Thompson(Thompson.Settings(counts=str(missing)))

    chosen = [
        thompson.select(a_turn(seed=seed), [QUOTATION, MODEL]) for seed in range(1000)
    ]

    assert all(f"{missing} is missing" in each.why for each in chosen)
    share = sum(each.index for each in chosen) / 1000
    assert share == pytest.approx(0.5, abs=0.065)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "the file"),
        ("[]", "the file"),
        ('{"arms": {"model": {"up": -1}}}', "arms.model.up"),
        ('{"arms": {"model": {"good": 1}}}', "arms.model.good"),
        ('{"arms": {"model": {"up": 1e400}}}', "arms.model.up"),
    ],
)
def test_a_file_that_is_wrong_stops_the_start(
    tmp_path: Path, content: str, told: str
) -> None:
    counts = tmp_path / "arms.json"
    counts.write_text(content)

    with pytest.raises(ConfigError, match="feedback count") as raised:
        Thompson(Thompson.Settings(counts=str(counts)))

    assert f"{counts}: {told}: " in str(raised.value)


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Thompson(Thompson.Settings(counts=str(tmp_path)))


@pytest.mark.parametrize(
    "settings",
    [{"counts": ""}, {"prior_up": 0}, {"prior_down": -1}, {"within": -0.1}],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Thompson.Settings.model_validate(settings)
