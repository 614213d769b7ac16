"""entropy-temperature and temperature-ladder: which temperature a row gets."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.distributions import entropy
from bot.interfaces import LogitsProcessor
from bot.testing import a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.entropy_temperature import EntropyTemperature
from plugins.logits.temperature_ladder import TemperatureLadder, ladder


class TestEntropyTemperatureKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return EntropyTemperature(EntropyTemperature.Settings())


class TestTemperatureLadderKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return TemperatureLadder(TemperatureLadder.Settings())


def temperature_of(changed: torch.Tensor, logits: torch.Tensor) -> list[float]:
    """Return what each row was divided by, from its first two logits."""
    before, after = (each[:, 0] - each[:, 1] for each in (logits, changed))
    return (before / after).tolist()


def adapted(logits: torch.Tensor, **settings: float) -> torch.Tensor:
    plugin = EntropyTemperature(EntropyTemperature.Settings(**settings))
    return plugin.begin(a_turn(), len(logits))(torch.zeros(1, 0).long(), logits)


def test_the_entropy_is_in_nats_and_impossible_tokens_add_nothing() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -torch.inf, -torch.inf]])

    found = entropy(logits.log_softmax(dim=-1)).flatten().tolist()

    assert found == pytest.approx([math.log(4), math.log(2)])


def test_the_temperature_is_the_papers() -> None:
    # H = -(.75 ln .75 + .25 ln .25) = 0.5623; T = 1.2 · 0.8^(0.5 / 0.5623) = 0.9840.
    logits = torch.tensor([[0.75, 0.25]]).log()

    changed = adapted(logits, temperature=1.2, theta=0.5, base=0.8)

    assert temperature_of(changed, logits) == pytest.approx([0.9840], abs=1e-4)


def test_a_sure_model_gets_the_lowest_temperature() -> None:
    logits = torch.tensor([[20.0, 0.0, 0.0]])

    changed = adapted(logits, lowest=0.25)

    assert temperature_of(changed, logits) == pytest.approx([0.25])


def test_a_row_with_one_token_left_stays_possible() -> None:
    changed = adapted(torch.tensor([[3.0, -torch.inf, -torch.inf]]))

    assert changed.isfinite().tolist() == [[True, False, False]]
    assert not changed.isnan().any()


def test_without_theta_the_temperature_is_fixed() -> None:
    logits = torch.tensor([[5.0, 1.0], [1.0, 0.9]])

    changed = adapted(logits, temperature=2, theta=0)

    assert temperature_of(changed, logits) == pytest.approx([2, 2])


@checked(max_examples=50, deadline=None)
@given(row=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=20))
def test_the_temperature_stays_between_its_bounds(row: list[float]) -> None:
    logits = torch.tensor([row])
    logits[0, 1] = logits[0, 0] + 1

    changed = adapted(logits, temperature=1.5, lowest=0.5)

    [found] = temperature_of(changed, logits)
    assert 0.499 <= found <= 1.501


def test_siblings_get_temperatures_in_equal_ratios() -> None:
    # 0.5 · 4^(i/2)
    assert ladder(3, 0.5, 2.0, "geometric").tolist() == pytest.approx([0.5, 1.0, 2.0])


def test_siblings_get_temperatures_in_equal_differences() -> None:
    assert ladder(3, 0.5, 2.0, "linear").tolist() == pytest.approx([0.5, 1.25, 2.0])


def test_a_single_sibling_is_the_cautious_one() -> None:
    assert ladder(1, 0.5, 2.0, "geometric").tolist() == [0.5]


@pytest.mark.parametrize("spacing", ["geometric", "linear"])
def test_each_row_is_divided_by_its_own_temperature(spacing: str) -> None:
    settings = TemperatureLadder.Settings.model_validate(
        {"lowest": 0.5, "highest": 1.5, "spacing": spacing}
    )
    logits = torch.tensor([[4.0, 1.0]]).repeat(2, 1)

    step = TemperatureLadder(settings).begin(a_turn(), 2)

    changed = step(torch.zeros(2, 0).long(), logits)
    assert temperature_of(changed, logits) == pytest.approx([0.5, 1.5])


@given(rungs=st.integers(1, 64), lowest=st.floats(0.01, 5), highest=st.floats(0.01, 5))
def test_a_ladder_never_descends_and_ends_where_it_should(
    rungs: int, lowest: float, highest: float
) -> None:
    lowest, highest = sorted((lowest, highest))

    for spacing in ("geometric", "linear"):
        found = ladder(rungs, lowest, highest, spacing)
        assert (found.diff() >= -1e-6).all()
        assert found[0].item() == pytest.approx(lowest)
        assert rungs == 1 or found[-1].item() == pytest.approx(highest)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0},
        {"theta": -1},
        {"base": 1},
        {"lowest": 0},
        {"lowest": 2, "temperature": 1},
    ],
)
def test_wrong_settings_of_entropy_temperature_are_refused(
    wrong: dict[str, float],
) -> None:
    with pytest.raises(ValidationError):
        EntropyTemperature.Settings.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"lowest": 0}, {"highest": 6}, {"lowest": 2, "highest": 1}, {"spacing": "none"}],
)
def test_wrong_settings_of_temperature_ladder_are_refused(
    wrong: dict[str, object],
) -> None:
    with pytest.raises(ValidationError):
        TemperatureLadder.Settings.model_validate(wrong)
