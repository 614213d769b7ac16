"""The scorers that ask the generator, or read what it said while it wrote."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.distributions import mean_log_prob
from bot.interfaces import Scorer
from bot.model import Turn
from bot.testing import FakeTools, a_candidate, a_tools, a_turn, an_event
from bot.testing.contracts import ScorerContract
from plugins.scorers.likelihood import Likelihood
from plugins.scorers.mmi_antilm import MmiAntilm, anti_lm
from plugins.scorers.mmi_bidi import MmiBidi, asking_back
from plugins.scorers.pmi import Pmi
from plugins.scorers.self_certainty import SelfCertainty, mean_certainty

LOG_PROBS = st.lists(
    st.floats(max_value=0) | st.sampled_from([math.nan, -math.inf, math.inf])
)


class TestMmiAntilmKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return MmiAntilm(MmiAntilm.Settings())


class TestMmiBidiKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return MmiBidi(MmiBidi.Settings())


class TestPmiKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Pmi(Pmi.Settings())


class TestSelfCertaintyKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return SelfCertainty(SelfCertainty.Settings())


class TestLikelihoodByTheMeanKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return Likelihood(Likelihood.Settings(unread="mean"))


# likelihood


def test_what_the_model_did_not_write_may_get_the_mean_at_no_cost() -> None:
    tools = FakeTools()
    candidates = [
        a_candidate("sampled", log_probs=(-1.0,)),
        a_candidate("quoted", origin="quotation"),
        a_candidate("sampled too", log_probs=(-2.0, -4.0)),
        a_candidate(""),
    ]

    scores = Likelihood(Likelihood.Settings(unread="mean")).score(
        a_turn(), candidates, tools
    )

    # The mean of -1 and -3; the empty reply is put with the least.
    assert scores == pytest.approx([-1, -2, -3, -3])
    assert tools.scored == []


def test_with_nothing_to_take_the_mean_of_all_are_equal() -> None:
    candidates = [a_candidate("quoted"), a_candidate("quoted too")]

    scores = Likelihood(Likelihood.Settings(unread="mean")).score(
        a_turn(), candidates, FakeTools()
    )

    assert scores == [0.0, 0.0]


# mmi-antilm


def test_being_likely_anywhere_costs_its_first_tokens() -> None:
    # -1.5 - 0.5 · mean(-1, -2) = -0.75; the -9 comes too late to count.
    gained = anti_lm([-1.0, -2.0], [-1.0, -2.0, -9.0], weight=0.5, tokens=2)

    assert gained == pytest.approx(-0.75)


def test_a_reply_to_anything_falls_behind_one_to_this_question() -> None:
    def log_prob(prompt: str, word: str) -> float:
        return -1.0 if word == "generic" or prompt else -5.0

    candidates = [a_candidate("generic"), a_candidate("specific")]

    generic, specific = MmiAntilm(MmiAntilm.Settings(weight=0.5)).score(
        a_turn(prompt="user: hi"), candidates, a_tools(log_prob)
    )

    # -1 - 0.5 · -1, and -1 - 0.5 · -5.
    assert (generic, specific) == pytest.approx((-0.5, 1.5))


def test_one_call_reads_candidates_alone_and_unwritten_ones_after_the_prompt() -> None:
    tools = a_tools(lambda prompt, word: -1.0)
    candidates = [
        a_candidate("quoted", origin="quotation"),
        a_candidate("sampled", log_probs=(-4.0,)),
        a_candidate(" "),
    ]

    scores = MmiAntilm(MmiAntilm.Settings()).score(
        a_turn(prompt="user: hi"), candidates, tools
    )

    assert tools.scored == [(("user: hi", "quoted"), ("", "quoted"), ("", "sampled"))]
    assert scores == pytest.approx([-0.5, -3.5, -3.5])


# mmi-bidi


def test_a_reply_that_tells_the_question_is_preferred() -> None:
    def log_prob(prompt: str, word: str) -> float:
        return -1.0 if "refund" in prompt else -3.0

    candidates = [
        a_candidate("the refund takes days", log_probs=(-2.0,)),
        a_candidate("I do not know", log_probs=(-1.0,)),
    ]

    telling, evasive = MmiBidi(MmiBidi.Settings(weight=2)).score(
        a_turn("How long?"), candidates, a_tools(log_prob)
    )

    # -2 + 2 · -1, and -1 + 2 · -3.
    assert (telling, evasive) == pytest.approx((-4, -7))


def test_the_question_is_asked_back_with_nothing_but_the_reply() -> None:
    turn = a_turn("How?", ["known"], history=[an_event("before")], prompt="rendered")

    asked = asking_back(turn, "Which one? {reply} {reply}", "{reply} {0}")

    assert asked.question == "Which one? {reply} {0} {reply} {0}"
    assert (asked.history, asked.passages, asked.prompt) == ((), (), "")
    assert turn.question == "How?"


def test_each_reply_is_asked_back_in_one_call() -> None:
    tools = FakeTools()
    candidates = [
        a_candidate("yes", log_probs=(-1.0,)),
        a_candidate("quoted", origin="quotation"),
    ]

    MmiBidi(MmiBidi.Settings(instruction="For {reply}?")).score(
        a_turn("How?", prompt="user: How?"), candidates, tools
    )

    assert tools.scored == [
        (
            ("user: How?", "quoted"),
            ("Question: For yes?", "How?"),
            ("Question: For quoted?", "How?"),
        )
    ]


def test_an_instruction_has_a_place_for_the_reply() -> None:
    with pytest.raises(ValidationError, match="pattern"):
        MmiBidi.Settings(instruction="Which question?")


# pmi


def test_what_only_the_passages_make_likely_is_preferred() -> None:
    def log_prob(prompt: str, word: str) -> float:
        return -1.0 if word in ("know", "five") and "five" in prompt else -4.0

    turn = a_turn("How long?", ["It takes five days."])
    candidates = [
        a_candidate("five", log_probs=(-1.0,)),
        a_candidate("whatever", log_probs=(-3.0,)),
    ]

    read, known = Pmi(Pmi.Settings()).score(turn, candidates, a_tools(log_prob))

    # -1 - -4, and -3 - -4.
    assert (read, known) == pytest.approx((3, 1))


def test_the_prompt_without_passages_is_read_in_the_same_call() -> None:
    tools = FakeTools()
    turn = a_turn("How long?", ["It takes five days."], prompt="with")
    candidates = [
        a_candidate("quoted", origin="quotation"),
        a_candidate("sampled", log_probs=(-1.0,)),
    ]

    Pmi(Pmi.Settings()).score(turn, candidates, tools)

    assert tools.scored == [
        (
            ("with", "quoted"),
            ("Question: How long?", "quoted"),
            ("Question: How long?", "sampled"),
        )
    ]


def test_without_passages_nothing_is_read_and_all_are_equal() -> None:
    tools = FakeTools()
    candidates = [a_candidate("a", log_probs=(-1.0,)), a_candidate("b")]

    scores = Pmi(Pmi.Settings()).score(a_turn(), candidates, tools)

    assert scores == [0.0, 0.0]
    assert tools.scored == []


# All that ask the generator


@given(log_probs=LOG_PROBS)
def test_an_impossible_token_leaves_the_mean_in_its_bounds(
    log_probs: list[float],
) -> None:
    assert -50 <= mean_log_prob(log_probs) <= 0


@pytest.mark.parametrize(
    "scorer",
    [
        MmiAntilm(MmiAntilm.Settings()),
        MmiBidi(MmiBidi.Settings()),
        Pmi(Pmi.Settings()),
    ],
)
def test_replies_without_words_have_nothing_read(scorer: Scorer) -> None:
    tools = FakeTools()
    turn: Turn = a_turn(passages=["It takes five days."])

    scores = scorer.score(turn, [a_candidate(""), a_candidate(" \n")], tools)

    assert scores == [0.0, 0.0]
    assert tools.scored == []


@pytest.mark.parametrize(
    ("kind", "setting", "wrong"),
    [
        (MmiAntilm, "weight", -0.1),
        (MmiAntilm, "tokens", 0),
        (MmiBidi, "weight", 11),
        (Pmi, "weight", 2.1),
        (Likelihood, "unread", "guess"),
    ],
)
def test_settings_are_bounded(
    kind: type[MmiAntilm | MmiBidi | Pmi | Likelihood], setting: str, wrong: object
) -> None:
    with pytest.raises(ValidationError, match=setting):
        kind.Settings.model_validate({setting: wrong})


# self-certainty


def test_certainty_is_the_mean_over_the_tokens() -> None:
    assert mean_certainty([2.0, 4.0, 9.0]) == 5


def test_what_has_no_certainty_gets_the_mean_of_the_others() -> None:
    written = a_candidate("a", certainties=(2.0, 4.0))
    bold = replace(written, certainties=(5.0,))

    scores = SelfCertainty(SelfCertainty.Settings()).score(
        a_turn(), [written, a_candidate("quoted"), bold], FakeTools()
    )

    assert scores == [3.0, 4.0, 5.0]


@given(st.lists(st.floats(max_value=1e300, min_value=-1e300) | st.just(math.nan)))
def test_a_certainty_that_is_none_is_passed_over(certainties: list[float]) -> None:
    mean = mean_certainty([*certainties, math.inf, math.nan, 1.0])

    assert mean is not None
    assert not math.isnan(mean)
