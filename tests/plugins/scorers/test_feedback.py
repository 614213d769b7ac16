"""The scorer that learned from thumbs: what it reads, and what it refuses to."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue, ValidationError

from bot.errors import ConfigError, PluginError
from bot.evaluation.feedback_model import Example, log_odds_of, train
from bot.interfaces import Scorer
from bot.testing import FakeTools, HashEmbedder, a_candidate, a_turn
from bot.testing.contracts import ScorerContract
from plugins.scorers.feedback import Feedback

LEARNED: dict[str, JsonValue] = {
    "version": 1,
    "names": ["relevance", "length"],
    "means": [0.5, -1.0],
    "scales": [0.1, 2.0],
    "weights": [1.0, -0.5],
    "embedding": [],
    "bias": 0.25,
    "trained_on": 40,
}


def learned(folder: Path, **changed: JsonValue) -> Feedback:
    path = folder / "learned.json"
    path.write_text(json.dumps({**LEARNED, **changed}))
    return Feedback(Feedback.Settings(model=str(path)))


class TestFeedbackKeepsTheContract(ScorerContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Scorer:
        return learned(tmp_path, embedding=[0.1] * 512)


def test_the_log_odds_are_the_sum_of_what_was_learned(tmp_path: Path) -> None:
    candidate = a_candidate("x", {"relevance": 0.7, "length": 1.0, "other": 9.0})

    [score] = learned(tmp_path).score(a_turn(), [candidate], FakeTools())

    # .25 + 1 · (.7 - .5) / .1 - .5 · (1 + 1) / 2.
    assert score == pytest.approx(1.75)


@pytest.mark.parametrize("missing", [{}, {"relevance": math.nan, "length": math.inf}])
def test_a_score_that_is_not_there_counts_as_its_mean(
    tmp_path: Path, missing: dict[str, float]
) -> None:
    [score] = learned(tmp_path).score(
        a_turn(), [a_candidate("x", missing)], FakeTools()
    )

    assert score == 0.25


@pytest.mark.parametrize(
    ("wild", "expected"), [({}, 20), ({"length": 1e308}, 20), ({"length": 1e9}, 20)]
)
def test_a_wild_score_does_not_decide_everything(
    tmp_path: Path, wild: dict[str, float], expected: float
) -> None:
    candidate = a_candidate("x", {"relevance": 1e308, **wild})

    [score] = learned(tmp_path).score(a_turn(), [candidate], FakeTools())

    assert score == expected


def test_nothing_is_embedded_where_no_embedding_was_learned(tmp_path: Path) -> None:
    tools = FakeTools()

    learned(tmp_path).score(a_turn(), [a_candidate("x")], tools)

    assert tools.embedded == []


def test_what_was_trained_is_scored_alike(tmp_path: Path) -> None:
    embedder = HashEmbedder(64)
    embed = embedder.embed
    texts = [f"{'five days' if n % 2 else 'no idea'} {n}" for n in range(40)]
    judged = [
        Example(scores={"relevance": n / 40}, vector=vector, good=n % 2 == 1)
        for n, vector in enumerate(embed(texts))
    ]
    model = train(judged, minimum=20).model
    path = tmp_path / "feedback.json"
    path.write_text(json.dumps(model.as_json()))
    candidates = [
        a_candidate("no idea at all", {"relevance": 0.5}),
        a_candidate("in five days", {"relevance": 0.5}),
    ]

    scores = Feedback(Feedback.Settings(model=str(path))).score(
        a_turn(), candidates, FakeTools(embedder=embedder)
    )

    expected = [
        log_odds_of(Example(scores=one.scores, vector=vector, good=True), model)
        for one, vector in zip(
            candidates, embed([one.text for one in candidates]), strict=True
        )
    ]
    assert scores == pytest.approx(expected)
    assert np.argmax(scores) == 1


def test_another_embedder_is_told_apart(tmp_path: Path) -> None:
    feedback = learned(tmp_path, embedding=[0.1, 0.2])

    with pytest.raises(PluginError, match=r"length 2 and the embedder's have 512; run"):
        feedback.score(a_turn(), [a_candidate("x")], FakeTools())


def test_a_file_that_is_not_there_is_for_the_operator(tmp_path: Path) -> None:
    path = tmp_path / "none.json"

    with pytest.raises(ConfigError, match=r"no file .*none.json'; run `chorus feedba"):
        Feedback(Feedback.Settings(model=str(path)))


def test_a_file_that_cannot_be_read_is_for_the_operator(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Feedback(Feedback.Settings(model=str(tmp_path)))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"version": 2}, "version"),
        ({"bias": math.nan}, "bias"),
        ({"scales": [0.1, 0]}, r"scales\.1"),
        ({"weights": [1.0]}, "differ in length"),
    ],
)
def test_a_file_of_another_shape_says_what_is_wrong(
    tmp_path: Path, changed: dict[str, JsonValue], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        learned(tmp_path, **changed)


def test_a_file_needs_a_name() -> None:
    with pytest.raises(ValidationError, match="model"):
        Feedback.Settings(model="")
