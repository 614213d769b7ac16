"""The filter of the subject: what is close to nothing, and what cannot be judged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydantic import ValidationError

from bot.interfaces import CandidateFilter, Embeds
from bot.model import Verdict
from bot.testing import FakeTools, HashEmbedder, a_candidate, a_tools, a_turn
from bot.testing.contracts import CandidateFilterContract
from plugins.filters.off_topic import OffTopic, closest


class TestOffTopicKeepsTheContract(CandidateFilterContract):
    @pytest.fixture
    def subject(self) -> CandidateFilter:
        return OffTopic(OffTopic.Settings())


class Drawn(HashEmbedder):
    """Texts lie where they are drawn; at the origin, like no text, by default."""

    def __init__(self, **places: tuple[float, float]) -> None:
        super().__init__(dimension=2)
        self._places = places

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [self._places.get(text.split()[0], (0, 0)) for text in texts]
        return np.array(rows, np.float32).reshape(-1, 2)


REPLY = "Reply with several words inside."


def verdict(  # noqa: PLR0913 - each test names what matters to it
    tools: FakeTools,
    *,
    question: str = "Question about words?",
    passages: Sequence[str] = ("One sentence. Two sentences.",),
    text: str = REPLY,
    question_at: float = 0.3,
    passages_at: float = 0.3,
    languages: tuple[str, ...] = ("en",),
) -> Verdict:
    settings = OffTopic.Settings(
        question=question_at, passages=passages_at, languages=languages
    )
    [found] = OffTopic(settings).keep(
        a_turn(question, passages), [a_candidate(text)], tools
    )
    return found


def test_what_is_close_to_neither_is_dropped_with_both_figures() -> None:
    places = {"Question": (0.1, 0.995), "One": (0, 1), "Two": (0.2, 0.98)}
    tools = FakeTools(embedder=Drawn(Reply=(1, 0), **places))

    assert verdict(tools, question_at=0.3, passages_at=0.3).why == (
        "is about something else (cosine 0.10 to the question, 0.20 to the passages)"
    )


@pytest.mark.parametrize(
    ("places", "kept"),
    [
        ({"Question": (0.31, 0.951), "One": (0, 1)}, True),
        ({"Question": (0, 1), "Two": (0.31, 0.951)}, True),
        ({"Question": (0.29, 0.957), "Two": (0.29, 0.957)}, False),
        ({"Question": (-1, 0), "One": (-1, 0)}, False),
    ],
)
def test_either_is_enough(
    places: dict[str, tuple[float, float]], *, kept: bool
) -> None:
    tools = FakeTools(embedder=Drawn(Reply=(1, 0), **places))

    assert verdict(tools, question_at=0.3, passages_at=0.3).kept is kept


def test_without_passages_the_question_alone_decides() -> None:
    near = FakeTools(embedder=Drawn(Reply=(1, 0), Question=(1, 0)))
    far = FakeTools(embedder=Drawn(Reply=(1, 0), Question=(0, 1)))

    assert verdict(near, passages=()).kept
    assert not verdict(far, passages=()).kept


def test_thresholds_can_be_set() -> None:
    places = {"Question": (0.6, 0.8), "One": (0.5, 0.866)}
    tools = FakeTools(embedder=Drawn(Reply=(1, 0), **places))

    assert not verdict(tools, question_at=0.7, passages_at=0.6).kept
    assert verdict(tools, question_at=0.7, passages_at=0.4).kept
    assert verdict(tools, question_at=0.5, passages_at=0.6).kept


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Question about words?", "Yes, it does."),
        ("Question about words?", ""),
        ("Question about words?", "退款需要五个工作日左右"),
        ("退款需要多长时间", REPLY),
        ("?!", REPLY),
    ],
)
def test_what_cannot_be_judged_is_kept_and_not_embedded(
    question: str, text: str
) -> None:
    tools = FakeTools(embedder=Drawn())

    assert verdict(tools, question=question, text=text).kept
    assert tools.embedded == []


def test_for_a_question_that_it_cannot_read_it_announces_nothing() -> None:
    assert (
        OffTopic(OffTopic.Settings()).texts(a_turn("退款需要多长时间", ["五天。"]))
        == []
    )


def test_languages_can_be_added() -> None:
    tools = FakeTools(embedder=Drawn())
    question, text = "退款需要多长时间", "退款需要五个工作日左右"

    assert verdict(tools, question=question, text=text).kept
    assert not verdict(tools, question=question, text=text, languages=("en", "zh")).kept


def test_all_is_embedded_in_one_call_as_it_was_announced() -> None:
    off_topic = OffTopic(OffTopic.Settings())
    turn = a_turn("Question about words?", ["One. Two.", "Three."])
    tools = a_tools()

    off_topic.keep(turn, [a_candidate(REPLY), a_candidate("One two three.")], tools)

    assert isinstance(off_topic, Embeds)
    announced = ["Question about words?", "One.", "Two.", "Three."]
    assert off_topic.texts(turn) == announced
    assert tools.embedded == [(REPLY, "One two three.", *announced)]


def test_a_vector_that_is_not_finite_is_close_to_nothing() -> None:
    tools = FakeTools(embedder=Drawn(Reply=(math.nan, 0), Question=(1, 0)))

    assert not verdict(tools).kept


@hypothesis_settings(deadline=None)
@given(
    arrays.arrays(np.float64, (3, 4), elements=st.floats(-1, 1)),
    arrays.arrays(np.float64, (5, 4), elements=st.floats(-1, 1)),
)
def test_the_closest_is_the_largest_product(
    replies: NDArray[np.float64], others: NDArray[np.float64]
) -> None:
    found = closest(replies, others)

    for reply, (to_question, to_passages) in zip(replies, found, strict=True):
        products = [float(np.dot(reply, other)) for other in others]
        assert to_question == pytest.approx(products[0])
        assert to_passages == pytest.approx(max([-1.0, *products[1:]]))


@pytest.mark.parametrize(
    "settings",
    [{"question": 1.1}, {"passages": -1.1}, {"minimum_words": 0}, {"languages": []}],
)
def test_settings_out_of_bounds_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OffTopic.Settings.model_validate(settings)
