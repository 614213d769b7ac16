"""
Every first-party logits step and sampler, in the real engine with a tiny model.

Plugins are found by their entry points, so that a new one is tested the day it is
declared. What a set should be is taken from transformers (log-probabilities) and from
an engine that writes nothing else (tokens). Plugins are shared between the sets of a
batch, as they are between the turns of a bot.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bot.errors import TurnCancelled, TurnError
from bot.generation.attention import Read
from bot.generation.engine import Engine, Limits
from bot.generation.kv import Shape
from bot.generation.language_model import TransformersModel
from bot.generation.network import Network
from bot.interfaces import GenerationRequest, LogitsProcessor, ReadsVocabulary, Sampler
from bot.model import Candidate
from bot.testing import a_turn
from tests.generation.oracles import PlainSampler, Reference

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE_S = 20.0  # more than anything here takes
PROMPT = "How long does a refund take?"
NEW_TOKENS = 12

# Settings of those that have to be told something.
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "blocked-words": {"words": ["e", "ab", "五"]},
    "phrase-bias": {"phrases": ["five days", "五天"]},
}


def shipped(package: str) -> list[str]:
    """Return the names of the plugins of a package that have an entry point."""
    return sorted(each.name for each in declared() if package in each.value)


@cache
def declared() -> tuple[EntryPoint, ...]:
    found = entry_points(group="chorus.plugins")
    return tuple(each for each in found if each.value.startswith("plugins."))


LOGITS = shipped("plugins.logits.")
SAMPLERS = shipped("plugins.samplers.")
EACH = [("logits", name) for name in LOGITS] + [("samplers", name) for name in SAMPLERS]


def a_plugin(name: str, model: TransformersModel) -> Any:
    """Make a plugin as the bot does, by its name and its own defaults."""
    [found] = [each for each in declared() if each.name == name]
    kind = found.load()
    made = kind(kind.Settings(**EXAMPLES.get(name, {})))
    if isinstance(made, ReadsVocabulary):
        made.read_vocabulary(model.vocabulary)
    return made


@dataclass(eq=False)
class Passing:
    """The network. `at` acts before a pass, `change` on the logits that come out."""

    network: Network
    at: dict[int, Callable[[], None]] = field(default_factory=dict)
    change: Callable[[int, Tensor], Tensor] = lambda _, logits: logits
    passes: int = 0

    @property
    def shape(self) -> Shape:
        return self.network.shape

    def forward(self, reads: Sequence[Read]) -> Tensor:
        number, self.passes = self.passes, self.passes + 1
        self.at.get(number, lambda: None)()
        return self.change(number, self.network.forward(reads))


class Bench:
    """A loaded model with an engine of its own."""

    def __init__(self, loaded: TransformersModel) -> None:
        self.network = Passing(loaded._network)
        self.model = copy.copy(loaded)  # weights are loaded once
        self.model._engine = Engine(self.network, Limits())

    def write(
        self, *requests: GenerationRequest
    ) -> list[list[Candidate] | BaseException]:
        """Write sets in one batch, all of them from the first pass on."""
        engine = self.model._engine
        jobs = [self.model._writing(request) for request in requests]
        with engine._changed:  # nothing begins before all stand in line
            for job in jobs:
                engine.submit(job)
        found: list[list[Candidate] | BaseException] = []
        for request, job in zip(requests, jobs, strict=True):
            error = job.result.exception(PATIENCE_S)
            rows = job.siblings.rows
            found.append(error or [self.model._candidate(request, row) for row in rows])
        return found

    def holds_nothing(self) -> bool:
        engine = self.model._engine
        users = sum(node.users for node in engine._prefixes._nodes())
        return not (engine._running or engine._waiting or users or engine._charged())


@pytest.fixture(scope="module")
def loaded(tiny_folder: Callable[[str], Path]) -> TransformersModel:
    return TransformersModel(tiny_folder("llama"), "tiny", "cpu", threads=1)


@pytest.fixture(scope="module")
def reference(tiny_folder: Callable[[str], Path]) -> Reference:
    return Reference(tiny_folder("llama"))


@pytest.fixture
def bench(loaded: TransformersModel) -> Iterator[Callable[[], Bench]]:
    made: list[Bench] = []

    def make() -> Bench:
        made.append(Bench(loaded))
        return made[-1]

    yield make
    for each in made:
        each.model.close()


@dataclass(frozen=True, kw_only=True)
class Way:
    """How sets are drawn: the plugins, made once and shared."""

    sampler: Sampler
    processors: Sequence[LogitsProcessor] = ()

    def request(
        self, candidates: int, *, prompt: str = PROMPT, seed: int = 7, **more: Any
    ) -> GenerationRequest:
        return GenerationRequest(
            turn=a_turn(id=f"turn {seed}", prompt=prompt, seed=seed),
            candidates=candidates,
            max_new_tokens=NEW_TOKENS,
            sampler=self.sampler,
            logits_processors=self.processors,
            **more,
        )

    def company(self) -> list[GenerationRequest]:
        """Sets of other turns with the same plugins, and one with none of them."""
        other = Way(sampler=PlainSampler())
        return [
            self.request(3, prompt="And where? " * 4, seed=8),
            other.request(2, seed=9),
            self.request(5, seed=10),
        ]


def a_way(kind: str, name: str, model: TransformersModel) -> Way:
    plugin = a_plugin(name, model)
    if kind == "samplers":
        return Way(sampler=plugin)
    # One that the engine has to call, and that cuts nothing away by itself.
    return Way(sampler=PlainSampler(), processors=[plugin])


def stacked(sampler: str, model: TransformersModel) -> Way:
    """All logits steps at once; `blocked-words` asks to be the first of them."""
    first = ["blocked-words", *(name for name in LOGITS if name != "blocked-words")]
    processors = [a_plugin(name, model) for name in first]
    return Way(sampler=a_plugin(sampler, model), processors=processors)


def checked(
    found: list[Candidate] | BaseException, candidates: int, reference: Reference
) -> list[Candidate]:
    """Return a set that ended as it should, with the model's own log-probabilities."""
    assert not isinstance(found, BaseException), found
    assert len(found) == candidates
    for each in found:
        assert each.finish in ("stop", "length")
        assert 0 < len(each.tokens) <= NEW_TOKENS
        assert len(each.certainties) == len(each.tokens)
        assert all(math.isfinite(certainty) for certainty in each.certainties)
        expected = reference.log_probs(PROMPT, each.tokens)
        assert each.log_probs == pytest.approx(expected, abs=1e-4)
    return found


def same(one: list[Candidate] | BaseException, other: list[Candidate]) -> bool:
    """Equal tokens and ends; what they are worth to rounding, for batches differ."""
    assert not isinstance(one, BaseException), one
    assert [each.tokens for each in one] == [each.tokens for each in other]
    assert [each.finish for each in one] == [each.finish for each in other]
    for mine, its in zip(one, other, strict=True):
        assert mine.log_probs == pytest.approx(its.log_probs, abs=1e-4)
    return True


def test_what_is_declared_is_found() -> None:
    assert {"min-p", "dry", "blocked-words"} < set(LOGITS)
    assert {"multinomial", "beam", "arithmetic"} < set(SAMPLERS)


@pytest.mark.parametrize("candidates", [1, 3, 8])
@pytest.mark.parametrize(("kind", "name"), EACH)
def test_a_set_is_written_alike_alone_and_beside_others(
    bench: Callable[[], Bench],
    reference: Reference,
    kind: str,
    name: str,
    candidates: int,
) -> None:
    alone, crowded = bench(), bench()
    way = a_way(kind, name, alone.model)
    request = way.request(candidates)

    [found] = alone.write(request)
    [again] = alone.write(request)
    [beside, *others] = crowded.write(request, *way.company())

    written = checked(found, candidates, reference)
    assert same(again, written)
    assert same(beside, written)
    assert [len(each) for each in others if isinstance(each, list)] == [3, 2, 5]
    assert alone.holds_nothing()
    assert crowded.holds_nothing()


@pytest.mark.parametrize("candidates", [1, 3, 8])
@pytest.mark.parametrize("sampler", ["multinomial", "beam"])
def test_all_logits_steps_together_write_alike_alone_and_beside_others(
    bench: Callable[[], Bench], reference: Reference, sampler: str, candidates: int
) -> None:
    alone, crowded = bench(), bench()
    way = stacked(sampler, alone.model)
    request = way.request(candidates)

    [found] = alone.write(request)
    [beside, *others] = crowded.write(request, *way.company())

    written = checked(found, candidates, reference)
    assert same(beside, written)
    assert [len(each) for each in others if isinstance(each, list)] == [3, 2, 5]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_after_all_logits_steps(
    bench: Callable[[], Bench], reference: Reference, sampler: str
) -> None:
    own = bench()

    [found] = own.write(stacked(sampler, own.model).request(5))

    checked(found, 5, reference)


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_a_set_cancelled_in_the_middle_leaves_the_others_as_they_are(
    bench: Callable[[], Bench], kind: str, name: str
) -> None:
    undisturbed, own = bench(), bench()
    way = a_way(kind, name, own.model)
    expected = undisturbed.write(*way.company())
    cancelled = threading.Event()
    own.network.at[4] = cancelled.set

    [victim, *others] = own.write(way.request(8, cancelled=cancelled), *way.company())

    assert isinstance(victim, TurnCancelled)
    for found, its in zip(others, expected, strict=True):
        assert not isinstance(its, BaseException), its
        assert same(found, its)
    assert own.holds_nothing()


# What is not a number


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("nonsense", [math.nan, math.inf])
@pytest.mark.parametrize(("kind", "name"), EACH)
def test_the_models_nonsense_is_the_models_fault_not_a_plugins(
    bench: Callable[[], Bench], kind: str, name: str, nonsense: float, at: int
) -> None:
    own = bench()
    way = a_way(kind, name, own.model)

    def spoilt(number: int, logits: Tensor) -> Tensor:
        if number == at:
            logits = logits.clone()
            logits[-1, 70] = nonsense  # of one token in one row
        return logits

    own.network.change = spoilt

    [found] = own.write(way.request(3))

    assert isinstance(found, TurnError)
    assert "turn 'turn 7': the model gave NaN" in str(found)
    assert "generation.precision" in str(found)
