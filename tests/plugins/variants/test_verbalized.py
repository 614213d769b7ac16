"""Verbalized sampling: lists of replies in the forms in which models write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import PromptVariant
from bot.testing import a_candidate, a_turn
from bot.testing.contracts import PromptVariantContract
from plugins.variants.verbalized import Item, Verbalized, listed


class TestVerbalizedKeepsTheContract(PromptVariantContract):
    @pytest.fixture
    def subject(self) -> PromptVariant:
        return Verbalized(Verbalized.Settings())


def texts(written: str, *, cut: bool = False) -> list[str]:
    return [item.text for item in listed(written, cut=cut)]


@pytest.mark.parametrize(
    "written",
    [
        "1. Five days. (0.6)\n2. Within a week. (0.4)",
        "1) Five days. (probability: 0.6)\n2) Within a week. (probability: 0.4)",
        "(1) Five days. [60%]\n(2) Within a week. [40 %]",
        "- Five days. - 0.6\n- Within a week. - 0.4",
        "* (0.6) Five days.\n* (0.4) Within a week.",
        "• Five days. | p=0.6\n• Within a week. | p=0.4",
        "1. Five days.\n   Probability: 0.6\n\n2. Within a week.\n   Probability: 0.4",
        "Reply 1: Five days. (0.6)\nReply 2: Within a week. (0.4)",
        '**1.** "Five days." (0.6)\n**2.** “Within a week.” (0.4)',
        "Sure! Here they are:\n\n1. Five days. (0.6)\n2. Within a week. (0.4)",
        """[{"text": "Five days.", "probability": 0.6},
            {"text": "Within a week.", "probability": 0.4}]""",
        """{"responses": [{"response": "Five days.", "prob": "60%"},
            {"response": "Within a week.", "prob": "40%"}]}""",
        """<response><text>Five days.</text><probability>0.6</probability></response>
        <response><text>Within a week.</text><probability>0.4</probability></response>
        """,
    ],
)
def test_a_list_with_probabilities_is_taken_apart(written: str) -> None:
    assert listed(written) == [Item("Five days.", 0.6), Item("Within a week.", 0.4)]


@pytest.mark.parametrize(
    "written",
    [
        "1. Five days.\n2. Within a week.",
        "- Five days.\n\n- Within\n  a week.",
        '["Five days.", "Within a week."]',
        '```json\n["Five days.",\n"Within a week."]\n```',
    ],
)
def test_a_list_without_probabilities_keeps_its_order(written: str) -> None:
    assert listed(written) == [Item("Five days."), Item("Within a week.")]


def test_stated_probabilities_order_the_replies() -> None:
    assert texts("1. Red. (0.2)\n2. Blue. (0.5)\n3. Green. (0.3)") == [
        "Blue.",
        "Green.",
        "Red.",
    ]


def test_a_reply_that_was_cut_is_left_out() -> None:
    assert texts("1. Red. (0.2)\n2. Blue is the col", cut=True) == ["Red."]
    assert texts("1. Red.\n2. Blue.\n3. Gre", cut=True) == ["Red.", "Blue."]
    assert texts('["Red.", "Blue.", "Gre', cut=True) == ["Red.", "Blue."]
    assert texts("<text>Red.</text><text>Gre", cut=True) == ["Red."]


def test_a_last_reply_whose_probability_was_written_is_whole() -> None:
    assert texts("1. Red. (0.5)\n2. Blue. (0.4)", cut=True) == ["Red.", "Blue."]


def test_numbers_that_belong_to_the_reply_stay() -> None:
    assert texts("1. It costs 0.5.\n2. It is 50% off (0.5 l)") == [
        "It costs 0.5.",
        "It is 50% off (0.5 l)",
    ]
    # Not every item ends so: it is no probability.
    assert texts("1. Save now (50%)\n2. Save later\n3. Never")[0] == "Save now (50%)"


def test_equal_replies_are_listed_once() -> None:
    assert texts("1. Red.\n2. Red.\n3. Blue.") == ["Red.", "Blue."]


def test_chinese_is_read_as_well() -> None:
    written = "1. 需要五天。(0.7)\n2. 一周之内。(0.3)"

    assert listed(written) == [Item("需要五天。", 0.7), Item("一周之内。", 0.3)]


def test_escapes_in_json_are_undone() -> None:
    assert texts(r'[{"text": "He said \"no\".\nTwice."}]') == ['He said "no".\nTwice.']
    assert texts(r'["\ud83d\ude00 Yes.", "No."]') == ["😀 Yes.", "No."]


def test_an_escape_that_spells_no_character_is_left_out() -> None:
    # Half a surrogate pair cannot be sent, nor stored; nor can a null.
    assert texts(r'["Y\ud83des.", "\udfff", "N\u0000o."]') == ["Yes.", "No."]


def test_candidates_have_nothing_of_the_lists_tokens() -> None:
    written = a_candidate(
        "1. Red. (0.6)\n2. Blue. (0.4)",
        tokens=(1, 2),
        log_probs=(-1.0, -2.0),
        certainties=(3.0, 4.0),
        finish="length",
        variant="verbalized",
    )

    found = Verbalized(Verbalized.Settings()).read(a_turn(), written)

    assert [one.text for one in found] == ["Red.", "Blue."]
    for one in found:
        assert (one.tokens, one.log_probs, one.certainties) == ((), (), ())
        assert (one.finish, one.variant) == ("stop", "verbalized")


def test_a_text_that_is_no_list_is_one_reply_as_it_was_written() -> None:
    verbalized = Verbalized(Verbalized.Settings())
    written = a_candidate("It takes\nfive days.", log_probs=(-1.0,), finish="length")

    assert verbalized.read(a_turn(), written) == [written]
    assert verbalized.read(a_turn(), a_candidate(" \n")) == []


def test_no_more_replies_are_read_than_were_asked_for() -> None:
    verbalized = Verbalized(Verbalized.Settings(replies=2))

    found = verbalized.read(a_turn(), a_candidate("1. Red\n2. Blue\n3. Green"))

    assert [one.text for one in found] == ["Red", "Blue"]
    assert "2 different replies" in verbalized.instruction(a_turn())
    assert verbalized.replies == 2


@settings(deadline=None)
@given(
    st.lists(
        st.from_regex(r"[A-Za-z][a-z ]{0,20}[a-z]\.", fullmatch=True),
        min_size=2,
        max_size=9,
        unique=True,
    )
)
def test_a_numbered_list_comes_back(replies: list[str]) -> None:
    written = "\n".join(f"{n}. {reply}" for n, reply in enumerate(replies, 1))

    assert texts(written) == replies


@settings(deadline=None)
@given(st.text(alphabet='[]{}"\\<text>/():0.5% -*\n1a是', max_size=120), st.booleans())
def test_whatever_was_written_replies_have_text(written: str, cut: bool) -> None:
    assert all(item.text.strip() for item in listed(written, cut=cut))


@pytest.mark.parametrize("bad", [0, 1, 21])
def test_a_number_of_replies_out_of_bounds_is_refused(bad: int) -> None:
    with pytest.raises(ValidationError):
        Verbalized.Settings(replies=bad)
