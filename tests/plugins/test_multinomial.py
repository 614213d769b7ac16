"""The multinomial sampler: the distribution it draws from, exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from bot.interfaces import Sampler
from bot.testing import a_turn
from bot.testing.contracts import SamplerContract
from plugins.samplers.multinomial import Multinomial, truncated


class TestMultinomialKeepsTheContract(SamplerContract):
    @pytest.fixture
    def subject(self) -> Sampler:
        return Multinomial(Multinomial.Settings())


class TestGreedyMultinomialKeepsTheContract(SamplerContract):
    @pytest.fixture
    def subject(self) -> Sampler:
        return Multinomial(Multinomial.Settings(temperature=0))


def expected_distribution(
    logits: NDArray[np.float64], temperature: float, top_k: int, top_p: float
) -> NDArray[np.float64]:
    """The textbook's way: sort the whole vocabulary, one row, in float64."""
    order = np.argsort(-logits, kind="stable")
    weights = np.exp((logits - logits.max()) / temperature)
    if top_k:
        weights[order[top_k:]] = 0
    weights /= weights.sum()
    reached = 0.0
    for token in order:
        if reached >= top_p:
            weights[token] = 0
        reached += weights[token]
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances


def draws(settings: Multinomial.Settings, logits: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    step = Multinomial(settings).begin(a_turn(), len(logits), generator)
    return step(logits).tokens


@pytest.mark.parametrize(
    ("settings", "kept", "critical"),
    [
        # The critical values are those of the chi-square distribution at p = .001.
        (Multinomial.Settings(temperature=1, top_k=0, top_p=1), 10, 27.88),
        (Multinomial.Settings(temperature=0.7, top_k=5, top_p=1), 5, 18.47),
        (Multinomial.Settings(temperature=2, top_k=6, top_p=0.8), 5, 18.47),
    ],
)
def test_tokens_come_as_often_as_they_should(
    settings: Multinomial.Settings, kept: int, critical: float
) -> None:
    logits = torch.tensor([2.0, 0.1, 1.5, -1.0, 0.7, 1.0, -0.4, 0.4, -2.0, 1.8])
    rows = 40_000
    chances = expected_distribution(
        logits.double().numpy(), settings.temperature, settings.top_k, settings.top_p
    )

    drawn = draws(settings, logits.expand(rows, -1))

    counts = np.bincount(drawn.numpy(), minlength=10)
    possible = chances > 0
    assert possible.sum() == kept
    assert counts[~possible].sum() == 0
    expected = rows * chances[possible]
    chi_square = ((counts[possible] - expected) ** 2 / expected).sum()
    assert chi_square < critical


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30, unique=True),
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
)
def test_probabilities_sum_to_one_over_at_most_top_k_tokens(
    logits: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    row = torch.tensor([logits])

    chances, tokens = truncated(row, temperature=temperature, top_k=top_k, top_p=top_p)

    assert chances.sum().item() == pytest.approx(1, abs=1e-5)
    assert tokens.shape[1] == min(top_k or len(logits), len(logits))
    assert tokens[0, 0] == row.argmax()
    assert chances[0, 0] > 0


def test_top_p_keeps_the_token_that_reaches_it() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()

    chances, _ = truncated(logits, temperature=1, top_k=0, top_p=0.6)

    assert chances[0].tolist() == pytest.approx([0.625, 0.375, 0.0])


def test_the_most_probable_token_stays_however_small_top_p_is() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()

    chances, _ = truncated(logits, temperature=1, top_k=0, top_p=0.01)

    assert chances[0].tolist() == [1.0, 0.0, 0.0]


def test_temperature_zero_takes_the_likeliest_token_of_every_row() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -math.inf, 1.0]])

    drawn = draws(Multinomial.Settings(temperature=0), logits)

    assert drawn.tolist() == [1, 0]


def test_it_says_whether_it_is_greedy() -> None:
    assert Multinomial(Multinomial.Settings(temperature=0)).greedy
    assert not Multinomial(Multinomial.Settings()).greedy


def test_siblings_differ_under_one_prompt() -> None:
    flat = torch.zeros(8, 1000)

    drawn = draws(Multinomial.Settings(top_k=0, top_p=1), flat)

    assert len(set(drawn.tolist())) > 4


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"topk": 5}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Multinomial.Settings.model_validate(wrong)
