"""
The engine with real, tiny models: whatever happens to one set leaves the others alone.

What one set should be is taken from a model that writes it by itself, and for greedy
sets from transformers. `Spied` stands between the engine and its network, and lets a
test act at a certain pass.
"""

from __future__ import annotations

import copy
import gc
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import torch
from transformers import AutoTokenizer

from bot.errors import Overloaded, PluginError, TurnCancelled, TurnError
from bot.generation import language_model as language_model_module
from bot.generation.attention import Read
from bot.generation.engine import CHUNK_ALONE, CHUNK_BESIDE, Engine, Limits
from bot.generation.kv import Shape
from bot.generation.language_model import TransformersModel
from bot.generation.network import Network
from bot.generation.prefixes import Prefixes
from bot.interfaces import Draw, GenerationRequest, LogitsProcessor, Sampler, Truncation
from bot.model import Candidate, Turn
from bot.testing import a_turn
from plugins.logits.min_p import MinP
from plugins.samplers.multinomial import Multinomial
from tests.generation.oracles import END, PlainSampler, Reference

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.slow  # test-fast does without

T = TypeVar("T")

PATIENCE_S = 20.0  # more than anything here takes
SHORT = "Hi"
MIDDLE = "How long does a refund take?"
LONG = "Persona, rules, and all that was said before. " * 4


# Parts


def multinomial(**settings: Any) -> Multinomial:
    """The shipped sampler, which the engine draws for by itself."""
    chosen = {"temperature": 1.0, "top_k": 50, "top_p": 0.95} | settings
    return Multinomial(Multinomial.Settings(**chosen))


GREEDY = multinomial(temperature=0.0)


@dataclass
class Acting:
    """A logits processor that changes nothing, and does something at its nth call."""

    call: int
    act: Callable[[], None]
    name: str = "acting"
    changes_argmax: bool = True

    def begin(self, turn: Turn, siblings: int) -> Callable[[Tensor, Tensor], Tensor]:
        calls = iter(range(10_000))

        def step(tokens: Tensor, logits: Tensor) -> Tensor:
            if next(calls) == self.call:
                self.act()
            return logits

        return step


@dataclass
class Spelling:
    """Writes the same bytes in every row."""

    text: bytes
    tokens: dict[int, int]
    name: str = "spelling"
    done_after: int | None = None

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        places = iter(range(len(self.text)))

        def step(logits: Tensor) -> Draw:
            place = next(places)
            done = None
            if self.done_after is not None:
                done = torch.zeros(siblings, dtype=torch.bool)
                done[0] = place >= self.done_after
            token = self.tokens[self.text[place]]
            return Draw(tokens=torch.full((siblings,), token), done=done)

        return step


class Spied:
    """The network, and what passed through it. `at` acts before the nth pass."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.passes: list[Sequence[Read]] = []
        self.at: dict[int, Callable[[], None]] = {}
        self.always: list[Callable[[Sequence[Read]], None]] = []

    @property
    def shape(self) -> Shape:
        return self._network.shape

    def forward(self, reads: Sequence[Read]) -> Tensor:
        number = len(self.passes)
        self.passes.append(reads)
        self.at.get(number, lambda: None)()
        for look in self.always:
            look(reads)
        return self._network.forward(reads)

    def tokens_in_passes(self) -> list[int]:
        return [sum(read.tokens.numel() for read in reads) for reads in self.passes]


class Bench:
    """A model whose engine is spied on, and threads that ask it."""

    def __init__(self, loaded: TransformersModel, **limits: Any) -> None:
        # Weights are loaded once; the engine is new.
        self.model = copy.copy(loaded)
        self.spy = Spied(loaded._network)
        self.model._limits = Limits(**limits)
        self.model._engine = Engine(self.spy, self.model._limits)
        self.engine = self.model._engine
        self._threads = ThreadPoolExecutor(16)

    def ask(self, request: GenerationRequest) -> Future[list[Candidate]]:
        return self._threads.submit(self.model.generate, request)

    def ask_in_line(self, request: GenerationRequest) -> Future[list[Candidate]]:
        return self.in_line(self.model.generate, request)

    def in_line(self, ask: Callable[..., T], *what: Any) -> Future[T]:
        """Ask, and return once the job stands in line: to be used before a pass."""
        engine = self.engine
        with engine._changed:
            line = len(engine._waiting)
            asked = self._threads.submit(ask, *what)
            # Those who end instead of waiting in line notify nobody.
            asked.add_done_callback(lambda _: self._notify())
            in_line = engine._changed.wait_for(
                lambda: len(engine._waiting) > line or asked.done(), PATIENCE_S
            )
        assert in_line
        return asked

    def _notify(self) -> None:
        with self.engine._changed:
            self.engine._changed.notify_all()

    def write(
        self, *requests: GenerationRequest
    ) -> list[list[Candidate] | BaseException]:
        """Write them all at once; errors are results."""
        return results([self.ask(request) for request in requests])

    def nothing_is_held(self) -> bool:
        engine = self.engine
        jobs = [*engine._waiting, *engine._running]
        users = sum(node.users for node in engine._prefixes._nodes())
        return not jobs and not users and engine._charged() == 0

    def close(self) -> None:
        self.model.close()
        self._threads.shutdown()


def results(
    asked: Sequence[Future[list[Candidate]]],
) -> list[list[Candidate] | BaseException]:
    found: list[list[Candidate] | BaseException] = []
    for each in asked:
        error = each.exception(PATIENCE_S)
        found.append(each.result() if error is None else error)
    return found


@pytest.fixture(scope="module")
def loaded(tiny_folder: Callable[[str], Path]) -> Callable[[str], TransformersModel]:
    return cache(
        lambda kind: TransformersModel(tiny_folder(kind), kind, "cpu", threads=1)
    )


@pytest.fixture
def bench(
    loaded: Callable[[str], TransformersModel],
) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(kind: str = "llama", **limits: Any) -> Bench:
        made.append(Bench(loaded(kind), **limits))
        return made[-1]

    yield make
    for each in made:
        each.close()


def a_request(
    prompt: str = MIDDLE,
    candidates: int = 2,
    max_new_tokens: int = 16,
    sampler: Sampler | None = None,
    *processors: LogitsProcessor,
    seed: int = 1,
    **more: Any,
) -> GenerationRequest:
    return GenerationRequest(
        turn=a_turn(id=f"turn {seed}", prompt=prompt, seed=seed),
        candidates=candidates,
        max_new_tokens=max_new_tokens,
        sampler=sampler or multinomial(),
        logits_processors=processors,
        **more,
    )


COMPANY = [
    a_request(SHORT, 3, 30, PlainSampler(), seed=11),
    a_request(LONG, 2, 20, multinomial(top_k=0), MinP(MinP.Settings(minimum=0.1))),
    a_request(MIDDLE + " And where?", 4, 9, multinomial(temperature=2.0), seed=13),
    a_request(LONG + "Yes.", 1, 40, GREEDY, seed=14),
]


@pytest.fixture(scope="module")
def company_alone(
    loaded: Callable[[str], TransformersModel],
) -> list[list[Candidate]]:
    """Each set of the company, written by an engine that writes nothing else."""
    found = []
    for request in COMPANY:
        own = Bench(loaded("llama"))
        found.append(own.model.generate(request))
        own.close()
    return found


@dataclass
class Told:
    """What a request's watcher was told, by sibling."""

    texts: dict[int, list[str]] = field(default_factory=dict)

    def __call__(self, number: int, text: str) -> None:
        self.texts.setdefault(number, []).append(text)


def same(
    found: Sequence[Candidate] | BaseException, expected: Sequence[Candidate]
) -> bool:
    """Equal tokens and ends; log-probabilities to rounding, for batches differ."""
    assert not isinstance(found, BaseException), found
    assert [each.tokens for each in found] == [each.tokens for each in expected]
    assert [each.finish for each in found] == [each.finish for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
    return True


# Greedy sets are those of transformers


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral", "gemma2"])
def test_greedy_sets_that_join_and_leave_midway_are_those_of_transformers(
    bench: Callable[..., Bench], tiny_folder: Callable[[str], Path], kind: str
) -> None:
    asked = [(SHORT, 3, 40), (LONG, 2, 8), (MIDDLE, 1, 25), (LONG + "No.", 4, 31)]
    own = bench(kind)
    sets: list[Future[list[Candidate]]] = []

    def join(number: int) -> None:
        prompt, count, new = asked[number]
        sets.append(own.ask_in_line(a_request(prompt, count, new, GREEDY)))

    own.spy.at = {1: lambda: join(1), 4: lambda: join(2), 12: lambda: join(3)}
    sets.append(own.ask(a_request(*asked[0], GREEDY)))
    first = sets[0].result(PATIENCE_S)
    written = [first, *(each.result(PATIENCE_S) for each in sets[1:])]

    reference = Reference(tiny_folder(kind))
    for (prompt, count, new), rows in zip(asked, written, strict=True):
        expected = reference.greedy(prompt, new)
        assert [list(row.tokens) for row in rows] == [expected] * count
    together = max(len(reads) for reads in own.spy.passes)
    assert together >= 3
    assert own.nothing_is_held()


# The same, whoever else is there


@pytest.mark.parametrize(
    "sampler", [multinomial(), multinomial(top_k=0), PlainSampler()]
)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_seed_gives_the_same_candidates_whatever_else_is_written(
    bench: Callable[..., Bench], kind: str, sampler: Sampler
) -> None:
    request = a_request(MIDDLE, 4, 24, sampler, seed=5)
    alone = bench(kind).model.generate(request)
    crowded = bench(kind)

    for _ in range(2):  # the second time all prompts are known
        found, *others = crowded.write(request, *COMPANY)
        assert same(found, alone)
        assert not any(isinstance(each, BaseException) for each in others)

    assert len({each.tokens for each in alone}) > 1


def test_a_seed_gives_the_same_candidates_beside_a_wide_top_k(
    bench: Callable[..., Bench],
) -> None:
    request = a_request(MIDDLE, 4, 24, multinomial(top_k=0, top_p=1.0), seed=5)
    alone = bench().model.generate(request)
    crowded = bench()
    wide = a_request(SHORT, 4, 40, multinomial(top_k=1000))
    others: list[Future[list[Candidate]]] = []

    crowded.spy.at[0] = lambda: others.append(crowded.ask_in_line(request))
    crowded.model.generate(wide)

    assert same(results(others)[0], alone)


def test_log_probs_of_sets_written_together_are_those_of_a_plain_forward_pass(
    bench: Callable[..., Bench], tiny_folder: Callable[[str], Path]
) -> None:
    written = bench().write(*COMPANY)

    reference = Reference(tiny_folder("llama"))
    for request, rows in zip(COMPANY, written, strict=True):
        assert not isinstance(rows, BaseException)
        for row in rows:
            expected = reference.log_probs(request.turn.prompt, row.tokens)
            assert row.log_probs == pytest.approx(expected, abs=1e-4)


def test_scoring_beside_sets_changes_neither(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
) -> None:
    pairs = ([LONG, MIDDLE, LONG], ["Five days.", "No", "Or ten?"])
    expected = bench().model.log_probs(*pairs)
    own = bench()
    scored: list[Any] = []

    def score() -> None:
        scored.append(own.in_line(own.model.log_probs, *pairs))

    own.spy.at = {3: score, 5: score}
    written = own.write(*COMPANY)

    for found, its in zip(written, company_alone, strict=True):
        assert same(found, its)
    for each in scored:
        for row, scores in zip(each.result(PATIENCE_S), expected, strict=True):
            assert row == pytest.approx(scores, abs=1e-4)


def test_the_next_turn_reads_only_what_is_new(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    own = bench()
    own.model.generate(a_request(LONG, 2, 5, Spelling(b"Sure.", bytes_to_tokens)))
    first = len(own.spy.passes)

    own.model.generate(a_request(LONG + "Sure. And then?", 1, 1, GREEDY))

    # The last token of a reply is drawn, and nothing ever read it.
    assert sum(own.spy.tokens_in_passes()[first:]) == len(". And then?")


# Cancelling, refusing, failing one set


def disturbed(
    own: Bench, at: int, disturb: Callable[[], None], victim: GenerationRequest
) -> tuple[BaseException, list[list[Candidate] | BaseException]]:
    """Write the company beside a victim, and disturb before a pass."""
    own.spy.at[at] = disturb
    found, *others = own.write(victim, *COMPANY)
    assert isinstance(found, BaseException)
    return found, others


@pytest.mark.parametrize("at", [1, 6])
@pytest.mark.parametrize("sampler", [multinomial(), PlainSampler()])
def test_cancelling_one_set_leaves_the_others_unchanged(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
    sampler: Sampler,
    at: int,
) -> None:
    cancelled = threading.Event()
    own = bench()

    error, others = disturbed(
        own, at, cancelled.set, a_request(LONG, 5, 60, sampler, cancelled=cancelled)
    )

    assert isinstance(error, TurnCancelled)
    for found, its in zip(others, company_alone, strict=True):
        assert same(found, its)
    assert own.nothing_is_held()


def fail() -> None:
    raise ZeroDivisionError


def test_a_plugin_that_raises_fails_its_own_set_alone(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
) -> None:
    own = bench()

    error, *others = own.write(
        a_request(LONG, 5, 60, multinomial(), Acting(4, fail)), *COMPANY
    )

    assert isinstance(error, PluginError)
    assert "plugin 'acting': raised ZeroDivisionError" in str(error)
    for found, its in zip(others, company_alone, strict=True):
        assert same(found, its)
    assert own.nothing_is_held()


@pytest.mark.parametrize("which", ["on_text", "until"])
def test_what_looks_on_and_raises_fails_its_own_set_alone(
    bench: Callable[..., Bench], company_alone: list[list[Candidate]], which: str
) -> None:
    own = bench()

    def look_on(*_: object) -> bool:
        raise ZeroDivisionError

    watched: dict[str, Any] = {which: look_on}
    error, *others = own.write(a_request(LONG, 5, 60, **watched), *COMPANY)

    assert isinstance(error, TurnError)
    assert "the generator failed (ZeroDivisionError: )" in str(error)
    for found, its in zip(others, company_alone, strict=True):
        assert same(found, its)
    assert own.nothing_is_held()


@dataclass
class Hanging:
    """Hangs in one of its calls until it is let go."""

    let_go: threading.Event
    where: str = "step"
    name: str = "hanging"

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        if self.where == "begin":
            self.let_go.wait(PATIENCE_S)
        step = PlainSampler().begin(turn, siblings, generator)
        calls = iter(range(10_000))

        def hang(logits: Tensor) -> Draw:
            if next(calls) == 2:
                self.let_go.wait(PATIENCE_S)
            return step(logits)

        return hang


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    monkeypatch.setattr(language_model_module, "LOOK_S", 0.02)
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("where", ["begin", "step"])
def test_a_plugin_that_hangs_loses_its_set_and_nothing_else(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
    let_go: threading.Event,
    where: str,
) -> None:
    own = bench(plugin_s=0.3)
    first_thread = own.engine._thread

    error, *others = own.write(a_request(LONG, 5, 60, Hanging(let_go, where)), *COMPANY)

    assert isinstance(error, PluginError)
    assert "plugin 'hanging': no answer within 0.3 s" in str(error)
    for found, its in zip(others, company_alone, strict=True):
        assert same(found, its)
    assert own.nothing_is_held()
    assert first_thread.is_alive()
    # It comes back, finds that its work is another's, and ends without touching it.
    let_go.set()
    first_thread.join(PATIENCE_S)
    assert not first_thread.is_alive()
    assert same(own.write(COMPANY[0])[0], company_alone[0])


def test_a_plugin_that_hung_three_times_is_left_out(
    bench: Callable[..., Bench], let_go: threading.Event
) -> None:
    own = bench(plugin_s=0.1)
    expected = own.model.generate(COMPANY[0])
    hangs = a_request(sampler=Hanging(let_go))

    errors = [own.write(hangs)[0] for _ in range(4)]

    assert all(isinstance(each, PluginError) for each in errors)
    assert ["left out" in str(each) for each in errors] == [False, False, False, True]
    assert same(own.write(COMPANY[0])[0], expected)


def test_a_full_queue_refuses_at_once_and_disturbs_nobody(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
) -> None:
    own = bench(queue=2)
    in_line: list[Future[list[Candidate]]] = []
    refused: list[Future[list[Candidate]]] = []

    def crowd() -> None:
        in_line.extend(own.ask_in_line(request) for request in COMPANY[1:3])
        refused.append(own.ask_in_line(a_request()))

    own.spy.at[2] = crowd
    first = own.model.generate(COMPANY[0])

    error = refused[0].exception(PATIENCE_S)
    assert isinstance(error, Overloaded)
    assert "2 candidate sets wait already" in str(error)
    for found, its in zip([first, *results(in_line)], company_alone[:3], strict=True):
        assert same(found, its)


def test_scoring_is_not_refused_by_a_queue_of_sets(
    bench: Callable[..., Bench],
) -> None:
    own = bench(queue=1)
    scored: list[Any] = []

    def crowd() -> None:
        own.ask_in_line(COMPANY[1])
        scored.append(own.in_line(own.model.log_probs, [MIDDLE], ["Yes"]))

    own.spy.at[2] = crowd
    own.model.generate(COMPANY[0])

    assert len(scored[0].result(PATIENCE_S)[0]) == 3


def test_a_set_that_can_never_fit_is_refused_at_once_with_its_size(
    bench: Callable[..., Bench],
) -> None:
    own = bench(tokens=100)
    refused: list[BaseException | None] = []
    own.spy.at[2] = lambda: refused.append(
        own.ask(a_request(MIDDLE, 4, 20)).exception(PATIENCE_S)
    )

    own.model.generate(a_request(MIDDLE, 2, 20))

    said = str(refused[0])
    assert isinstance(refused[0], TurnError)
    assert "'turn 1': needs memory for 108 tokens, 28 of the prompt" in said
    assert "generation.kv_tokens is 100" in said
    assert own.nothing_is_held()


# The network fails


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def out_of_the_machines_memory() -> None:
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("raising", [out_of_memory, out_of_the_machines_memory])
@pytest.mark.parametrize("at", [0, 2, 9])
def test_memory_that_is_short_for_a_moment_changes_no_set(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
    at: int,
    raising: Callable[[], None],
) -> None:
    own = bench()
    own.spy.at[at] = raising

    written = own.write(*COMPANY)

    for found, its in zip(written, company_alone, strict=True):
        assert same(found, its)
    assert own.nothing_is_held()


def test_the_youngest_set_fails_when_memory_stays_short(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
) -> None:
    own = bench()
    joined: list[Future[list[Candidate]]] = []

    def no_more_than_six_rows(reads: Sequence[Read]) -> None:
        if sum(read.tokens.shape[0] for read in reads) > 6:
            out_of_memory()

    def join() -> None:
        joined.append(own.ask_in_line(COMPANY[1]))
        joined.append(own.ask_in_line(a_request(SHORT, 6, 20, seed=99)))

    own.spy.always.append(no_more_than_six_rows)
    own.spy.at[3] = join
    first = own.model.generate(COMPANY[0])
    second, youngest = results(joined)

    assert same(first, company_alone[0])
    assert same(second, company_alone[1])
    assert isinstance(youngest, TurnError)
    assert "turn 'turn 99': out of memory" in str(youngest)
    assert "lower generation.kv_tokens" in str(youngest)
    assert own.nothing_is_held()
    assert same(own.write(COMPANY[0])[0], company_alone[0])


def test_rows_that_memory_is_too_short_for_fail_alone(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = bench()
    rows = Network.rows

    def short(network: Network, count: int, *more: Any) -> Any:
        if count > 4:
            out_of_the_machines_memory()
        return rows(network, count, *more)

    monkeypatch.setattr(Network, "rows", short)
    error, *others = own.write(a_request(SHORT, 5, 20), *COMPANY)

    assert isinstance(error, TurnError)
    assert "out of memory" in str(error)
    for found, its in zip(others, company_alone, strict=True):
        assert same(found, its)
    assert own.nothing_is_held()


OFF_THE_PASS = {
    "drawing": ("bot.generation.engine.draw", 2),
    "keeping a prompt": ("bot.generation.prefixes.Prefixes.keep", 2),
    "splitting what is kept": ("bot.generation.prefixes.Prefixes._split", 0),
    "keeping what was written": ("bot.generation.jobs.Writing._hold", 5),
    "scoring": ("bot.generation.jobs.Scoring.take", 0),
}


@pytest.mark.parametrize(
    "what",
    [
        "drawing",
        "keeping a prompt",
        "splitting what is kept",
        "keeping what was written",
        "scoring",
    ],
)
def test_memory_that_is_short_outside_of_a_pass_changes_no_other_set(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    scores = bench().model.log_probs([MIDDLE], ["Yes"])[0]
    place, call = OFF_THE_PASS[what]
    works = _found(place)
    calls = iter(range(10_000))

    def short_once(*given: Any, **named: Any) -> Any:
        if next(calls) == call:
            out_of_memory()
        return works(*given, **named)

    monkeypatch.setattr(place, short_once)
    own = bench()
    asked: list[Future[Any]] = []

    def crowd() -> None:
        asked.extend(own.ask_in_line(request) for request in COMPANY[1:])
        asked.append(own.in_line(own.model.log_probs, [MIDDLE], ["Yes"]))

    own.spy.at[1] = crowd
    first = own.write(COMPANY[0])
    *others, scored = asked
    written = [*first, *results(others)]

    assert next(calls) > call
    failed = [each for each in written if isinstance(each, BaseException)]
    failed += [error] if (error := scored.exception(PATIENCE_S)) else []
    assert len(failed) <= 1
    assert all("out of memory" in str(each) for each in failed)
    for found, its in zip(written, company_alone, strict=True):
        assert isinstance(found, BaseException) or same(found, its)
    if error is None:
        assert scored.result()[0] == pytest.approx(scores, abs=1e-4)
    assert own.nothing_is_held()


def _found(place: str) -> Callable[..., Any]:
    module, name = place.rsplit(".", 1)
    found: Callable[..., Any] = getattr(resolve_name(module), name)
    return found


def test_another_failure_of_the_network_fails_who_was_in_the_pass_and_no_more(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
) -> None:
    own = bench()
    late: list[Future[list[Candidate]]] = []

    def fail_with_somebody_in_line() -> None:
        late.extend(own.ask_in_line(request) for request in COMPANY[1:])
        fail()

    own.spy.at[4] = fail_with_somebody_in_line
    error = own.write(COMPANY[0])[0]

    assert isinstance(error, TurnError)
    assert "turn 'turn 11': the generator failed (ZeroDivisionError: )" in str(error)
    for found, its in zip(results(late), company_alone[1:], strict=True):
        assert same(found, its)
    assert same(own.write(COMPANY[0])[0], company_alone[0])
    assert own.nothing_is_held()


def test_a_set_that_cannot_even_be_taken_up_fails_and_lets_the_next_one_pass(
    bench: Callable[..., Bench],
    company_alone: list[list[Candidate]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = bench()
    known = Prefixes.known
    cursed = own.model._text.tokens("cursed")

    def fails_for_one(prefixes: Prefixes, tokens: Sequence[int]) -> int:
        if list(tokens) == cursed:
            raise ZeroDivisionError
        return known(prefixes, tokens)

    monkeypatch.setattr(Prefixes, "known", fails_for_one)

    error, its = own.write(a_request("cursed"), COMPANY[0])

    assert isinstance(error, TurnError)
    assert "the generator failed (ZeroDivisionError: )" in str(error)
    assert same(its, company_alone[0])
    assert own.nothing_is_held()


# The end


def test_closing_fails_what_is_not_finished_and_refuses_what_comes_later(
    bench: Callable[..., Bench],
) -> None:
    own = bench(tokens=100)
    waiting: list[Future[list[Candidate]]] = []
    closing = threading.Thread(target=own.model.close)

    def close() -> None:
        # Too large to be taken up beside the other.
        waiting.append(own.ask_in_line(a_request(MIDDLE, 3, 20)))
        closing.start()
        with own.engine._changed:
            own.engine._changed.wait_for(lambda: own.engine._closed, PATIENCE_S)

    own.spy.at[3] = close
    errors = [own.write(a_request(MIDDLE, 3, 20))[0], results(waiting)[0]]
    closing.join(PATIENCE_S)

    for error in errors:
        assert isinstance(error, TurnError)
        assert "shutting down" in str(error)
    assert not own.engine._thread.is_alive()
    with pytest.raises(TurnError, match="shutting down"):
        own.model.generate(a_request())
    with pytest.raises(TurnError, match="shutting down"):
        own.model.log_probs([MIDDLE], ["Yes"])
    assert own.nothing_is_held()


def test_an_idle_engine_closes_at_once_and_twice(bench: Callable[..., Bench]) -> None:
    own = bench()

    own.model.close()
    own.model.close()

    assert not own.engine._thread.is_alive()


def test_closing_gives_up_a_plugin_that_hangs(
    bench: Callable[..., Bench], let_go: threading.Event
) -> None:
    own = bench(plugin_s=0.2)
    asked = own.ask(a_request(sampler=Hanging(let_go, "begin")))
    with own.engine._changed:
        own.engine._changed.wait_for(lambda: own.engine._running, 0.1)

    own.model.close()

    error = asked.exception(PATIENCE_S)
    assert isinstance(error, (PluginError, TurnError))


# Who comes first


def test_scoring_goes_before_sets_and_customers_before_the_background(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One prompt at a time is read, so the order of prompts is that of the jobs.
    monkeypatch.setattr("bot.generation.engine.CHUNK_BESIDE", 8)
    own = bench()
    asked: list[Future[Any]] = []

    def crowd() -> None:
        for letter, background in (("b", True), ("c", False), ("d", False)):
            request = a_request(letter * 30, 1, 2, background=background)
            asked.append(own.ask_in_line(request))
        asked.append(own.in_line(own.model.log_probs, ["s" * 30], ["Yes"]))

    own.spy.at[2] = crowd
    own.model.generate(a_request("a" * 20, 1, 60, GREEDY))

    for each in asked:
        each.result(PATIENCE_S)
    order = dict.fromkeys(_letters(own))
    assert list(order) == ["a", "s", "c", "d", "b"]


def _letters(own: Bench) -> Iterator[str]:
    """Of which prompts chunks were read, in order."""
    for reads in own.spy.passes:
        for read in reads:
            if read.tokens.shape[0] == 1 and read.tokens.shape[1] > 3:
                yield own.model._text.raw(read.tokens[0].tolist())[:1]


# Passes and memory


def test_a_newcomers_prompt_is_read_in_chunks_beside_those_who_write(
    bench: Callable[..., Bench],
) -> None:
    own = bench()
    joined: list[Future[list[Candidate]]] = []

    def join() -> None:
        prompts = [letter * 200 for letter in "xyz"]  # nothing in common
        joined.extend(own.ask_in_line(a_request(prompt, 2, 10)) for prompt in prompts)

    own.spy.at[2] = join
    own.model.generate(a_request(SHORT, 3, 60, PlainSampler()))

    results(joined)
    beside = own.spy.tokens_in_passes()[2:]
    assert sum(beside) > 3 * 200
    rows = 3 + 3 * 2
    assert max(beside) <= CHUNK_BESIDE + rows
    for reads in own.spy.passes[2:]:
        assert sum(map(_chunk_tokens, reads)) <= CHUNK_BESIDE


def _chunk_tokens(read: Read) -> int:
    count, new = read.tokens.shape
    return new if count == 1 and new > 1 else 0


def test_a_prompt_alone_is_read_in_large_chunks(bench: Callable[..., Bench]) -> None:
    own = bench()

    own.model.generate(a_request("x" * 250, 1, 2))

    assert own.spy.tokens_in_passes()[0] == 250 <= CHUNK_ALONE


@pytest.mark.parametrize("tokens", [280, 400, 1000])
def test_sets_beyond_the_memory_wait_and_come_out_the_same(
    bench: Callable[..., Bench], company_alone: list[list[Candidate]], tokens: int
) -> None:
    own = bench(tokens=tokens)
    used: list[int] = []

    def look(_: Sequence[Read]) -> None:
        used.append(own.engine._prefixes.tokens + own.engine._charged())

    own.spy.always.append(look)
    for _ in range(3):
        written = own.write(*COMPANY)
        for found, its in zip(written, company_alone, strict=True):
            assert same(found, its)

    assert max(used) <= tokens
    assert own.nothing_is_held()
    assert own.engine._prefixes.tokens <= tokens


def test_a_finished_sets_memory_is_freed(bench: Callable[..., Bench]) -> None:
    own = bench(tokens=300)
    for number in range(4):
        own.model.generate(a_request(f"{number} {MIDDLE}", 3, 30))
    gc.collect()

    one = own.model._network.shape.bytes_per_token
    kept = sum(
        node.segment.untyped_storage().nbytes()
        for node in own.engine._prefixes._nodes()
    )

    assert kept == own.engine._prefixes.tokens * one
    assert own.engine._prefixes.tokens <= 300


# Text that grows


@pytest.fixture(scope="session")
def bytes_to_tokens(tiny_folder: Callable[[str], Path]) -> dict[int, int]:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    texts = ["".join(map(chr, range(1, 128))), "éüß世界→", "\U0001f600"]
    found: dict[int, int] = {}
    for text in texts:
        tokens = tokenizer.encode(text, add_special_tokens=False)
        found.update(zip(text.encode(), tokens, strict=True))
    return found


def test_a_text_grows_by_whole_characters_up_to_the_candidates_own(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    text, told = "Größe: 世界 → \U0001f600.".replace("ö", "ü"), Told()
    sampler = Spelling(text.encode(), bytes_to_tokens)

    rows = bench().model.generate(
        a_request(SHORT, 2, len(text.encode()), sampler, on_text=told)
    )

    assert [row.text for row in rows] == [text, text]
    for number in (0, 1):
        shown = told.texts[number]
        assert shown == [text[:end] for end in range(1, len(text) + 1)]


@pytest.mark.parametrize("sampler", [multinomial(top_k=0, top_p=1.0), PlainSampler()])
def test_whatever_bytes_are_drawn_a_text_only_grows(
    bench: Callable[..., Bench], sampler: Sampler
) -> None:
    told = Told()

    rows = bench().model.generate(
        a_request(
            MIDDLE, 6, 80, sampler, MinP(MinP.Settings(minimum=1e-9)), on_text=told
        )
    )

    assert any("\N{REPLACEMENT CHARACTER}" in row.text for row in rows)
    for number, row in enumerate(rows):
        shown = told.texts[number]
        for shorter, longer in pairwise(shown):
            assert longer.startswith(shorter)
            assert len(longer) > len(shorter)
        end = shown[-1].rstrip("\N{REPLACEMENT CHARACTER}").strip()
        assert end == row.text


def test_rows_that_go_on_from_others_show_their_parents_text(
    bench: Callable[..., Bench],
) -> None:
    told = Told()

    @dataclass
    class Swapping:
        name: str = "swapping"

        def begin(
            self, turn: Turn, siblings: int, generator: torch.Generator
        ) -> Callable[[Tensor], Draw]:
            def step(logits: Tensor) -> Draw:
                parents = torch.randint(siblings, (siblings,), generator=generator)
                tokens = torch.randint(40, 80, (siblings,), generator=generator)
                return Draw(tokens=tokens, parents=parents)

            return step

    rows = bench().model.generate(a_request(SHORT, 4, 20, Swapping(), on_text=told))

    for number, row in enumerate(rows):
        assert told.texts[number][-1].strip() == row.text


def test_a_stop_string_is_never_shown_not_even_its_beginning(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    told = Told()
    sampler = Spelling(b"Us? Five days. User: more", bytes_to_tokens)

    (row,) = bench().model.generate(
        a_request(SHORT, 1, 30, sampler, stop=["User:", "Bot:"], on_text=told)
    )

    assert (row.text, row.finish) == ("Us? Five days.", "stop")
    shown = told.texts[0]
    assert "Us? Five days. " in shown
    assert all("Us? Five days. ".startswith(each) for each in shown)
    assert "U" not in shown
    assert shown[-1].strip() == row.text


@pytest.mark.parametrize("ends", ["limit", "end token"])
def test_what_only_looked_like_a_stop_string_is_shown_at_the_end(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int], ends: str
) -> None:
    told = Told()
    tokens = bytes_to_tokens | {0: END}
    sampler = Spelling(b"It is Us\0", tokens)
    limit = len("It is Us") + (ends == "end token")

    (row,) = bench().model.generate(
        a_request(SHORT, 1, limit, sampler, stop=["User:"], on_text=told)
    )

    assert row.text == "It is Us"
    assert told.texts[0][-1] == row.text


# Blocks


def test_until_ends_the_row_that_it_says_yes_to(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    asked: list[str] = []

    def after_the_stop(text: str) -> bool:
        asked.append(text)
        return text.endswith(".")

    sampler = Spelling(b"It takes five. Days.", bytes_to_tokens)
    (row,) = bench().model.generate(
        a_request(SHORT, 1, 30, sampler, until=after_the_stop)
    )

    assert (row.text, row.finish) == ("It takes five.", "block")
    assert asked[-1] == "It takes five."
    assert len(row.tokens) == len(row.log_probs) == len("It takes five.")


def test_an_end_token_says_more_than_the_end_of_a_block(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    sampler = Spelling(b"Yes\0", bytes_to_tokens | {0: END})

    (row,) = bench().model.generate(
        a_request(SHORT, 1, 30, sampler, until=lambda text: len(text) > 9)
    )

    assert (row.text, row.finish) == ("Yes", "stop")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_going_on_from_what_is_begun_is_writing_without_a_break(
    bench: Callable[..., Bench], kind: str
) -> None:
    whole = bench(kind).model.generate(a_request(MIDDLE, 1, 40, GREEDY))[0]
    own = bench(kind)

    begun = own.model.generate(a_request(MIDDLE, 3, 15, GREEDY))[1]
    rows = own.model.generate(a_request(MIDDLE, 3, 25, GREEDY, begun=begun))

    assert begun.tokens == whole.tokens[:15]
    for row in rows:
        assert row.tokens == whole.tokens
        assert row.log_probs[:15] == begun.log_probs
        assert row.log_probs == pytest.approx(whole.log_probs, abs=1e-4)
        assert (row.text, row.finish) == (whole.text, whole.finish)


def test_logits_steps_see_what_was_begun(bench: Callable[..., Bench]) -> None:
    own = bench()
    seen: list[list[list[int]]] = []

    @dataclass
    class Seeing:
        name: str = "seeing"
        changes_argmax: bool = True

        def begin(
            self, turn: Turn, siblings: int
        ) -> Callable[[Tensor, Tensor], Tensor]:
            def step(tokens: Tensor, logits: Tensor) -> Tensor:
                seen.append(tokens.tolist())
                return logits

            return step

    begun = own.model.generate(a_request(MIDDLE, 1, 5, GREEDY))[0]
    (row,) = own.model.generate(a_request(MIDDLE, 1, 2, GREEDY, Seeing(), begun=begun))

    assert seen == [[list(row.tokens[:5])], [list(row.tokens[:6])]]


def test_a_text_that_goes_on_is_shown_whole(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    own, told = bench(), Told()
    until = replace(
        a_request(SHORT, 1, 30, Spelling(b"One. Two. Three.", bytes_to_tokens)),
        until=lambda text: text.endswith("."),
    )
    (first,) = own.model.generate(until)
    sampler = Spelling(" Zwü.".encode(), bytes_to_tokens)

    (second,) = own.model.generate(
        replace(
            until,
            begun=first,
            sampler=sampler,
            until=None,
            on_text=told,
            max_new_tokens=6,
        )
    )

    assert (first.text, second.text) == ("One.", "One. Zwü.")
    assert told.texts[0][-1] == second.text
    assert all(each.startswith("One.") for each in told.texts[0])


def test_white_space_at_the_end_of_a_block_is_not_lost_in_what_is_shown(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    own, told = bench(), Told()
    sampler = Spelling(b"One.\nTwo.", bytes_to_tokens)
    (first,) = own.model.generate(
        a_request(SHORT, 1, 30, sampler, until=lambda text: text.endswith(".\n"))
    )

    (second,) = own.model.generate(
        a_request(
            SHORT,
            1,
            4,
            Spelling(b"Two.", bytes_to_tokens),
            begun=first,
            on_text=told,
        )
    )

    assert second.text == "One.\nTwo."
    assert told.texts[0][-1] == second.text


def test_a_character_cut_in_two_by_a_block_is_shown_once(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    own, told = bench(), Told()
    text = "So groß".encode()
    (first,) = own.model.generate(
        a_request(SHORT, 1, len(text) - 1, Spelling(text, bytes_to_tokens))
    )

    (second,) = own.model.generate(
        a_request(
            SHORT,
            1,
            1,
            Spelling(text[-1:], bytes_to_tokens),
            begun=first,
            on_text=told,
        )
    )

    assert (first.text, second.text) == ("So gro", "So groß")
    assert told.texts[0] == ["So groß"]


# Ends


def test_a_row_the_sampler_is_done_with_leaves_and_the_others_go_on(
    bench: Callable[..., Bench], bytes_to_tokens: dict[int, int]
) -> None:
    own = bench()
    sampler = Spelling(b"one two", bytes_to_tokens, done_after=2)

    rows = own.model.generate(a_request(SHORT, 3, 7, sampler))

    assert [row.text for row in rows] == ["one", "one two", "one two"]
    assert [row.finish for row in rows] == ["length"] * 3
    # After the prompt: two tokens in three rows, then four in the two that go on.
    read = [reads[0].tokens.shape[0] for reads in own.spy.passes]
    assert read == [1, 3, 3, 2, 2, 2, 2]


def test_times_are_told_once_for_each_stage(bench: Callable[..., Bench]) -> None:
    told: list[tuple[str, float]] = []

    bench().model.generate(a_request(on_ms=lambda stage, ms: told.append((stage, ms))))

    assert [stage for stage, _ in told] == ["wait", "read", "write"]
    assert all(ms >= 0 for _, ms in told)


# A plugin that says nonsense about itself


@dataclass
class Nonsense:
    """Says that it only truncates, and how, which nobody can do."""

    truncation: Truncation
    name: str = "nonsense"

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        return PlainSampler().begin(turn, siblings, generator)


@pytest.mark.parametrize(
    "truncation",
    [
        Truncation(min_p=-1.0),
        Truncation(temperature=-1.0),
        Truncation(top_p=0.0),
        Truncation(top_k=-3),
        Truncation(temperature=math.nan),
        "not a truncation",
    ],
    ids=str,
)
def test_a_truncation_that_makes_no_sense_fails_its_own_set_alone(
    bench: Callable[..., Bench], company_alone: list[list[Candidate]], truncation: Any
) -> None:
    own = bench()

    error, *others = own.write(a_request(sampler=Nonsense(truncation)), *COMPANY)

    assert isinstance(error, PluginError)
    assert "plugin 'nonsense'" in str(error)
    for found, its in zip(others, company_alone, strict=True):
        assert same(found, its)
