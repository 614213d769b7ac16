# ruff: noqa: RUF001 - letters that look alike are the matter here
"""The filter of insults: what is found in any dress, and what is innocent."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydantic import ValidationError

from bot.errors import PluginError
from bot.interfaces import CandidateFilter, UsesClassifiers
from bot.model import Verdict
from bot.testing import FakeTools, a_candidate, a_tools, a_turn
from bot.testing.contracts import CandidateFilterContract
from plugins.filters.toxicity import Toxicity, probabilities


class TestToxicityKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return Toxicity(Toxicity.Settings())


class TestToxicityByAClassifierKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        # The labels are those of the tools in the contract.
        settings = Toxicity.Settings(classifier="folder", label="contradiction")
        return Toxicity(settings)


def verdict(text: str, *passages: str, **settings: object) -> Verdict:
    subject = Toxicity(Toxicity.Settings.model_validate(settings))
    [found] = subject.keep(a_turn("?", passages), [a_candidate(text)], a_tools())
    return found


@pytest.mark.parametrize(
    "text",
    [
        "What the fuck.",
        "FUCKING hell",
        "f.u.c.k you",
        "f u c k",
        "niggers",
        "ｆｕｃｋ",
        "fu\u200bck",
        "fück",
        "fuuuuck",
        "asssshole",
        "sh1t happens",
        "what an a$$hole",
        "bullshit!",
        "That is *bullshit*.",
        "You are an idiot.",
        "Just shut up",
        "So eine Scheiße",
        "du Arschloch",
        "fils de pute",
        "¡Qué mierda!",
        "你这个傻逼",
        "去死吧",
    ],
)
def test_insults_are_found_in_any_dress(text: str) -> None:
    assert verdict(text) == Verdict(
        kept=False, why="contains a word of the list of insults"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe, Penistone and Essex have shops.",
        "The assassin's class passes the cocktail analysis.",
        "Kill the process, god knows why; a fat client hit a dummy.",
        "Urine, breast and sexual health are treated here.",
        "Dick and Fanny raise a cock and a bitter almond.",
        "Shut the lid and look up.",
        "Niger, un bâtard en retard, a chink, das Fagott, a Shiite mosque, Skiii!",
        "Shitake? Shiitake mushrooms, Matsushita and Mishti.",
        "It is a 5 a b c d plan, 1 2 3.",
        "Une réputation de putois; el computador; disputa.",
        "妈妈的手机，操作系统，你的白天。",
        "👍",
        "",
    ],
)
def test_innocent_words_are_kept(text: str) -> None:
    assert verdict(text).kept


def test_the_list_can_be_changed() -> None:
    assert not verdict("Our rival, Foo Corp.", words=("foo corp",)).kept
    assert verdict("Our rivals, foo and corp.", words=("foo corp",)).kept
    assert verdict("What shit.", allowed=("Shit",)).kept
    assert not verdict("What shitty fuck.", allowed=("Shit",)).kept
    assert verdict("What shit.", built_in=False).kept


def test_what_the_passages_say_is_allowed_on_request() -> None:
    title = "The Subtle Art of Not Giving a Fuck"

    assert not verdict(title, title).kept
    assert verdict(title, title, allow_quoted=True).kept
    assert not verdict("Shit.", title, allow_quoted=True).kept


def classified(logits: dict[str, tuple[float, ...]], *labels: str) -> FakeTools:
    return FakeTools(labels=labels, logits=lambda text, pair: logits[text])


def test_the_classifiers_softmax_decides() -> None:
    # softmax(0, ln 3) = (1, 3) / 4
    tools = classified({"mild": (0.0, 0.0), "rude": (0.0, math.log(3))}, "ok", "Toxic")
    toxicity = Toxicity(Toxicity.Settings(classifier="folder", threshold=0.6))

    verdicts = toxicity.keep(
        a_turn(), [a_candidate("mild"), a_candidate("rude"), a_candidate("")], tools
    )

    assert [each.kept for each in verdicts] == [True, False, True]
    assert verdicts[1].why == "is toxic with probability 0.75"
    assert tools.classified == [(("mild", ""), ("rude", ""))]


def test_labels_that_do_not_exclude_each_other_go_by_sigmoid() -> None:
    # sigmoid(ln 3) = 3 / 4 whatever the other label has.
    tools = classified({"rude": (9.0, math.log(3))}, "insult", "toxic")
    one_label = classified({"rude": (math.log(3),)}, "toxic")
    settings = Toxicity.Settings(classifier="folder", multi_label=True)

    [several] = Toxicity(settings).keep(a_turn(), [a_candidate("rude")], tools)
    [alone] = Toxicity(Toxicity.Settings(classifier="folder")).keep(
        a_turn(), [a_candidate("rude")], one_label
    )

    assert several.why == alone.why == "is toxic with probability 0.75"


def test_a_classifier_is_not_asked_about_what_the_list_dropped() -> None:
    tools = classified({"fine": (0.0, 0.0)}, "ok", "toxic")
    toxicity = Toxicity(Toxicity.Settings(classifier="folder", threshold=0.9))

    toxicity.keep(a_turn(), [a_candidate("shit"), a_candidate("fine")], tools)

    assert tools.classified == [(("fine", ""),)]


def test_a_label_that_the_classifier_does_not_have_is_the_operators_to_mend() -> None:
    toxicity = Toxicity(Toxicity.Settings(classifier="folder", label="rude"))

    with pytest.raises(PluginError, match="set `label` to one of 'ok', 'toxic'"):
        toxicity.keep(
            a_turn(), [a_candidate("x")], classified({"x": (0.0, 0.0)}, "ok", "toxic")
        )


def test_what_the_classifier_cannot_judge_is_dropped() -> None:
    tools = classified({"x": (math.nan, 0.0)}, "ok", "toxic")

    [found] = Toxicity(Toxicity.Settings(classifier="folder")).keep(
        a_turn(), [a_candidate("x")], tools
    )

    assert found.why == "the classifier gave no number for it"


def test_it_says_which_classifier_it_uses() -> None:
    pinned = Toxicity(Toxicity.Settings(classifier="folder", sha256="a" * 64))

    assert isinstance(pinned, UsesClassifiers)
    assert pinned.classifiers == {"folder": "a" * 64}
    assert Toxicity(Toxicity.Settings()).classifiers == {}


@hypothesis_settings(deadline=None)
@given(
    arrays.arrays(np.float32, (3, 4), elements=st.floats(-(2.0**90), 2.0**90, width=32))
)
def test_probabilities_are_probabilities(logits: NDArray[np.float32]) -> None:
    softmax = probabilities(logits, exclusive=True)
    sigmoid = probabilities(logits, exclusive=False)

    assert np.allclose(softmax.sum(axis=1), 1)
    assert ((sigmoid >= 0) & (sigmoid <= 1)).all()


@hypothesis_settings(deadline=None)
@given(st.text(max_size=100))
def test_any_text_has_a_verdict(text: str) -> None:
    assert verdict(text) == verdict(text)


@pytest.mark.parametrize(
    "settings",
    [{"threshold": 0}, {"threshold": 1.1}, {"words": [""]}, {"sha256": "abc"}],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Toxicity.Settings.model_validate(settings)
