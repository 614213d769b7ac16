"""The scorers that have a classifier read pairs of texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pydantic import ValidationError

from bot.errors import PluginError
from bot.interfaces import Scorer, UsesClassifiers
from bot.testing import FakeTools, a_candidate, a_turn
from bot.testing.contracts import ScorerContract
from plugins.scorers.cross_encoder import CrossEncoder, approvals
from plugins.scorers.nli import Nli, aggregated, probabilities

LOGITS = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=4))


class TestCrossEncoderKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self) -> Scorer:
        return CrossEncoder(CrossEncoder.Settings())


class TestNliKeepsTheContract(ScorerContract):
    @pytest.fixture(params=["each", "all"])
    def subject(self, request: pytest.FixtureRequest) -> Scorer:
        return Nli(Nli.Settings(premise=request.param, over="min", contradiction=1))


@pytest.mark.parametrize("kind", [CrossEncoder, Nli])
def test_the_model_that_is_to_be_loaded_is_named(kind: Any) -> None:
    plain = kind(kind.Settings(model="some/model"))
    pinned = kind(kind.Settings(model="some/model", model_sha256="a" * 64))

    assert isinstance(plain, UsesClassifiers)
    assert plain.classifiers == {"some/model": None}
    assert pinned.classifiers == {"some/model": "a" * 64}


@pytest.mark.parametrize(
    ("kind", "setting", "wrong"),
    [
        (CrossEncoder, "model", ""),
        (CrossEncoder, "model_sha256", "abc"),
        (Nli, "premise", "some"),
        (Nli, "contradiction", 1.5),
        (Nli, "sentences", 0),
        (Nli, "passages", 0),
    ],
)
def test_settings_are_bounded(
    kind: type[CrossEncoder | Nli], setting: str, wrong: object
) -> None:
    with pytest.raises(ValidationError, match=setting):
        kind.Settings.model_validate({setting: wrong})


# cross-encoder


def test_one_logit_is_the_score_of_question_and_reply() -> None:
    tools = FakeTools(
        labels=("LABEL_0",), logits=lambda question, reply: [float(len(reply))]
    )
    candidates = [a_candidate("abc"), a_candidate("a")]

    scores = CrossEncoder(CrossEncoder.Settings()).score(
        a_turn("why?"), candidates, tools
    )

    assert scores == [3.0, 1.0]
    assert tools.classified == [(("why?", "abc"), ("why?", "a"))]


@pytest.mark.parametrize(
    ("label", "expected"), [("", 0.9), ("good", 0.9), ("BAD", 0.1)]
)
def test_of_several_labels_one_is_scored_by_its_probability(
    label: str, expected: float
) -> None:
    tools = FakeTools(
        labels=("bad", "Good"), logits=lambda *_: [math.log(0.1), math.log(0.9)]
    )

    [score] = CrossEncoder(CrossEncoder.Settings(label=label)).score(
        a_turn(), [a_candidate()], tools
    )

    assert score == pytest.approx(expected)


def test_a_label_that_the_model_lacks_is_named_with_those_it_has() -> None:
    scorer = CrossEncoder(CrossEncoder.Settings(label="fine"))

    with pytest.raises(PluginError, match=r"no label 'fine'; .* contradiction, neut"):
        scorer.score(a_turn(), [a_candidate()], FakeTools())


@given(LOGITS)
def test_no_logit_makes_an_approval_that_is_no_number(
    logits: NDArray[np.float32],
) -> None:
    for column in range(logits.shape[1]):
        assert np.isfinite(approvals(logits, column)).all()


# nli


def entailed(**chances: float) -> FakeTools:
    """Tools by which a premise and a claim, joined by `_`, entail by that chance."""

    def logits(premise: str, claim: str) -> list[float]:
        chance = chances.get(f"{premise}_{claim.rstrip('.')}", 0.5)
        return [math.log((1 - chance) / 2)] * 2 + [math.log(chance)]

    return FakeTools(logits=logits)


def test_the_best_passage_supports_each_sentence_and_the_mean_is_taken() -> None:
    tools = entailed(p_Ay=0.8, q_Ay=0.1, p_Bee=0.3, q_Bee=0.4)

    [score] = Nli(Nli.Settings()).score(
        a_turn(passages=["p", "q"]), [a_candidate("Ay. Bee.")], tools
    )

    # max(.8, .1) and max(.3, .4).
    assert score == pytest.approx(0.6)


def test_the_least_supported_sentence_may_decide() -> None:
    tools = entailed(p_Ay=0.8, p_Bee=0.4)

    [score] = Nli(Nli.Settings(over="min")).score(
        a_turn(passages=["p"]), [a_candidate("Ay. Bee.")], tools
    )

    assert score == pytest.approx(0.4)


def test_a_contradiction_costs_what_is_set() -> None:
    tools = entailed(p_Ay=0.4)

    [score] = Nli(Nli.Settings(contradiction=0.5)).score(
        a_turn(passages=["p"]), [a_candidate("Ay.")], tools
    )

    # .4 for it, .3 against it and .3 for neither.
    assert score == pytest.approx(0.25)


def test_each_pair_is_read_once_in_one_call() -> None:
    tools = FakeTools()
    candidates = [a_candidate("Ay. Bee."), a_candidate("Bee. Cee."), a_candidate("")]

    Nli(Nli.Settings(passages=2)).score(
        a_turn(passages=["p", "q", "never read"]), candidates, tools
    )

    assert tools.classified == [
        (
            ("p", "Ay."),
            ("q", "Ay."),
            ("p", "Bee."),
            ("q", "Bee."),
            ("p", "Cee."),
            ("q", "Cee."),
        )
    ]


def test_the_passages_may_be_read_together() -> None:
    tools = FakeTools()

    Nli(Nli.Settings(premise="all")).score(
        a_turn(passages=["p", " ", "q"]), [a_candidate("Ay.")], tools
    )

    assert tools.classified == [(("p\nq", "Ay."),)]


def test_without_passages_or_sentences_nothing_is_read() -> None:
    tools = FakeTools()
    nli = Nli(Nli.Settings())

    scores = [
        nli.score(a_turn(), [a_candidate("Ay.")], tools),
        nli.score(a_turn(passages=["p"]), [a_candidate("")], tools),
    ]

    assert scores == [[0.0], [0.0]]
    assert tools.classified == []


def test_a_model_of_one_label_gives_its_chance_by_the_sigmoid() -> None:
    tools = FakeTools(labels=("LABEL_0",), logits=lambda *_: [math.log(3)])

    [score] = Nli(Nli.Settings(contradiction=1)).score(
        a_turn(passages=["p"]), [a_candidate("Ay.")], tools
    )

    # 1 / (1 + 1/3).
    assert score == pytest.approx(0.75)


def test_labels_are_found_whatever_their_case_and_can_be_named() -> None:
    tools = FakeTools(labels=("Supported", "Not"), logits=lambda *_: [0.0, 0.0])

    [score] = Nli(Nli.Settings(entailment_label="SUPPORTED")).score(
        a_turn(passages=["p"]), [a_candidate("Ay.")], tools
    )

    assert score == 0.5


@pytest.mark.parametrize(
    ("labels", "setting"),
    [
        (("yes", "no"), "entailment_label"),
        (("entailment", "other"), "contradiction_label"),
    ],
)
def test_a_model_without_the_label_says_which_setting_names_it(
    labels: tuple[str, ...], setting: str
) -> None:
    tools = FakeTools(labels=labels, logits=lambda *_: [0.0, 0.0])

    with pytest.raises(PluginError, match=rf"set `{setting}` to one of {labels[0]}"):
        Nli(Nli.Settings(contradiction=1)).score(
            a_turn(passages=["p"]), [a_candidate("Ay.")], tools
        )


@given(LOGITS)
def test_chances_are_shares_whatever_the_logits(logits: NDArray[np.float32]) -> None:
    chances = probabilities(logits)

    assert (chances >= 0).all()
    assert np.allclose(chances.sum(axis=1), 1)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_the_least_is_never_above_the_mean(supports: list[float]) -> None:
    assert aggregated(supports, "min") <= aggregated(supports, "mean") + 1e-9
