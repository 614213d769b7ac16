"""top-n-sigma: what it keeps, whatever the temperature."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import LogitsProcessor
from bot.testing import a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.top_n_sigma import TopNSigma, deviation, within_n_sigma


class TestTopNSigmaKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return TopNSigma(TopNSigma.Settings())


def test_logits_within_a_deviation_of_the_top_stay() -> None:
    # Mean 2, squares 4 + 0 + 0 + 4, so the deviation is √(8 / 4) = 1.414.
    logits = torch.tensor([[0.0, 2.0, 2.0, 4.0]])

    one = within_n_sigma(logits, 1).isfinite()
    two = within_n_sigma(logits, 1.5).isfinite()

    assert deviation(logits).item() == pytest.approx(2**0.5)
    assert one.tolist() == [[False, False, False, True]]
    assert two.tolist() == [[False, True, True, True]]


def test_impossible_tokens_do_not_count_in_the_deviation() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 4.0, -torch.inf, -torch.inf]])

    assert deviation(logits).item() == pytest.approx(2**0.5)


def test_a_single_possible_token_stays() -> None:
    logits = torch.tensor([[-torch.inf, 3.0, -torch.inf]])

    assert within_n_sigma(logits, 1).equal(logits)


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_what_is_kept_does_not_change_with_the_temperature(temperature: float) -> None:
    logits = torch.randn(4, 500, generator=torch.Generator().manual_seed(2)) * 3

    before = within_n_sigma(logits, 1).isfinite()
    after = within_n_sigma(logits / temperature, 1).isfinite()

    assert after.equal(before)


def test_the_step_uses_its_setting() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 4.0]])

    step = TopNSigma(TopNSigma.Settings(n=3)).begin(a_turn(), 1)

    assert step(torch.zeros(1, 0).long(), logits).equal(logits)


@checked(max_examples=50, deadline=None)
@given(
    row=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20),
    n=st.floats(0.01, 20),
)
def test_what_is_kept_is_unchanged_and_near_the_top(row: list[float], n: float) -> None:
    logits = torch.tensor([row])
    spread = logits.double().std(dim=1, correction=0).item()

    kept = within_n_sigma(logits, n)

    finite = kept.isfinite()
    distance = (logits.amax() - logits).double()
    assert kept[finite].equal(logits[finite])
    assert (distance[finite] <= n * spread * 1.001 + 1e-4).all()
    assert (distance[~finite] >= n * spread * 0.999 - 1e-4).all()


@pytest.mark.parametrize("n", [0, -1, 21])
def test_a_number_out_of_bounds_is_refused(n: float) -> None:
    with pytest.raises(ValidationError):
        TopNSigma.Settings(n=n)
