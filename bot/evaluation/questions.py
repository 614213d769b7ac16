"""
Reads files of questions: the handbook's YAML, and XQuAD's JSON.

Knows nothing about how they are answered. A file that does not have the documented
format is refused with every problem in it, not the first.

The handbook's format (`answers` and `evidence` are empty for a question that the
documents do not answer):

    questions:
      - id: refund-duration
        half: tune                     # thresholds are tuned on one half, reported on
        question: How long does a refund take?                           # the other
        answers: ["5 working days"]    # any of which counts
        evidence: [{source: refund-policy.md, quote: "takes 5 working days"}]

XQuAD's: `[{title, context, qas: [{id, question, answers: [{text}]}]}]`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from bot.errors import ConfigError

Half = Literal["tune", "report"]

_HANDBOOKS = (
    "write `questions:` and a list of them, each with id, half, question, answers and "
    "evidence"
)
_XQUADS = "it takes XQuAD's JSON, a list of passages, each with title, context and qas"

# YAML reads an unquoted 5 or 2024 as a number; an answer is a text.
Text = Annotated[
    str, BeforeValidator(lambda v: str(v) if isinstance(v, int | float) else v)
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Evidence(_Part):
    """A place in the documents that answers a question."""

    source: str
    quote: Annotated[str, Field(min_length=1)]


class Question(_Part):
    """One question with everything that counts as right."""

    id: Text
    question: Annotated[str, Field(min_length=1)]
    half: Half = "report"
    answers: tuple[Text, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    @property
    def answerable(self) -> bool:
        return bool(self.answers)


class _Questions(_Part):
    questions: tuple[Question, ...]


class _Answer(_Part):
    text: Text


class _QuestionAnswers(_Part):
    id: Text
    question: Annotated[str, Field(min_length=1)]
    answers: Annotated[tuple[_Answer, ...], Field(min_length=1)]


class Article(_Part):
    """A passage and the questions that it answers."""

    title: str = ""
    context: Annotated[str, Field(min_length=1)]
    qas: tuple[_QuestionAnswers, ...]

    @property
    def questions(self) -> list[Question]:
        return [
            Question(
                id=one.id,
                question=one.question,
                answers=tuple(answer.text for answer in one.answers),
            )
            for one in self.qas
        ]


def handbook_questions(path: Path) -> Sequence[Question]:
    """Read the handbook's format, or raise ConfigError."""
    try:
        document = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path}: not YAML: {_folded(error)}; {_HANDBOOKS}"
        ) from error
    found = _validated(TypeAdapter(_Questions), document, path, _HANDBOOKS).questions
    occurrences = Counter(one.id for one in found)
    twice = [id_ for id_, number in occurrences.items() if number > 1]
    if twice:
        raise ConfigError(
            [f"{path}: id {id_!r} occurs more than once" for id_ in twice]
        )
    return _some(found, path)


def articles(path: Path) -> Sequence[Article]:
    """Read XQuAD's format, or raise ConfigError."""
    try:
        document = orjson.loads(_read(path))
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path}: not JSON: {_folded(error)}; {_XQUADS}") from error
    found = _validated(TypeAdapter(tuple[Article, ...]), document, path, _XQUADS)
    return _some([one for one in found if one.qas], path)


def evenly(items: Sequence[Any], limit: int | None) -> list[Any]:
    """
    Return `limit` items spread evenly over the whole, so that a short run still sees
    every part of a file that is sorted by kind.
    """
    if limit is None or limit >= len(items):
        return list(items)
    return [items[number * len(items) // limit] for number in range(limit)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; name another file with --data"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text: {error.reason}; name another file with --data"
        ) from error


def _validated(
    adapter: TypeAdapter[Any], document: object, path: Path, needs: str
) -> Any:
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        raise ConfigError(
            [
                f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}"
                if one["loc"]  # else pydantic names our class
                else f"{path}: holds no questions; {needs}"
                for one in error.errors()
            ]
        ) from error


def _some(found: Sequence[Any], path: Path) -> Sequence[Any]:
    if not found:
        raise ConfigError(f"{path}: has no questions")
    return found


def _folded(error: Exception) -> str:
    return " ".join(str(error).split())
