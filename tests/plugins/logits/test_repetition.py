"""repetition: what a token costs the second time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from bot.interfaces import LogitsProcessor
from bot.testing import a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.repetition import Repetition, penalised


class TestRepetitionKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return Repetition(Repetition.Settings(penalty=1.5))


def test_drawn_tokens_lose_in_both_signs_and_others_nothing() -> None:
    # 3 / 1.5 = 2 and -2 · 1.5 = -3; the token drawn twice pays once.
    logits = torch.tensor([[3.0, -2.0, 0.0, 5.0]])

    changed = penalised(torch.tensor([[0, 1, 0, 2]]), logits, 1.5)

    assert changed.tolist() == [[2.0, -3.0, 0.0, 5.0]]


def test_a_row_pays_for_its_own_tokens_alone() -> None:
    logits = torch.tensor([[4.0, 4.0], [4.0, 4.0]])

    changed = penalised(torch.tensor([[0], [1]]), logits, 2)

    assert changed.tolist() == [[2.0, 4.0], [4.0, 2.0]]


def test_an_impossible_token_stays_impossible() -> None:
    logits = torch.tensor([[-torch.inf, 1.0]])

    assert penalised(torch.tensor([[0]]), logits, 1.5).equal(logits)


@checked(max_examples=50, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 9), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
    penalty=st.floats(1, 5),
)
def test_it_does_what_transformers_does(
    tokens: list[int], seed: int, penalty: float
) -> None:
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(seed)) * 5
    drawn = torch.tensor([tokens])

    changed = penalised(drawn, logits, penalty)

    assert changed.equal(RepetitionPenaltyLogitsProcessor(penalty)(drawn, logits))


def test_the_step_uses_its_setting() -> None:
    step = Repetition(Repetition.Settings(penalty=2)).begin(a_turn(), 1)

    changed = step(torch.tensor([[1]]), torch.tensor([[4.0, 4.0]]))

    assert changed.tolist() == [[4.0, 2.0]]


@pytest.mark.parametrize("penalty", [0.9, 5.1])
def test_a_penalty_out_of_bounds_is_refused(penalty: float) -> None:
    with pytest.raises(ValidationError):
        Repetition.Settings(penalty=penalty)
