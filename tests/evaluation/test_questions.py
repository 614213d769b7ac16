"""Files of questions: the two formats, and what is said about a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import ConfigError
from bot.evaluation.questions import articles, evenly, handbook_questions

GOOD = """
questions:
  - id: refund-duration
    half: tune
    question: How long does a refund take?
    answers: ["5 working days", 5]
    evidence: [{source: refund-policy.md, quote: takes 5 working days}]
  - {id: moon, half: report, question: "Is there a shop on the moon?", answers: [],
     evidence: []}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "questions"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_handbooks_format_is_read(tmp_path: Path) -> None:
    refund, moon = handbook_questions(written(tmp_path, GOOD))

    assert refund.half == "tune"
    assert refund.answers == ("5 working days", "5")
    assert refund.evidence[0].source == "refund-policy.md"
    assert refund.answerable
    assert not moon.answerable


def test_xquads_format_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[{"title": "T", "context": "C", "qas": [{"id": "1", "question": "Q", '
        '"answers": [{"text": "A", "answer_start": 0}]}]}, '
        '{"title": "T", "context": "D", "qas": []}]',
    )

    (article,) = articles(path)

    assert article.context == "C"
    assert [(one.question, one.answers) for one in article.questions] == [("Q", ("A",))]


def test_every_mistake_in_a_file_is_named_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "questions: [{id: a, question: ''}, {id: b, half: third}]")

    with pytest.raises(ConfigError) as caught:
        handbook_questions(path)

    assert len(caught.value.problems) == 3
    assert caught.value.problems[0].startswith(f"{path}: questions.0.question: ")
    assert f"{path}: questions.1.question: Field required" in caught.value.problems


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "questions: [{id: a, question: x}, {id: a, question: y}]")

    with pytest.raises(ConfigError, match="id 'a' occurs more than once"):
        handbook_questions(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("questions: [", "not YAML"),
        ("questions: []", "has no questions"),
        ("[]", "holds no questions; "),
    ],
)
def test_a_file_that_is_no_handbook_is_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        handbook_questions(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not JSON"),
        ("[]", "has no questions"),
        ('{"a": 1}', "holds no questions; "),
    ],
)
def test_a_file_that_is_no_xquad_is_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        articles(written(tmp_path, text))


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        articles(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        articles(binary)


def test_a_limit_takes_items_from_the_whole_of_a_sorted_file() -> None:
    assert evenly(range(10), 3) == [0, 3, 6]
    assert evenly(range(3), 10) == [0, 1, 2]
    assert evenly(range(3), None) == [0, 1, 2]
