"""
Every number that an operator can set, of every plugin: what is no number is refused.

A refusal names the field, so that the operator finds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Annotated, Any, NamedTuple

import annotated_types
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

# What has to be set, so that a refusal is about the number.
REQUIRED: dict[str, dict[str, Any]] = {
    "blocked-words": {"words": ["word"]},
    "blocklist": {"phrases": ["word"]},
    "phrase-bias": {"phrases": ["word"]},
}


class Number(NamedTuple):
    """A number among the settings of a plugin."""

    plugin: str
    settings: type[BaseModel]
    key: str
    field: FieldInfo


class Bound(NamedTuple):
    """How far a number may go, and whether so far, too."""

    at: float
    included: bool


def all_numbers() -> Iterator[Number]:
    for found in sorted(entry_points(group="chorus.plugins")):
        if not found.value.startswith("plugins."):
            continue
        settings: type[BaseModel] = found.load().Settings
        for key, field in settings.model_fields.items():
            if field.annotation in (int, float):
                yield Number(found.name, settings, key, field)


NUMBERS = list(all_numbers())
EACH = pytest.mark.parametrize(
    "number", NUMBERS, ids=[f"{each.plugin}-{each.key}" for each in NUMBERS]
)


def refusal(number: Number, value: object) -> str:
    given = {**REQUIRED.get(number.plugin, {}), number.key: value}
    with pytest.raises(ValidationError) as caught:
        number.settings.model_validate(given)
    [problem] = caught.value.errors()
    assert problem["loc"] == (number.key,)
    return problem["msg"]


def bounds(field: FieldInfo) -> tuple[Bound, Bound]:
    """Return the lowest and the highest bound; each number has one of both."""
    lowest, highest = list[Bound](), list[Bound]()
    for each in field.metadata:
        match each:
            case annotated_types.Ge(ge=at):
                lowest.append(Bound(float(str(at)), included=True))
            case annotated_types.Gt(gt=at):
                lowest.append(Bound(float(str(at)), included=False))
            case annotated_types.Le(le=at):
                highest.append(Bound(float(str(at)), included=True))
            case annotated_types.Lt(lt=at):
                highest.append(Bound(float(str(at)), included=False))
    [low], [high] = lowest, highest
    return low, high


def test_there_are_numbers_of_all_kinds_of_plugins() -> None:
    known = {(each.plugin, each.key) for each in NUMBERS}

    assert ("min-p", "minimum") in known
    assert ("thompson", "prior_up") in known
    assert ("readability", "ease") in known
    assert len(known) > 50


@EACH
def test_what_is_no_finite_number_is_refused(number: Number) -> None:
    spelt = ("nan", "NaN", "inf", "-Infinity", "1e999", "", "five")

    for value in (math.nan, math.inf, -math.inf, *spelt):
        assert refusal(number, value)


@EACH
def test_a_number_is_taken_at_its_bounds_and_refused_beyond(number: Number) -> None:
    takes = TypeAdapter[float](Annotated[number.field.annotation, number.field])
    low, high = bounds(number.field)
    whole = number.field.annotation is int

    below = low.at - 1 if whole else math.nextafter(low.at, -math.inf)
    above = high.at + 1 if whole else math.nextafter(high.at, math.inf)

    assert "should be" in refusal(number, below)
    assert "should be" in refusal(number, above)
    for bound in (low, high):
        if bound.included:
            # By the field alone: some fields must not be above others.
            assert takes.validate_python(bound.at) == bound.at
        else:
            assert "should be" in refusal(number, bound.at)


@pytest.mark.parametrize("plugin", ["rank-fusion", "tournament"])
@pytest.mark.parametrize("weight", [math.nan, math.inf, -0.1, 101])
def test_weights_that_make_no_sense_are_refused(plugin: str, weight: float) -> None:
    [found] = entry_points(group="chorus.plugins", name=plugin)

    with pytest.raises(ValidationError) as caught:
        found.load().Settings(weights={"relevance": weight})

    assert [each["loc"] for each in caught.value.errors()] == [("weights", "relevance")]
