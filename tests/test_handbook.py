"""
Checks the shipped handbook and its questions against each other.

Reads the files as they are, with neither the ingester nor a model, so that a quote
that no reader could see is found here and not as a lower figure in an evaluation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from markdown_it import MarkdownIt

from bot.evaluation.questions import Question, handbook_questions

ROOT = Path(__file__).parents[1]
HANDBOOK = ROOT / "config" / "knowledge"
QUESTIONS = ROOT / "tests" / "data" / "handbook_questions.yaml"

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_UNSEEN = ["head", "script", "style", "nav", "header", "footer"]
_PIECES = ["p", "li", "tr", "h1", "h2", "h3", "h4"]


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return list(handbook_questions(QUESTIONS))


@pytest.fixture(scope="module")
def answerable(questions: list[Question]) -> list[Question]:
    return [question for question in questions if question.answers]


@pytest.fixture(scope="module")
def unanswerable(questions: list[Question]) -> list[Question]:
    return [question for question in questions if not question.answers]


def documents() -> list[Path]:
    return sorted(path for path in HANDBOOK.rglob("*") if path.is_file())


@cache
def pieces(path: Path) -> tuple[str, ...]:
    """
    Return the paragraphs, list items and table rows that a reader sees, one string
    each, white space folded. Plain text is one piece per run of lines.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return tuple(folded(part) for part in re.split(r"\n\s*\n", text))
    if path.suffix == ".md":
        markdown = MarkdownIt("commonmark").enable("table")
        text = markdown.render(_FRONT_MATTER.sub("", text))
    page = BeautifulSoup(text, "html.parser")
    for unseen in page(_UNSEEN):
        unseen.decompose()
    return tuple(folded(visible(piece)) for piece in page(_PIECES))


def visible(piece: Tag) -> str:
    """Return an element's text, with a space between the cells of a table row."""
    return str(piece.get_text(" " if piece.name == "tr" else ""))


def folded(text: str) -> str:
    return " ".join(text.split())


def front_matter(path: Path) -> Mapping[str, object]:
    found = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
    assert found, f"{path.name} has no front matter"
    metadata = yaml.safe_load(found[1])
    assert isinstance(metadata, dict)
    return metadata


def test_the_handbook_has_documents_of_every_text_format() -> None:
    formats = Counter(path.suffix for path in documents())

    assert set(formats) == {".md", ".txt", ".html"}
    assert formats[".txt"] >= 3
    assert formats[".html"] >= 3
    assert formats.total() >= 30


@pytest.mark.parametrize("path", sorted(HANDBOOK.rglob("*.md")), ids=lambda p: p.name)
def test_markdown_documents_say_what_they_are_and_of_when(path: Path) -> None:
    metadata = front_matter(path)

    assert set(metadata) == {"title", "date", "department"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(metadata["date"]))


def test_html_documents_have_the_noise_that_a_reader_does_not_see() -> None:
    pages = [path.read_text("utf-8") for path in sorted(HANDBOOK.rglob("*.html"))]

    for noise in ["<script", "<nav", "<footer"]:
        assert all(noise in page for page in pages), noise
    assert sum("<table" in page for page in pages) >= 3


@pytest.mark.parametrize(
    ("old", "new", "dated"),
    [
        ("refund-policy-2024.md", "refund-policy.md", True),
        ("insurance-larkcover-2024.md", "insurance-larkcover.md", True),
        ("rental-prices-2025.txt", "rental-prices.md", False),
    ],
)
def test_a_superseded_document_is_older_and_names_its_successor(
    old: str, new: str, *, dated: bool
) -> None:
    text = (HANDBOOK / old).read_text(encoding="utf-8")

    assert "superseded" in text.casefold()
    assert new in text
    if dated:
        dates = [str(front_matter(HANDBOOK / name)["date"]) for name in (old, new)]
        assert dates == sorted(set(dates))


def test_question_ids_are_unique_and_questions_are_not_repeated(
    questions: list[Question],
) -> None:
    ids = Counter(question.id for question in questions)
    wordings = Counter(folded(question.question).casefold() for question in questions)

    assert [name for name, count in ids.items() if count > 1] == []
    assert [text for text, count in wordings.items() if count > 1] == []


def test_there_are_enough_questions_of_both_kinds(
    answerable: list[Question], unanswerable: list[Question]
) -> None:
    assert len(answerable) >= 90
    assert len(unanswerable) >= 25


def test_both_halves_have_as_many_of_either_kind(
    answerable: list[Question], unanswerable: list[Question]
) -> None:
    for kind in (answerable, unanswerable):
        halves = Counter(question.half for question in kind)
        assert abs(halves["tune"] - halves["report"]) <= 1


def test_an_answer_comes_with_evidence_and_no_answer_without(
    questions: list[Question],
) -> None:
    uneven = [one.id for one in questions if bool(one.answers) != bool(one.evidence)]

    assert uneven == []


def test_every_source_is_a_document_of_the_handbook(
    answerable: list[Question],
) -> None:
    known = {path.relative_to(HANDBOOK).as_posix() for path in documents()}
    named = {place.source for question in answerable for place in question.evidence}

    assert named - known == set()


def test_most_documents_answer_a_question(answerable: list[Question]) -> None:
    named = {place.source for question in answerable for place in question.evidence}

    assert len(named) >= 0.75 * len(documents())


def test_every_quote_stands_in_one_paragraph_item_or_row_of_its_source(
    answerable: list[Question],
) -> None:
    misquoted = [
        f"{question.id}: {place.source}: {place.quote}"
        for question in answerable
        for place in question.evidence
        if not any(folded(place.quote) in piece for piece in seen(place.source))
    ]

    assert misquoted == []


def test_the_first_answer_stands_in_a_quote(answerable: list[Question]) -> None:
    unsupported = [
        f"{question.id}: {question.answers[0]}"
        for question in answerable
        if not any(
            question.answers[0].casefold() in folded(place.quote).casefold()
            for place in question.evidence
        )
    ]

    assert unsupported == []


def test_a_quote_tells_more_than_a_bare_number(answerable: list[Question]) -> None:
    bare = [
        f"{question.id}: {place.quote}"
        for question in answerable
        for place in question.evidence
        if len(place.quote.split()) < 3
    ]

    assert bare == []


def test_no_question_is_the_handbook_copied(answerable: list[Question]) -> None:
    handbook = [piece for path in documents() for piece in pieces(path)]

    copied = [
        question.id
        for question in answerable
        if any(folded(question.question) in piece for piece in handbook)
    ]

    assert copied == []


def seen(source: str) -> tuple[str, ...]:
    return pieces(HANDBOOK / source)
