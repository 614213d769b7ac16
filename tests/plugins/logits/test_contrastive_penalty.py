"""contrastive-penalty: what a token costs where the situation was met before."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from bot.interfaces import LogitsProcessor
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.contrastive_penalty import (
    ContrastivePenalty,
    ContrastivePenaltyStep,
    expectation,
    origins,
)


class TestContrastivePenaltyKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return ContrastivePenalty(ContrastivePenalty.Settings())


def costs(
    step: ContrastivePenaltyStep, tokens: list[list[int]], logits: list[list[float]]
) -> Tensor:
    given_ = torch.tensor(logits)
    return given_ - step(torch.tensor(tokens).long(), given_)


def test_the_expectation_is_measured_from_the_least_and_of_length_one() -> None:
    # 5, 3, 2 are the largest: 3, 1, 0 above the least, of length √10.
    ids, values = expectation(torch.tensor([[2.0, 5.0, 3.0, -9.0]]), 3)

    assert ids.tolist() == [[1, 2, 0]]
    assert values[0].tolist() == pytest.approx([3 / 10**0.5, 1 / 10**0.5, 0])


def test_a_token_costs_alpha_in_the_same_situation() -> None:
    step = ContrastivePenaltyStep(2.0, 8, 3)
    costs(step, [[]], [[4.0, 1.0, 0.0, 0.0]])

    again = costs(step, [[0]], [[4.0, 1.0, 0.0, 0.0]])

    assert again[0].tolist() == pytest.approx([2, 0, 0, 0])


def test_it_costs_by_the_cosine_in_a_similar_one_and_nothing_in_another() -> None:
    # (4, 1, 0) and (1, 4, 0): cos = (4 + 4) / 17. Of (0, 0, 3, 0) it is 0.
    similar = ContrastivePenaltyStep(1.0, 8, 3)
    other = ContrastivePenaltyStep(1.0, 8, 3)
    for step in (similar, other):
        costs(step, [[]], [[4.0, 1.0, 0.0, 0.0]])

    close = costs(similar, [[0]], [[1.0, 4.0, 0.0, 0.0]])
    far = costs(other, [[0]], [[0.0, 0.0, 3.0, 0.0]])

    assert close[0].tolist() == pytest.approx([8 / 17, 0, 0, 0])
    assert far[0].tolist() == [0, 0, 0, 0]


def test_of_several_draws_of_a_token_the_likest_counts() -> None:
    step = ContrastivePenaltyStep(1.0, 8, 3)
    costs(step, [[]], [[4.0, 1.0, 0.0, 0.0]])
    costs(step, [[0]], [[0.0, 0.0, 3.0, 0.0]])

    third = costs(step, [[0, 0]], [[4.0, 1.0, 0.0, 0.0]])

    assert third[0].tolist() == pytest.approx([1, 0, 0, 0])


def test_what_lies_before_the_window_is_forgotten() -> None:
    step = ContrastivePenaltyStep(1.0, 1, 3)
    costs(step, [[]], [[4.0, 1.0, 0.0, 0.0]])
    costs(step, [[0]], [[0.0, 0.0, 3.0, 0.0]])

    third = costs(step, [[0, 1]], [[4.0, 1.0, 0.0, 0.0]])

    assert third[0].tolist() == [0, 0, 0, 0]


def test_rows_that_change_places_take_their_past_along() -> None:
    step = ContrastivePenaltyStep(1.0, 8, 3)
    one, other = [4.0, 1.0, 0.0, 0.0], [0.0, 0.0, 3.0, 1.0]
    costs(step, [[], []], [one, one])
    costs(step, [[0], [1]], [one, other])

    # Both go on from row 1, as beams would: it drew 1 after `one`, 2 after `other`.
    swapped = costs(step, [[1, 2], [1, 3]], [other, one])

    assert swapped[0].tolist() == pytest.approx([0, 0, 1, 0])
    assert swapped[1].tolist() == pytest.approx([0, 1, 0, 0])


def test_a_row_that_nobody_knows_begins_without_a_past() -> None:
    step = ContrastivePenaltyStep(1.0, 8, 3)
    costs(step, [[1]], [[4.0, 1.0, 0.0, 0.0]])

    unknown = costs(step, [[2, 0]], [[4.0, 1.0, 0.0, 0.0]])

    assert unknown[0].tolist() == [0, 0, 0, 0]


def test_a_row_that_kept_its_place_is_found_there() -> None:
    before = torch.tensor([[1], [1], [2]])

    parents, known = origins(before, torch.tensor([[1], [1], [3]]))

    assert parents.tolist()[:2] == [0, 1]
    assert known.tolist() == [True, True, False]


@pytest.mark.parametrize(
    "row",
    [
        [0.0, 0.0, 0.0, 0.0],
        [2.0, -math.inf, -math.inf, -math.inf],
        [1.0, 2.0, -math.inf, -math.inf],
    ],
)
def test_rows_without_contrast_bring_no_nan(row: list[float]) -> None:
    step = ContrastivePenaltyStep(1.0, 8, 3)
    logits = torch.tensor([row])

    for drawn in range(3):
        changed = step(torch.ones(1, drawn).long(), logits)

        assert not changed.isnan().any()
        assert changed.isfinite().equal(logits.isfinite())


@checked(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_token_costs_more_than_alpha_and_only_drawn_ones_cost(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    step = ContrastivePenaltyStep(1.5, 3, 4)
    tokens = torch.randint(0, 8, (2, 6), generator=generator)

    for length in range(7):
        logits = torch.randn(2, 8, generator=generator)
        cost = logits - step(tokens[:, :length], logits)
        assert (cost <= 1.5 + 1e-5).all()
        assert (cost >= -1e-6).all()
        for row in range(2):
            paid = set((cost[row] > 1e-6).nonzero().flatten().tolist())
            assert paid <= set(tokens[row, max(0, length - 3) : length].tolist())


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"window": 0}, {"largest": 1}])
def test_settings_out_of_bounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ContrastivePenalty.Settings.model_validate(wrong)
