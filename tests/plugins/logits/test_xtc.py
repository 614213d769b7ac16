"""xtc: which top choices go, how often, and by whose luck."""

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
from plugins.logits.xtc import Xtc, without_obvious

ALWAYS = torch.tensor([True])
NONE_DRAWN = torch.zeros(1, 0).long()


class TestXtcKeepsTheContract(LogitsProcessorContract):
    @pytest.fixture
    def subject(self) -> LogitsProcessor:
        return Xtc(Xtc.Settings(probability=1))


def test_all_obvious_tokens_go_but_the_least_likely_of_them() -> None:
    logits = torch.tensor([[0.05, 0.5, 0.15, 0.3]]).log()

    kept = without_obvious(logits, ALWAYS, 0.1).isfinite()

    assert kept.tolist() == [[True, False, True, False]]


def test_a_single_obvious_token_stays() -> None:
    logits = torch.tensor([[0.9, 0.05, 0.05]]).log()

    assert without_obvious(logits, ALWAYS, 0.1).equal(logits)


def test_where_nothing_is_obvious_nothing_goes() -> None:
    logits = torch.zeros(1, 30)

    assert without_obvious(logits, ALWAYS, 0.1).equal(logits)


def test_of_equally_likely_tokens_one_stays() -> None:
    logits = torch.tensor([[0.25, 0.25, 0.25, 0.25]]).log()

    kept = without_obvious(logits, ALWAYS, 0.1).isfinite()

    assert kept.tolist() == [[True, False, False, False]]


def test_rows_without_luck_stay_as_they_are() -> None:
    logits = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()

    kept = without_obvious(logits, torch.tensor([False, True]), 0.1).isfinite()

    assert kept.tolist() == [[True, True], [False, True]]


def test_a_token_that_ends_the_reply_is_never_removed() -> None:
    xtc = Xtc(Xtc.Settings(probability=1))
    xtc.read_vocabulary(FakeVocabulary(["", "a", "b"], end_tokens=[0]))
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()

    kept = xtc.begin(a_turn(), 1)(NONE_DRAWN, logits).isfinite()

    assert kept.tolist() == [[True, False, True]]


def test_it_removes_about_as_often_as_it_is_told() -> None:
    step = Xtc(Xtc.Settings(probability=0.3)).begin(a_turn(), 2000)
    logits = torch.tensor([[0.6, 0.4]]).log().repeat(2000, 1)

    removed = step(torch.zeros(2000, 0).long(), logits)[:, 0].isneginf()

    # Four standard deviations: 4 · √(.3 · .7 / 2000) = 0.041.
    assert removed.float().mean().item() == pytest.approx(0.3, abs=0.041)


def test_the_turn_decides_alone_what_luck_brings() -> None:
    logits = torch.tensor([[0.6, 0.4]]).log().repeat(32, 1)
    tokens = torch.zeros(32, 0).long()
    xtc = Xtc(Xtc.Settings())

    one, again, other = (
        xtc.begin(a_turn(seed=seed), 32)(tokens, logits) for seed in (-1, -1, 2**70)
    )

    assert one.equal(again)
    assert not one.equal(other)


@checked(max_examples=50, deadline=None)
@given(
    row=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=20),
    threshold=st.floats(0.001, 0.5),
)
def test_only_obvious_tokens_go_and_one_of_them_stays(
    row: list[float], threshold: float
) -> None:
    logits = torch.tensor([row])
    probs = logits.double().softmax(dim=1)

    kept = without_obvious(logits, ALWAYS, threshold).isfinite()

    assert (probs[~kept] >= threshold * 0.999).all()
    if not kept.all():
        assert (probs[kept] >= threshold * 0.999).any()
    assert int((kept & (probs > threshold * 1.001)).sum()) <= 1


@pytest.mark.parametrize(
    "wrong", [{"probability": 1.1}, {"threshold": 0}, {"threshold": 0.51}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Xtc.Settings.model_validate(wrong)
