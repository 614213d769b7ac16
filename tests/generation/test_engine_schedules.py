"""
Schedules: the engine's bookkeeping under random joins, leaves, cancels and faults.

The network is scripted: what it keeps as a token's key is the token's own id, as its
value the place where it stands, and its logits are a function of the whole text that
the engine shows it, prefix and rows together. Whatever the engine mixes up (a row, a
prefix, a part of one that was split or let go) so changes what is drawn. What should
have been drawn is worked out for each set alone, in plain Python.

The engine is stepped by the test, without its thread; the clock counts steps.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch

from bot.errors import Overloaded, PluginError, TurnCancelled, TurnError
from bot.generation import engine as engine_module
from bot.generation.attention import Read
from bot.generation.decoding import Row, Siblings
from bot.generation.engine import Engine, Limits
from bot.generation.jobs import Job, Prompt, Scoring, Writing
from bot.generation.kv import FIRST_CAPACITY, Rows, Segment, Shape
from bot.generation.prefixes import Node
from bot.generation.truncation import draw
from bot.interfaces import Draw, GenerationRequest, LogitsProcessor, Sampler, Truncation
from bot.model import Finish, Turn
from bot.testing import a_turn
from plugins.samplers.beam import Beam

pytestmark = pytest.mark.slow  # test-fast does without

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY = 12
END = 1
SHAPE = Shape(
    layers=1,
    kv_heads=1,
    head_size=1,
    dtype=torch.float32,
    device=torch.device("cpu"),
)
# One row for every text, by its hash: equal rows of different texts are rare.
TABLE = torch.randn(8192, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2
PLUGIN_S = 5.0


def place_in_table(text: Sequence[int]) -> int:
    return hash(tuple(text)) % len(TABLE)


# The network


class ScriptedNetwork:
    """Reads texts back from what the engine kept. `faults` are raised, pass by pass."""

    shape = SHAPE

    def __init__(self, faults: Sequence[Exception | None] = ()) -> None:
        self._faults = iter(faults)
        self.tried: list[Exception | None] = []
        self.misplaced: list[list[float]] = []

    def forward(self, reads: Sequence[Read]) -> Tensor:
        for read in reads:
            _write(read)
        fault = next(self._faults, None)
        self.tried.append(fault)
        if fault is not None:  # after writing, as a pass may fail in its middle
            raise fault
        places = [place for read in reads for place in self._places(read)]
        for read in reads:
            read.rows.length += read.tokens.shape[1]
        return TABLE[places]

    def _places(self, read: Read) -> Iterator[int]:
        count, new = read.tokens.shape
        end = read.rows.length + new
        for row in range(count):
            kept = torch.cat([*read.prefix, read.rows.segment(row, end)], dim=3)
            text, places = kept[0, :, 0, :, 0].int().tolist()
            if places != list(range(len(places))):
                self.misplaced.append(places)
            first = {"none": len(text), "last": len(text) - 1, "all": len(text) - new}
            for last in range(first[read.outputs], len(text)):
                yield place_in_table(text[: last + 1])


def new_rows(count: int, limit: int, prefix: Sequence[Segment]) -> Rows:
    return Rows(SHAPE, count, min(FIRST_CAPACITY, limit))


def _write(read: Read) -> None:
    new = read.tokens.shape[1]
    at = slice(read.rows.length, read.rows.length + new)
    read.rows.memory[0, 0, 0, :, at, 0] = read.tokens.float()
    read.rows.memory[0, 1, 0, :, at, 0] = torch.arange(read.start, read.start + new)


# The plugins


@dataclass
class Wild:
    """Draws at random, swaps parents at random, ends rows at random."""

    swaps: float = 0.3
    ends: float = 0.05
    name: str = "wild"

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        def step(logits: Tensor) -> Draw:
            own = torch.arange(siblings)
            others = torch.randint(siblings, (siblings,), generator=generator)
            swapped, ended = torch.rand(2, siblings, generator=generator)
            parents = torch.where(swapped < self.swaps, others, own)
            chances = logits[parents].softmax(dim=1)
            return Draw(
                tokens=chances.multinomial(1, generator=generator)[:, 0],
                parents=parents if self.swaps else None,
                done=ended < self.ends,
            )

        return step


@dataclass
class NoRepeats:
    """Takes from each row what it has drawn already, so that it must know what."""

    name: str = "no-repeats"
    changes_argmax: bool = True

    def begin(self, turn: Turn, siblings: int) -> Callable[[Tensor, Tensor], Tensor]:
        def step(tokens: Tensor, logits: Tensor) -> Tensor:
            return logits.scatter_add_(1, tokens, torch.full(tokens.shape, -1.0))

        return step


@dataclass
class Truncating:
    """A sampler that does nothing but truncate."""

    truncation: Truncation
    name: str = "truncating"

    @property
    def greedy(self) -> bool:
        return self.truncation.temperature == 0

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        raise AssertionError("the engine draws by itself for what only truncates")


@dataclass
class Interrupted:
    """Does as another sampler does, and in one of its calls something else first."""

    sampler: Sampler
    call: int
    act: Callable[[], None]
    name: str = "interrupted"

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        step = self.sampler.begin(turn, siblings, generator)
        calls = iter(range(10_000))

        def interrupted(logits: Tensor) -> Draw:
            if next(calls) == self.call:
                self.act()
            return step(logits)

        return interrupted


# What is planned


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job, when it comes, and what befalls it."""

    number: int
    at: int
    prompt: tuple[int, ...]
    background: bool = False


@dataclass(frozen=True, kw_only=True)
class PlannedSet(Plan):
    count: int
    limit: int
    sampler: Sampler
    processors: tuple[LogitsProcessor, ...] = ()
    begun: int = 0
    pair_ends: bool = False
    cancel_at: int | None = None
    timeout_s: float | None = None
    fault: Literal["raises", "hangs"] | None = None
    fault_call: int = 0


@dataclass(frozen=True, kw_only=True)
class PlannedScoring(Plan):
    last: int
    continuations: tuple[tuple[int, ...], ...]
    most_rows: int


def ends_pair(tokens: Sequence[int]) -> bool:
    """The rule by which the test's watch ends a row."""
    return len(tokens) > 1 and sum(tokens[-2:]) % 5 == 0


def end_pairs(siblings: Siblings, parents: Sequence[int] | None) -> None:
    for number in siblings.live:
        if ends_pair(siblings.rows[number].tokens):
            siblings.rows[number].finish = "block"


def watch_nothing(siblings: Siblings, parents: Sequence[int] | None) -> None:
    pass


# What should come out: each set alone, in plain Python


def written_alone(plan: PlannedSet, draws: int) -> list[Row]:
    """Write a set by itself, for at most so many draws."""
    turn = a_turn(seed=plan.number)
    generator = torch.Generator().manual_seed(plan.number)
    rows = [Row() for _ in range(plan.count)]
    if isinstance(plan.sampler, Truncating):
        step = None
    else:
        step = plan.sampler.begin(turn, plan.count, generator)
    change = [each.begin(turn, plan.count) for each in plan.processors]
    for _ in range(draws):
        live = [number for number, row in enumerate(rows) if row.finish is None]
        if not live:
            break
        logits = TABLE[[place_in_table((*plan.prompt, *row.tokens)) for row in rows]]
        parents = list(range(plan.count))
        done = [False] * plan.count
        if step is None:
            assert isinstance(plan.sampler, Truncating)
            uniforms = torch.rand(plan.count, generator=generator)
            settings = [plan.sampler.truncation] * plan.count
            drawn = draw(logits, settings, uniforms)[0].tolist()
        else:
            seen = logits.clone()
            for each in change:
                seen = each(_column(plan, rows), seen)
            for number, row in enumerate(rows):
                if row.finish is not None:
                    seen[number] = -torch.inf
                    seen[number, END] = 0.0
            answer = step(seen)
            drawn = answer.tokens.tolist()
            parents = parents if answer.parents is None else answer.parents.tolist()
            done = done if answer.done is None else answer.done.tolist()
        scores = logits.double().log_softmax(dim=1)
        rows = [
            _longer(plan, rows[parent], token, float(scores[parent, token]), end)
            for parent, token, end in zip(parents, drawn, done, strict=True)
        ]
    return rows


def _column(plan: PlannedSet, rows: Sequence[Row]) -> Tensor:
    begun = list(plan.prompt[len(plan.prompt) - plan.begun :]) if plan.begun else []
    longest = max(len(row.tokens) for row in rows)
    return torch.tensor(
        [[*begun, *row.tokens, *[END] * (longest - len(row.tokens))] for row in rows]
    ).long()


def _longer(plan: PlannedSet, row: Row, token: int, score: float, done: bool) -> Row:
    if row.finish is not None:
        return row
    tokens = [*row.tokens, token]
    finish: Finish | None = None
    if token == END:
        finish = "stop"
    elif len(tokens) >= plan.limit or done:
        finish = "length"
    elif plan.pair_ends and ends_pair(tokens):
        finish = "block"
    return Row(tokens=tokens, log_probs=[*row.log_probs, score], finish=finish)


def scored_alone(plan: PlannedScoring) -> list[list[float]]:
    found = []
    for continuation in plan.continuations:
        text = [*plan.prompt, plan.last]
        scores = []
        for token in continuation:
            log_probs = TABLE[place_in_table(text)].double().log_softmax(dim=0)
            scores.append(float(log_probs[token]))
            text.append(token)
        found.append(scores)
    return found


# The schedule


class NoThread(threading.Thread):
    """One that is never started: the test takes its steps."""

    def start(self) -> None:
        """Nothing."""


class Stepped(Engine):
    """An engine whose thread is the test."""

    def _new_thread(self) -> threading.Thread:
        return NoThread()

    def belongs_here(self) -> None:
        self._thread = threading.current_thread()

    def step(self) -> None:
        with torch.inference_mode():
            try:
                if self._waiting or self._running:
                    self._step()
            except engine_module._Abandoned:
                self.belongs_here()


@dataclass
class Outcome:
    job: Job
    cancelled: threading.Event
    refused: Exception | None = None
    failed_by: Exception | None = None


class Schedule:
    """Runs plans against one engine, and checks its books after every step."""

    def __init__(
        self,
        plans: Sequence[Plan],
        limits: Limits,
        faults: Sequence[Exception | None] = (),
    ) -> None:
        self.now = 0.0
        self.network = ScriptedNetwork(faults)
        self.limits = limits
        self.engine = Stepped(self.network, limits, clock=lambda: self.now)
        self.engine.belongs_here()
        self.plans = plans
        self.outcomes: dict[int, Outcome] = {}
        self.hung: list[int] = []

    def run(self) -> None:
        step, last = 0, max(plan.at for plan in self.plans)
        while step <= last or self.engine._waiting or self.engine._running:
            assert step < 3000, "the engine does not come to an end"
            for plan in self.plans:
                if plan.at == step:
                    self._submit(plan)
                if isinstance(plan, PlannedSet) and plan.cancel_at == step:
                    self._cancel(plan)
            tried = len(self.network.tried)
            self.engine.step()
            if len(self.network.tried) > tried and self.network.tried[-1]:
                self._check_fault(self.network.tried[-1])
            self._check_books()
            step, self.now = step + 1, self.now + 1
        for plan in self.plans:
            self._check_outcome(plan)
        assert self.network.misplaced == []
        assert self.engine._charged() == 0
        assert all(not node.users for node in self.engine._prefixes._nodes())

    def _submit(self, plan: Plan) -> None:
        cancelled = threading.Event()
        job = self._job(plan, cancelled)
        outcome = self.outcomes[plan.number] = Outcome(job, cancelled)
        sets = sum(
            isinstance(each, Writing) and job.background >= each.background
            for each in self.engine._waiting
        )
        full = isinstance(job, Writing) and sets >= self.limits.queue
        try:
            self.engine.submit(job)
        except TurnError as error:
            outcome.refused = error
        expected = (
            TurnError if job.need > self.limits.tokens else Overloaded if full else None
        )
        assert type(outcome.refused) is (expected or type(None))

    def _cancel(self, plan: PlannedSet) -> None:
        if plan.number in self.outcomes:
            self.outcomes[plan.number].cancelled.set()

    def _check_fault(self, fault: Exception) -> None:
        """Look who failed by it, and whether somebody should have."""
        says = "failed (ValueError" if _is_other(fault) else "out of memory"
        failed = [
            outcome
            for outcome in self.outcomes.values()
            if outcome.failed_by is None and says in _said(outcome.job)
        ]
        for outcome in failed:
            outcome.failed_by = fault
        if _is_other(fault):
            assert failed
            return
        # The first time since a pass succeeded, only what is kept for later is let go.
        since = takewhile(bool, reversed(self.network.tried[:-1]))
        again = any(each and not _is_other(each) for each in since)
        assert len(failed) == again
        nodes = self.engine._prefixes._nodes()
        assert again or all(node.users or node.children for node in nodes)

    def _job(self, plan: Plan, cancelled: threading.Event) -> Job:
        if isinstance(plan, PlannedScoring):
            longest = max(map(len, plan.continuations))
            return Scoring(
                name="scoring",
                prompt=Prompt(plan.prompt, anew=0),
                shape=SHAPE,
                need=len(plan.prompt) + plan.most_rows * longest,
                background=plan.background,
                last=plan.last,
                continuations=plan.continuations,
                padding=END,
                most_rows=plan.most_rows,
            )
        assert isinstance(plan, PlannedSet)
        request = GenerationRequest(
            turn=a_turn(id=f"turn {plan.number}", seed=plan.number),
            candidates=plan.count,
            max_new_tokens=plan.limit,
            sampler=self._sampler(plan),
            logits_processors=plan.processors,
            timeout_s=plan.timeout_s,
        )
        begun = plan.prompt[len(plan.prompt) - plan.begun :] if plan.begun else ()
        return Writing(
            name=f"turn {plan.number}",
            prompt=Prompt(plan.prompt, anew=1),
            shape=SHAPE,
            need=len(plan.prompt) + plan.count * plan.limit,
            background=plan.background,
            cancelled=cancelled,
            request=request,
            siblings=Siblings(
                plan.count,
                begun=begun,
                end_tokens=frozenset([END]),
                limit=plan.limit,
                padding=END,
                device=SHAPE.device,
            ),
            padding=END,
            limit=plan.limit,
            new_rows=new_rows,
            watch=end_pairs if plan.pair_ends else watch_nothing,
        )

    def _sampler(self, plan: PlannedSet) -> Sampler:
        if plan.fault is None:
            return plan.sampler
        act = self._raise if plan.fault == "raises" else lambda: self._hang(plan)
        name = f"interrupted {plan.number}"
        return Interrupted(plan.sampler, plan.fault_call, act, name)

    def _raise(self) -> None:
        raise ZeroDivisionError

    def _hang(self, plan: PlannedSet) -> None:
        """As if somebody who waits had looked after this long call."""
        self.now += PLUGIN_S
        self.hung.append(plan.number)
        self.engine.look_after()

    # The books

    def _check_books(self) -> None:
        engine = self.engine
        nodes = list(engine._prefixes._nodes())
        assert engine._prefixes.tokens == sum(len(node.tokens) for node in nodes)
        for node in nodes:
            self._check_node(node)
        assert all(job.charge >= 0 for job in engine._running)
        kept = engine._prefixes.tokens + engine._charged()
        assert kept <= self.limits.tokens, "more memory than there is"
        for job in engine._running:
            if isinstance(job, Writing):
                assert _own_tokens(job) <= job.charge, "a set holds more than its part"
        assert all(job.charge == 0 for job in engine._waiting)

    def _check_node(self, node: Node) -> None:
        assert node.segment[0, 0, 0, :, 0].int().tolist() == list(node.tokens)
        below = sum(child.users for child in node.children.values())
        standing = sum(job.prompt._match.node is node for job in self.engine._running)
        assert node.users == below + standing
        assert node.parent is None or node.parent.children[node.tokens[0]] is node

    def _check_outcome(self, plan: Plan) -> None:
        outcome = self.outcomes[plan.number]
        if outcome.refused is not None:
            return
        assert outcome.job.result.done()
        error = outcome.job.result.exception()
        if error is not None:
            self._check_error(plan, outcome, error)
        elif isinstance(plan, PlannedScoring):
            assert isinstance(outcome.job, Scoring)
            found = [scores.tolist() for scores in outcome.job.scored]
            for scores, expected in zip(found, scored_alone(plan), strict=True):
                assert scores == pytest.approx(expected, abs=1e-5)
        else:
            assert isinstance(plan, PlannedSet)
            assert isinstance(outcome.job, Writing)
            self._check_rows(plan, outcome.job.siblings)

    def _check_rows(self, plan: PlannedSet, siblings: Siblings) -> None:
        rows = siblings.rows
        late = plan.timeout_s is not None
        draws = siblings.tokens.shape[1] - plan.begun if late else plan.limit
        expected = written_alone(plan, draws)
        assert [row.tokens for row in rows] == [row.tokens for row in expected]
        for row, its in zip(rows, expected, strict=True):
            assert row.finish == (its.finish or "length")
            assert row.log_probs == pytest.approx(its.log_probs, abs=1e-5)

    def _check_error(self, plan: Plan, outcome: Outcome, error: BaseException) -> None:
        if isinstance(error, TurnCancelled):
            assert outcome.cancelled.is_set()
        elif isinstance(error, PluginError):
            assert isinstance(plan, PlannedSet)
            assert plan.fault is not None
            says = {"raises": "raised ZeroDivisionError", "hangs": "no answer within 5"}
            assert says[plan.fault] in str(error)
            assert plan.fault == "raises" or plan.number in self.hung
        else:
            assert isinstance(error, TurnError)
            assert outcome.failed_by is not None, "nothing had gone wrong"


def _is_other(fault: Exception) -> bool:
    """Whether it has nothing to do with memory."""
    return isinstance(fault, ValueError)


def _said(job: Job) -> str:
    return str(job.result.exception()) if job.result.done() else ""


def _own_tokens(job: Writing) -> int:
    """Tokens that a set holds for itself: read for it alone, written, and kept."""
    read = job.prompt._rows.length if job.prompt._rows else 0
    written = len(job.siblings.live) * job._rows.length if job._rows else 0
    held = {id(segment): segment.shape[3] for _, segment in job.held()}
    return read + written + sum(held.values())


# Random plans


def a_schedule(seed: int) -> Schedule:
    dice = random.Random(seed)  # noqa: S311 - nothing secret
    # With few tokens to choose from, most prompts share something.
    alphabet = dice.choice([2, 3, VOCABULARY])
    beginnings = [_some_tokens(dice, 8, alphabet) for _ in range(2)]
    plans = [
        _a_plan(dice, seed * 100 + number, beginnings, alphabet)
        for number in range(dice.randint(1, 6))
    ]
    most = max(_need(plan) for plan in plans)
    tokens = dice.choice([most, most, most + 7, 2 * most, 10 * most, most - 1])
    queue = dice.choice([1, 2, 64, 64])
    limits = Limits(tokens=tokens, queue=queue, plugin_s=PLUGIN_S)
    return Schedule(plans, limits, _faults(dice))


def _faults(dice: random.Random) -> list[Exception | None]:
    if dice.random() < 0.7:
        return []
    few = dice.choice([0.05, 0.3])
    faults: list[Exception | None] = []
    for _ in range(60):
        fault = dice.choice(
            [
                torch.OutOfMemoryError("GPU"),
                RuntimeError("DefaultCPUAllocator: not enough memory"),
                ValueError("other"),
            ]
        )
        faults.append(fault if dice.random() < few else None)
    return faults


def _need(plan: Plan) -> int:
    if isinstance(plan, PlannedSet):
        return len(plan.prompt) + plan.count * plan.limit
    assert isinstance(plan, PlannedScoring)
    longest = max(map(len, plan.continuations))
    return len(plan.prompt) + plan.most_rows * longest


def _some_tokens(dice: random.Random, most: int, alphabet: int) -> tuple[int, ...]:
    return tuple(dice.randrange(alphabet) for _ in range(dice.randint(1, most)))


def _a_plan(
    dice: random.Random,
    number: int,
    beginnings: Sequence[tuple[int, ...]],
    alphabet: int,
) -> Plan:
    shared = dice.choice([(), *beginnings, (*beginnings[0], *beginnings[1])])
    prompt = (*shared, *_some_tokens(dice, dice.choice([1, 2, 10]), alphabet))
    at = dice.choice([0, 0, dice.randrange(12)])
    background = dice.random() < 0.2
    if dice.random() < 0.2:
        continuations = tuple(
            _some_tokens(dice, 4, VOCABULARY) for _ in range(dice.randint(1, 4))
        )
        *before, last = prompt
        return PlannedScoring(
            number=number,
            at=at,
            prompt=tuple(before),
            background=background,
            last=last,
            continuations=continuations,
            most_rows=dice.randint(1, len(continuations)),
        )
    sampler = _a_sampler(dice)
    own = not isinstance(sampler, Truncating)
    begun = dice.choice([0, 0, dice.randrange(len(prompt))])
    return PlannedSet(
        number=number,
        at=at,
        prompt=prompt,
        background=background,
        count=dice.choice([1, 2, 3, 4]),
        limit=dice.choice([1, 2, 4, 8]),
        sampler=sampler,
        processors=(NoRepeats(),) if own and dice.random() < 0.5 else (),
        begun=begun,
        pair_ends=dice.random() < 0.3,
        cancel_at=at + dice.randrange(10) if dice.random() < 0.2 else None,
        timeout_s=float(dice.randrange(8)) if dice.random() < 0.2 else None,
        fault=dice.choice([None] * 6 + ["raises", "hangs"]) if own else None,
        fault_call=dice.randrange(3),
    )


def _a_sampler(dice: random.Random) -> Sampler:
    truncation = Truncation(
        temperature=dice.choice([0.0, 0.7, 1.5]),
        top_k=dice.choice([0, 1, 3, 500]),
        top_p=dice.choice([1.0, 0.5, 0.95]),
        min_p=dice.choice([0.0, 0.2]),
    )
    samplers: list[Sampler] = [
        Truncating(truncation),
        Truncating(truncation),
        Wild(),
        Wild(swaps=0.0),
        Beam(Beam.Settings()),
    ]
    return dice.choice(samplers)


# Tests


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of faults are planned here; nobody reads about each."""
    caplog.set_level(logging.CRITICAL, logger="bot.generation.engine")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts here are short; this is how they are read in several passes."""
    monkeypatch.setattr(engine_module, "CHUNK_ALONE", 3)
    monkeypatch.setattr(engine_module, "CHUNK_BESIDE", 2)


def run(seeds: range) -> None:
    """Run random schedules; an error says with which seed it comes again."""
    for seed in seeds:
        try:
            a_schedule(seed).run()
        except AssertionError as error:
            error.add_note(f"the schedule of seed {seed}")
            raise


def test_random_schedules_keep_the_books_exact() -> None:
    run(range(200))


def test_random_schedules_in_small_chunks_keep_the_books_exact(
    small_chunks: None,
) -> None:
    run(range(200, 400))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_random_schedules_keep_the_books_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(range(1000, 6000))
    monkeypatch.setattr(engine_module, "CHUNK_ALONE", 3)
    monkeypatch.setattr(engine_module, "CHUNK_BESIDE", 2)
    run(range(6000, 11_000))


def a_set(number: int, prompt: tuple[int, ...], **more: Any) -> PlannedSet:
    plain = PlannedSet(
        number=number, at=0, prompt=prompt, count=1, limit=4, sampler=GREEDY
    )
    return replace(plain, **more)


GREEDY = Truncating(Truncation(temperature=0.0))


def test_a_set_as_large_as_the_memory_is_taken_up_once_nothing_else_runs() -> None:
    first = a_set(1, (5, 5, 5, 6, 6, 6))
    # Goes on from half of what the first one left, and needs all the memory.
    second = a_set(2, (5, 5, 5, 7), at=10, limit=8)

    schedule = Schedule([first, second], Limits(tokens=12, plugin_s=PLUGIN_S))

    schedule.run()


@dataclass
class Churning:
    """Beams, as they come: in each step one ends, and gives its place to another."""

    name: str = "churning"

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        def step(logits: Tensor) -> Draw:
            tokens = torch.full((siblings,), 5)
            tokens[-1] = END
            return Draw(tokens=tokens, parents=torch.zeros(siblings).long())

        return step


def test_rows_that_ended_and_were_given_up_are_not_held() -> None:
    plan = a_set(1, (5, 6), count=4, limit=60, sampler=Churning())

    schedule = Schedule([plan], Limits(tokens=2 + 4 * 60, plugin_s=PLUGIN_S))

    schedule.run()


def test_a_set_waits_its_time_in_line_for_nothing() -> None:
    first = a_set(1, (5, 6), limit=8, sampler=Wild(swaps=0.0, ends=0.0))
    # Both do not fit: the second waits longer than it may take to write.
    second = a_set(2, (7, 8), limit=8, sampler=Wild(swaps=0.0, ends=0.0), timeout_s=4.0)
    schedule = Schedule([first, second], Limits(tokens=12, plugin_s=PLUGIN_S))

    schedule.run()

    waited = schedule.outcomes[2].job
    assert isinstance(waited, Writing)
    assert waited.begun - waited.submitted > 4
    assert len(waited.siblings.rows[0].tokens) > 1


def test_everything_planned_comes_to_pass_in_the_random_schedules() -> None:
    """A property test that never sees a fault says nothing about faults."""
    plans = [plan for seed in range(300) for plan in a_schedule(seed).plans]
    sets = [plan for plan in plans if isinstance(plan, PlannedSet)]

    assert sum(isinstance(plan, PlannedScoring) for plan in plans) > 50
    assert {plan.fault for plan in sets} == {None, "raises", "hangs"}
    assert sum(plan.cancel_at is not None for plan in sets) > 50
    assert sum(plan.timeout_s is not None for plan in sets) > 50
    assert len({type(plan.sampler) for plan in sets}) == 3
