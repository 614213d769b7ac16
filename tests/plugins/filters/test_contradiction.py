# ruff: noqa: RUF001 - Chinese marks and typographic ones are meant
"""The filter of numbers: which are made up, and which only look different."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.interfaces import CandidateFilter
from bot.model import Verdict
from bot.testing import a_candidate, a_passage, a_tools, a_turn, an_event
from bot.testing.contracts import CandidateFilterContract
from plugins.filters.contradiction import Contradiction, numbers


class TestContradictionKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return Contradiction(Contradiction.Settings())


def verdict(
    passage: str, text: str, question: str = "?", **settings: object
) -> Verdict:
    subject = Contradiction(Contradiction.Settings.model_validate(settings))
    [found] = subject.keep(a_turn(question, [passage]), [a_candidate(text)], a_tools())
    return found


@pytest.mark.parametrize(
    ("passage", "text", "shown"),
    [
        ("Refunds take five days.", "Refunds take 7 days.", "7"),
        ("Refunds take 5 days.", "Refunds take seven days.", "seven"),
        ("It costs 1,000 euros.", "It costs 1,100 euros.", "1,100"),
        ("It costs $4.90.", "It costs $4.99.", "4.99"),
        ("The discount is 20%.", "The discount is 25%.", "25"),
        ("Open from 8 am to 8 pm.", "It opens at 7 am.", "7 am"),
        ("Open at 10:30.", "It opens at 10:45.", "10:45"),
        ("Founded on 5 March 2019.", "It was founded on 5 April 2019.", "April"),
        ("Founded on 2019-03-05.", "It was founded on March 6, 2019.", "6"),
        ("Founded in 2019.", "It was founded in 2018.", "2018"),
        ("Take 3 to 5 pills.", "Take 3-6 pills.", "6"),
        ("退款需要五天。", "退款需要七天。", "七"),
        ("退款需要5天。", "退款需要7天。", "7"),
        ("价格是两千元。", "价格是三千元。", "三千"),
        ("Two and a half million people.", "About 4 million people.", "4 million"),
    ],
)
def test_a_number_that_stands_nowhere_is_dropped(
    passage: str, text: str, shown: str
) -> None:
    assert verdict(passage, text).why.startswith(f"says {shown!r}")


def test_the_reason_does_not_name_what_may_be_somebodys_number() -> None:
    found = verdict("Call 030 1234567.", "Call 030 1234568.")

    assert found.why == "says a number of 7 digits, which no passage does"


def test_the_reason_names_the_number() -> None:
    assert verdict("It takes 5 days.", "It takes 7 days.") == Verdict(
        kept=False, why="says '7', which no passage does"
    )


@pytest.mark.parametrize(
    ("passage", "text"),
    [
        ("Refunds take five days.", "Refunds take 5 days."),
        ("It costs 1000 euros.", "It costs 1,000 euros, 1.000 euros or 1 000 euros."),
        ("It costs 2500 euros.", "It costs two thousand five hundred euros."),
        ("It costs 2.5 million.", "It costs 2,500,000."),
        ("It costs 3,50 Euro.", "It costs 3.50 euros."),
        ("It costs 3.5 euros.", "It costs 3.50 euros."),
        ("The 25th floor.", "The twenty-fifth floor or twenty five or 25."),
        ("Open from 3 pm.", "It opens at 15:00, or 3:00 p.m."),
        ("Open from 3 to 5 pm.", "It is open from 3 pm to 5 pm."),
        ("Open 8AM-8PM.", "From 8:00 am to 8 in the evening."),
        (
            "Founded 2019-03-05.",
            "On the 5th of March 2019, or 05/03/2019, or 3/5/2019.",
        ),
        ("Founded 05.03.2019.", "On March 5, 2019."),
        ("Call (030) 123-4567.", "Call +49 30 1234567."),
        ("Call +49 30 1234567.", "Call 030/1234567."),
        ("退款需要五天。", "退款需要5天。"),
        ("成立于二〇一九年三月。", "成立于2019年3月。"),
        ("价格是一万二千元。", "价格是12000元。"),
        ("Version 3.5.1 is out.", "The version is 3.5.1."),
        ("Half of it.", "It is 50% or 0.5."),
    ],
)
def test_the_same_number_in_another_dress_is_kept(passage: str, text: str) -> None:
    assert verdict(passage, text) == Verdict(kept=True)


@pytest.mark.parametrize(
    "text",
    [
        "1. Open the door.\n2. Close the door.\n10) Go.",
        "First, open it; second, close it. One of the two will do.",
        "Print it on A4 or play it as an MP3 on an iPhone15.",
        "It may be so. We march on.",
        "We are there 24/7, and 100 % sure.",
        "As passage [2] says, see step 3.",
        "这是十分重要的，一些人万一不知道。",
        "No numbers at all 👍",
        "",
    ],
)
def test_what_only_looks_like_a_number_is_no_claim(text: str) -> None:
    assert verdict("Refunds are possible.", text).kept


def test_numbers_of_the_question_the_history_the_headings_and_slots_are_known() -> None:
    turn = a_turn(
        "Is 17 enough?",
        [a_passage("It is.", title="Plan 23", headings=("29 rules",))],
        history=(an_event("I have 31."), an_event("Or 37.", "reply")),
        slots={"order": 4711},
    )
    candidates = [a_candidate("17, 23, 29, 31, 37, 4711."), a_candidate("41.")]

    verdicts = Contradiction(Contradiction.Settings()).keep(turn, candidates, a_tools())

    assert [each.kept for each in verdicts] == [True, False]


def test_without_passages_nothing_is_contradicted() -> None:
    contradiction = Contradiction(Contradiction.Settings())

    verdicts = contradiction.keep(a_turn(), [a_candidate("It is 41.")], a_tools())

    assert verdicts == [Verdict(kept=True)]


def test_after_about_a_number_may_be_rounded() -> None:
    # 0.1 * 5000 = 500 and 5000 - 4620 = 380; 0.1 * 4000 = 400 and 4620 - 4000 = 620.
    passage = "There are 4620 shops."

    assert verdict(passage, "There are about 5,000 shops.").kept
    assert verdict(passage, "There are over 4,500 shops.").kept
    assert not verdict(passage, "There are about 4,000 shops.").kept
    assert not verdict(passage, "There are 5,000 shops.").kept
    assert not verdict(passage, "There are about 5,000 shops.", rounding=0).kept


@hypothesis_settings(deadline=None)
@given(
    known=st.lists(st.integers(0, 300), min_size=1, max_size=8),
    claimed=st.integers(0, 300),
)
def test_after_about_the_nearest_of_all_numbers_counts(
    known: list[int], claimed: int
) -> None:
    passage = " and ".join(f"{number} shops" for number in known)

    kept = verdict(passage, f"There are about {claimed} shops.").kept

    # A tenth of the claim, in whole numbers.
    assert kept == any(10 * abs(claimed - number) <= claimed for number in known)


def test_a_number_of_any_length_is_read() -> None:
    # Python refuses to read an integer of more than 4,300 digits.
    long = "0" * 5_000

    assert list(numbers(f"Open at {long} pm.")) == []
    assert not verdict(f"Open at {long} pm.", "Open at 3 pm.").kept


def test_a_reason_is_short_however_long_the_number() -> None:
    why = verdict("It costs 5 euros.", f"It costs {'million ' * 5_000} euros.").why

    assert why.startswith("says 'million million")
    assert len(why) < 120


def test_from_which_number_words_claim_something_can_be_set() -> None:
    assert verdict("It has rooms.", "It has two rooms.").kept
    assert not verdict("It has rooms.", "It has two rooms.", smallest_word=2).kept
    assert not verdict("It has rooms.", "It has 2 rooms.").kept


@hypothesis_settings(deadline=None)
@given(st.integers(0, 10**12))
def test_a_number_is_supported_however_its_thousands_are_marked(number: int) -> None:
    texts = [f"{number:,}", f"{number:_}".replace("_", "."), f"{number}"]

    for one in texts:
        for other in texts:
            assert verdict(f"It is {one}.", f"It is {other}.").kept


@hypothesis_settings(deadline=None)
@given(st.text(alphabet="0123456789.,:/- apm'’一十万v\n", max_size=60))
def test_what_the_passages_say_is_never_dropped(text: str) -> None:
    assert verdict(text, text).kept


@hypothesis_settings(deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    assert all(number.values for number in numbers(text))


def test_values_are_exact() -> None:
    [number] = numbers("costs 12.30")

    assert number.values == {Decimal("12.3")}


@pytest.mark.parametrize(
    "settings", [{"rounding": -0.1}, {"rounding": 0.6}, {"smallest_word": 1}]
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Contradiction.Settings.model_validate(settings)
