"""typical: what it keeps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers.generation.logits_process import TypicalLogitsWarper

from bot.interfaces import LogitsProcessor
from bot.testing import a_turn
from bot.testing.contracts import LogitsProcessorContract
from plugins.logits.typical import Typical, without_untypical


class TestTypicalKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return Typical(Typical.Settings())


def test_the_surprise_nearest_to_the_entropy_stays() -> None:
    # H = -(.5 ln .5 + .25 ln .25 + .15 ln .15 + .1 ln .1) = 1.208.
    # |-ln p - H| = .515, .178, .689, 1.095: .25 comes first, then .5 reaches 0.7.
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()

    kept = without_untypical(logits, 0.7).isfinite()

    assert kept.tolist() == [[True, True, False, False]]


def test_the_likeliest_token_goes_where_another_is_typical_enough() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()

    kept = without_untypical(logits, 0.2).isfinite()

    assert kept.tolist() == [[False, True, False, False]]
    assert Typical.changes_argmax


def test_of_equally_typical_tokens_none_is_preferred() -> None:
    logits = torch.zeros(1, 8)

    assert without_untypical(logits, 0.1).equal(logits)


def test_impossible_tokens_stay_impossible_and_bring_no_nan() -> None:
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf], [1.0, 1.0, -torch.inf]])

    assert without_untypical(logits, 0.9).equal(logits)


@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("mass", [0.1, 0.5, 0.9, 0.999])
def test_it_keeps_what_transformers_keeps(spread: float, mass: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 3000, generator=generator) * spread
    logits[:, ::7] = -torch.inf

    ours = without_untypical(logits, mass)

    theirs = TypicalLogitsWarper(mass=mass)(torch.zeros(4, 0).long(), logits)
    # They sum in another order, so the last token kept may be one further on.
    assert (ours.isfinite() != theirs.isfinite()).sum(dim=1).max() <= 1


@checked(max_examples=50, deadline=None)
@given(
    row=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20),
    mass=st.floats(0.01, 0.99),
)
def test_what_is_kept_is_unchanged_and_reaches_the_mass(
    row: list[float], mass: float
) -> None:
    logits = torch.tensor([row])

    kept = without_untypical(logits, mass)

    finite = kept.isfinite()
    assert kept[finite].equal(logits[finite])
    assert logits.double().softmax(dim=1)[finite].sum() >= mass - 1e-5


def test_the_step_uses_its_setting() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    tokens = torch.zeros(1, 0).long()

    wide = Typical(Typical.Settings(mass=0.99)).begin(a_turn(), 1)(tokens, logits)
    narrow = Typical(Typical.Settings(mass=0.2)).begin(a_turn(), 1)(tokens, logits)

    assert [int(each.isfinite().sum()) for each in (wide, narrow)] == [4, 1]


@pytest.mark.parametrize("mass", [0, 1, -0.1])
def test_a_mass_out_of_bounds_is_refused(mass: float) -> None:
    with pytest.raises(ValidationError):
        Typical.Settings(mass=mass)
