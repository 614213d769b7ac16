"""Siblings by style: which variants there are, and what they say."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bot.interfaces import PromptVariant
from bot.testing import a_candidate, a_turn
from bot.testing.contracts import PromptVariantContract
from plugins.variants.styles import STYLES, Styles


class TestAStyleKeepsTheContract(PromptVariantContract):
    @pytest.fixture(params=STYLES)
    def subject(self, request: pytest.FixtureRequest) -> PromptVariant:
        variants = Styles(Styles.Settings()).prompt_variants()
        return next(each for each in variants if each.name == request.param)


def test_the_first_style_is_the_prompt_as_it_is() -> None:
    plain, *others = Styles(Styles.Settings()).prompt_variants()

    assert plain.instruction(a_turn()) == ""
    assert all(each.instruction(a_turn()) for each in others)


def test_styles_differ_in_name_and_instruction() -> None:
    variants = Styles(Styles.Settings()).prompt_variants()

    assert len({each.name for each in variants}) == len(variants)
    assert len({each.instruction(a_turn()) for each in variants}) == len(variants)


def test_the_operators_styles_take_the_place_of_ours_in_their_order() -> None:
    settings = Styles.Settings.model_validate(
        {"styles": {"warm": " Be warm. ", "bare": ""}}
    )

    variants = Styles(settings).prompt_variants()

    assert [each.name for each in variants] == ["warm", "bare"]
    assert [each.instruction(a_turn()) for each in variants] == ["Be warm.", ""]


def test_what_was_written_is_the_reply() -> None:
    [style, *_] = Styles(Styles.Settings()).prompt_variants()
    written = a_candidate("Five days.", log_probs=(-0.5,), tokens=(7,))

    assert style.read(a_turn(), written) == [written]
    assert style.replies == 1


@pytest.mark.parametrize(
    "styles", [{}, {"Not a name": "x"}, {"": "x"}, {"long": "x" * 501}]
)
def test_styles_that_cannot_be_used_are_refused(styles: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Styles.Settings.model_validate({"styles": styles})
