"""dry: what it costs to lengthen a repeat."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.errors import PluginError
from bot.interfaces import LogitsProcessor
from bot.testing import FakeVocabulary, a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.dry import LONGEST, Dry, DryStep, breaking, repeats


class TestDryKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        dry = Dry(Dry.Settings(breakers=(",",), allowed_length=1))
        dry.read_vocabulary(FakeVocabulary())
        return dry


def a_step(allowed_length: int = 2, breaks: tuple[int, ...] = ()) -> DryStep:
    return DryStep(
        multiplier=0.5,
        base=2.0,
        allowed_length=allowed_length,
        breaks=torch.tensor(breaks).long(),
    )


def costs(step: DryStep, row: list[int]) -> list[float]:
    return (-step(torch.tensor([row]).long(), torch.zeros(1, 6)))[0].tolist()


def test_the_cost_grows_with_the_repeat_that_would_be_lengthened() -> None:
    # 1 2 3 stood before the first 4: n = 3, so 0.5 · 2^(3 - 2) = 1.
    assert costs(a_step(), [1, 2, 3, 4, 1, 2, 3]) == [0, 0, 0, 0, 1.0, 0]


def test_a_repeat_of_the_allowed_length_costs_the_multiplier() -> None:
    assert costs(a_step(), [2, 3, 4, 2, 3]) == [0, 0, 0, 0, 0.5, 0]


def test_a_shorter_repeat_costs_nothing() -> None:
    assert costs(a_step(), [3, 4, 2, 3]) == [0, 0, 0, 0, 0, 0]


def test_of_two_repeats_the_longer_one_counts() -> None:
    # 4 followed 2 3 (n = 2) and 1 2 3 (n = 3); 5 followed nothing of it.
    assert costs(a_step(), [1, 2, 3, 4, 2, 3, 4, 5, 1, 2, 3]) == [0, 0, 0, 0, 1.0, 0]


def test_a_row_that_says_one_token_over_and_over_pays_more_each_time() -> None:
    # n = 1, 2, 3: the repeat overlaps itself.
    found = [costs(a_step(1), [3] * drawn)[3] for drawn in (1, 2, 3, 4)]

    assert found == [0, 0.5, 1.0, 2.0]


def test_a_repeat_ends_at_a_breaker_and_breakers_cost_nothing() -> None:
    # With 2 as a breaker only the 3 behind it repeats: n = 1.
    assert costs(a_step(1, (2,)), [1, 2, 3, 4, 1, 2, 3]) == [0, 0, 0, 0, 0.5, 0]
    assert costs(a_step(1, (4,)), [1, 2, 3, 4, 1, 2, 3]) == [0, 0, 0, 0, 0, 0]
    assert costs(a_step(1, (3,)), [1, 2, 3, 4, 1, 2, 3]) == [0, 0, 0, 0, 0, 0]


def test_breakers_are_found_in_what_tokens_say() -> None:
    vocabulary = FakeVocabulary(["", "a", ": ", "x:y", "\n"])

    assert breaking(vocabulary, (":", "\n")).tolist() == [2, 3, 4]


def test_an_empty_row_is_left_alone() -> None:
    assert costs(a_step(), []) == [0, 0, 0, 0, 0, 0]


def test_a_long_loop_stays_finite() -> None:
    settings = Dry.Settings(multiplier=100, base=4, allowed_length=1, breakers=())
    step = Dry(settings).begin(a_turn(), 1)

    changed = step(torch.ones(1, 500).long(), torch.zeros(1, 3))

    assert changed.isfinite().all()
    assert changed[0, 1] < -1e20


@checked(max_examples=100, deadline=None)
@given(row=st.lists(st.integers(0, 2), max_size=70))
def test_repeats_are_as_long_as_they_look(row: list[int]) -> None:
    tokens = torch.tensor([row]).long()

    found = repeats(tokens, tokens == 2)

    assert found[0].tolist() == [naive_repeat(row, at) for at in range(len(row) - 1)]


def naive_repeat(row: list[int], at: int) -> int:
    length = 0
    while (
        length <= at
        and length < LONGEST
        and row[at - length] == row[len(row) - 1 - length] != 2
    ):
        length += 1
    return length


def test_breakers_without_a_vocabulary_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PluginError, match="set breakers to"):
        Dry(Dry.Settings()).begin(a_turn(), 1)


def test_without_breakers_no_vocabulary_is_needed() -> None:
    step = Dry(Dry.Settings(breakers=())).begin(a_turn(), 1)

    changed = step(torch.tensor([[1, 2, 1, 2, 1, 2]]), torch.zeros(1, 3))

    # n = 4: 0.8 · 1.75^2 = 2.45
    assert changed[0].tolist() == pytest.approx([0, -2.45, 0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"multiplier": -1},
        {"base": 0.9},
        {"allowed_length": 0},
        {"breakers": [""]},
        {"breakers": ["."] * 101},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Dry.Settings.model_validate(wrong)
