"""epsilon and eta: which floor they set, and that the likeliest token stays."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers.generation.logits_process import EpsilonLogitsWarper, EtaLogitsWarper

from bot.interfaces import LogitsProcessor
from bot.testing import a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.epsilon import Epsilon, without_rare
from plugins.logits.eta import Eta, log_floor, without_rare_for_its_entropy

NONE_DRAWN = torch.zeros(1, 0).long()


class TestEpsilonKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return Epsilon(Epsilon.Settings(minimum=0.05))


class TestEtaKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return Eta(Eta.Settings(epsilon=0.05))


def test_epsilon_removes_what_is_below_it() -> None:
    logits = torch.tensor([[0.6, 0.3, 0.07, 0.03]]).log()

    kept = without_rare(logits, 0.05).isfinite()

    assert kept.tolist() == [[True, True, True, False]]


def test_where_nothing_reaches_epsilon_the_likeliest_stays() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.3]]).log()

    kept = without_rare(logits, 0.5).isfinite()

    assert kept.tolist() == [[True, False, False]]


def test_eta_is_epsilon_where_the_model_is_sure() -> None:
    # H = 0, and √ε · exp(0) = 0.1 is above ε = 0.01.
    log_probs = torch.tensor([[0.0, -torch.inf]])

    floor = log_floor(log_probs, 0.01).exp()

    assert floor.item() == pytest.approx(0.01)


def test_eta_sinks_with_the_entropy() -> None:
    # H = ln 100: √ε · exp(-H) = 0.1 / 100 = 0.001, below ε = 0.01. The code of
    # transformers says so too; its docstring would give √(0.01 / 100) = 0.01.
    log_probs = torch.full((1, 100), -math.log(100))

    floor = log_floor(log_probs, 0.01).exp()

    assert floor.item() == pytest.approx(0.001)


def test_eta_cuts_where_the_model_is_sure_what_it_keeps_where_it_is_not() -> None:
    sure = [0.994, 0.006] + [0.0] * 98
    unsure = [0.4, 0.006] + [0.594 / 98] * 98
    logits = torch.tensor([sure, unsure]).log()

    kept = without_rare_for_its_entropy(logits, 0.01).isfinite()

    assert kept[:, 1].tolist() == [False, True]


def test_impossible_tokens_bring_no_nan() -> None:
    logits = torch.tensor([[0.0, -torch.inf], [-5.0, -5.0]])

    assert without_rare(logits, 0.1).equal(logits)
    assert without_rare_for_its_entropy(logits, 0.1).equal(logits)


@pytest.mark.parametrize("spread", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("epsilon", [0.0003, 0.004, 0.2])
def test_they_keep_what_transformers_keeps(spread: float, epsilon: float) -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(4, 2000, generator=generator) * spread
    step = Epsilon(Epsilon.Settings(minimum=epsilon)).begin(a_turn(), 4)
    eta_step = Eta(Eta.Settings(epsilon=epsilon)).begin(a_turn(), 4)

    ours, ours_by_eta = step(NONE_DRAWN, logits), eta_step(NONE_DRAWN, logits)

    assert ours.equal(EpsilonLogitsWarper(epsilon)(NONE_DRAWN, logits))
    assert ours_by_eta.equal(EtaLogitsWarper(epsilon)(NONE_DRAWN, logits))


@checked(max_examples=50, deadline=None)
@given(
    row=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20),
    epsilon=st.floats(1e-6, 0.99),
)
def test_what_they_keep_is_unchanged_and_holds_the_likeliest(
    row: list[float], epsilon: float
) -> None:
    logits = torch.tensor([row])

    for kept in (
        without_rare(logits, epsilon),
        without_rare_for_its_entropy(logits, epsilon),
    ):
        finite = kept.isfinite()
        assert kept[finite].equal(logits[finite])
        assert kept.amax() == logits.amax()


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_floor_out_of_bounds_is_refused(number: float) -> None:
    with pytest.raises(ValidationError):
        Epsilon.Settings(minimum=number)
    with pytest.raises(ValidationError):
        Eta.Settings(epsilon=number)
