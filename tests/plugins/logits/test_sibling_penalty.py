"""sibling-penalty: who pays for whose tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import LogitsProcessor
from bot.testing import FakeVocabulary, a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.sibling_penalty import (
    SiblingPenalty,
    SiblingPenaltyStep,
    counting,
    drawn_by_others,
)


class TestSiblingPenaltyKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return SiblingPenalty(SiblingPenalty.Settings())


def a_step(
    strength: float = 1.0, window: int = 2, end_tokens: tuple[int, ...] = ()
) -> SiblingPenaltyStep:
    step = SiblingPenaltyStep(strength, window, end_tokens)
    step(torch.zeros(3, 0).long(), torch.zeros(3, 6))
    return step


def costs(step: SiblingPenaltyStep, tokens: list[list[int]]) -> list[list[float]]:
    return (-step(torch.tensor(tokens).long(), torch.zeros(len(tokens), 6))).tolist()


def test_a_token_costs_for_each_other_sibling_that_drew_it() -> None:
    # Token 1: drawn by rows 0 and 1. Token 2: by row 2.
    assert costs(a_step(strength=0.5), [[1], [1], [2]]) == [
        [0, 0.5, 0.5, 0, 0, 0],
        [0, 0.5, 0.5, 0, 0, 0],
        [0, 1.0, 0, 0, 0, 0],
    ]


def test_only_the_last_positions_count() -> None:
    step = a_step(window=2)

    assert costs(step, [[1, 2, 3], [4, 5, 0]])[1] == [0, 0, 1, 1, 0, 0]


def test_a_sibling_counts_once_for_a_token() -> None:
    assert costs(a_step(window=3), [[1, 2, 1], [3, 4, 5]])[1] == [0, 1, 1, 0, 0, 0]


def test_a_single_sibling_pays_nothing() -> None:
    assert costs(a_step(), [[1, 2]]) == [[0, 0, 0, 0, 0, 0]]


def test_what_all_were_given_does_not_count() -> None:
    step = SiblingPenaltyStep(1.0, 4, ())
    step(torch.tensor([[1, 2], [1, 2]]), torch.zeros(2, 6))

    assert costs(step, [[1, 2, 3], [1, 2, 4]]) == [
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0],
    ]


def test_a_sibling_that_has_ended_does_not_keep_others_from_ending() -> None:
    plugin = SiblingPenalty(SiblingPenalty.Settings(strength=1, window=3))
    plugin.read_vocabulary(FakeVocabulary(["", "a", "b"], end_tokens=[0]))
    step = plugin.begin(a_turn(), 2)
    step(torch.zeros(2, 0).long(), torch.zeros(2, 3))

    once = step(torch.tensor([[1, 2, 0], [1, 1, 2]]), torch.zeros(2, 3))
    later = step(torch.tensor([[1, 2, 0, 0], [1, 1, 2, 1]]), torch.zeros(2, 3))

    # Of the sibling's 2 and 1 the window of three holds both, then the 2 alone.
    assert (-once[1]).tolist() == [0, 1, 1]
    assert (-later[1]).tolist() == [0, 0, 1]


def test_without_a_vocabulary_what_fills_up_an_ended_sibling_does_not_count() -> None:
    recent = counting(torch.tensor([[1, 2, 0, 0, 0], [1, 2, 3, 4, 5]]), 4, ())

    ids, others = drawn_by_others(recent)

    assert ids.tolist() == [2, 3, 4, 5]
    assert others.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]


@checked(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    window=st.integers(1, 5),
    length=st.integers(0, 8),
)
def test_the_cost_is_strength_times_the_others_that_drew_it(
    seed: int, window: int, length: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 6, (3, length), generator=generator)
    # Without immediate repeats, which are taken for filling.
    tokens = torch.stack([tokens, torch.zeros_like(tokens)], 2).reshape(3, -1)
    rows = [set(row[-window:]) - {0} for row in tokens.tolist()]

    found = costs(a_step(0.25, window, (0,)), tokens.tolist())

    assert found == [
        [
            0.25 * sum(v in other for j, other in enumerate(rows) if j != i)
            for v in range(6)
        ]
        for i in range(3)
    ]


@pytest.mark.parametrize("wrong", [{"strength": -1}, {"window": 0}, {"window": 65}])
def test_settings_out_of_bounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        SiblingPenalty.Settings.model_validate(wrong)
