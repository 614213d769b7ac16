"""min-p: what it removes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.interfaces import LogitsProcessor
from bot.testing import a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.min_p import MinP, without_improbable


class TestMinPKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return MinP(MinP.Settings())


def test_tokens_below_the_share_of_the_top_are_removed() -> None:
    # The floor is 0.1 · 0.6 = 0.06.
    logits = torch.tensor([[0.6, 0.3, 0.07, 0.03]]).log()

    kept = without_improbable(logits, 0.1).isfinite()

    assert kept.tolist() == [[True, True, True, False]]


def test_a_sure_row_loses_more_than_an_unsure_one() -> None:
    sure, unsure = [0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]
    step = MinP(MinP.Settings(minimum=0.05)).begin(a_turn(), 2)

    kept = step(torch.zeros(2, 0).long(), torch.tensor([sure, unsure]).log())

    assert kept.isfinite().sum(dim=1).tolist() == [1, 4]


def test_a_minimum_of_one_keeps_the_likeliest_alone() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0]])

    assert without_improbable(logits, 1).isfinite().tolist() == [[False, True, False]]


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20),
    minimum=st.floats(0.001, 1),
)
def test_what_is_kept_is_unchanged_and_probable_enough(
    logits: list[float], minimum: float
) -> None:
    row = torch.tensor([logits])
    chances = row.double().softmax(dim=-1)

    kept = without_improbable(row, minimum)

    finite = kept.isfinite()
    assert kept[finite].equal(row[finite])
    # Half a per cent of slack: the floor is computed in float32.
    assert (chances[finite] >= 0.995 * minimum * chances.max()).all()
    assert (chances[~finite] <= 1.005 * minimum * chances.max()).all()
