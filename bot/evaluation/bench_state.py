"""
Bench `state`: what keeping a conversation costs each turn.

The baseline is the whole state as one JSON value, which is how Rasa's tracker store
keeps it: GET, parse, change, write, SET, with the standard library's json and with
neither queue nor lock. Ours is what the program runs: accept, wait for the lane's
token, load, commit, with an answerer that answers at once. Both talk to the same
redis-server, which is this bench's alone and started like the embedded one, through
the same client. It rewrites no files meanwhile, so that no round pays for another's.

What was kept and what was delivered is compared with what was sent: figures of turns
that were lost, repeated or overtaken are not reported but raised.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import sys
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from bot.conversation.manager import EVERYTHING, ConversationManager, Role
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import Committed
from bot.conversation.store import Store
from bot.conversation.tokens import Token
from bot.evaluation import bench_state_worker
from bot.evaluation.bench_state_ways import ChorusWay, JsonWay, Way
from bot.evaluation.bench_state_worker import (
    AT_WORK,
    Deliveries,
    NullAnswerer,
    WatchedStore,
    bench_config,
    check_log,
    check_order,
    message,
    null_bot,
)
from bot.evaluation.report import BenchRow
from bot.interfaces import Progress
from bot.model import Turn

if TYPE_CHECKING:
    from bot.app import App

BASELINE = "one JSON value: GET, json, SET"
FSYNC: Literal["everysec"] = "everysec"
DRIFT = 10  # a history may grow by a tenth of itself while it is measured
STEP_S = 120.0  # something hangs
START_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Conversations with that history; the turns of each lane in each round."""

    history: int
    ours: int
    theirs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """
    Plans that take turns on one server, on so many lanes at once, so that a machine
    that slows down slows all of them. Before the rounds there is one that warms up.
    """

    lanes: int
    rounds: int
    plans: Sequence[Plan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """
    How much is measured. `messages` go into each of `conversations` in each of
    `rounds` of null turns; bytes are counted over `byte_turns`. The first group is
    the one by whose plans the growth of the costs is told.
    """

    groups: Sequence[Group]
    byte_turns: int
    conversations: int
    messages: int
    rounds: int
    bursts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """How many seconds its turns took: each of them, and all together."""

    turns: Sequence[float]
    elapsed: float


SCALE = Scale(
    groups=[
        Group(
            lanes=1,
            rounds=6,
            plans=[
                Plan(history=history, ours=40, theirs=40)
                for history in (10, 100, 400, 1000)
            ],
        ),
        Group(lanes=200, rounds=3, plans=[Plan(history=10, ours=5, theirs=5)]),
        Group(lanes=200, rounds=3, plans=[Plan(history=100, ours=5, theirs=5)]),
        # Two hundred values of half a megabyte take a while: once each in a round.
        Group(lanes=200, rounds=3, plans=[Plan(history=400, ours=5, theirs=1)]),
        Group(lanes=200, rounds=2, plans=[Plan(history=1000, ours=5, theirs=1)]),
    ],
    byte_turns=50,
    conversations=200,
    messages=15,
    rounds=3,
    bursts=120,
)


def state_bench(_: App, progress: Progress) -> list[BenchRow]:
    """Measure on a server of our own; the bot's data is not touched."""
    return measured(SCALE, progress)


def measured(scale: Scale, progress: Progress) -> list[BenchRow]:
    """Measure as much as `scale` says."""
    with TemporaryDirectory(prefix="chorus-bench-") as folder:
        servers = _Servers(Path(folder), progress, steps=len(scale.groups) + 5)
        return [
            *_compared(scale.groups, servers),
            *_bytes(scale, servers),
            *_null_turns(scale, servers),
            *_bursts(scale.bursts, servers),
        ]


class _Servers:
    """A new server for each step, so that none works on what another left behind."""

    def __init__(self, folder: Path, progress: Progress, steps: int) -> None:
        self._folder = folder
        self._progress = progress
        self._steps = steps
        self._done = 0
        self.name = ""

    @contextmanager
    def step(self) -> Iterator[str]:
        """Yield the server's URL; afterwards `name` says what it was."""
        folder = self._folder / str(self._done)
        with EmbeddedRedis(folder, fsync=FSYNC) as server:
            self.name = asyncio.run(_prepared(server.url))
            self._progress(f"Against {self.name}", self._done, self._steps)
            yield server.url
        self._done += 1
        self._progress(f"Against {self.name}", self._done, self._steps)


async def _prepared(url: str) -> str:
    async with Store(url=url, settings=bench_config().conversation) as store:
        client: Any = store.connection.commands
        await client.config_set("auto-aof-rewrite-percentage", 0)
        about = await client.info("server")
    valkey = about.get("valkey_version")
    name = f"valkey {valkey}" if valkey else f"redis {about['redis_version']}"
    return f"{name}, appendfsync {FSYNC}"


# Turn by turn, both ways


def _compared(groups: Sequence[Group], servers: _Servers) -> Iterator[BenchRow]:
    for group in groups:
        with servers.step() as url:
            sides = asyncio.run(_contest(group, url))
        for side in sides:
            yield from _rows(group, side, servers.name)
        if group is groups[0]:
            yield _growth(sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sides:
    """What a plan took: ours and theirs."""

    plan: Plan
    ours: Sequence[Round]
    theirs: Sequence[Round]


def _rows(group: Group, sides: _Sides, server: str) -> Iterator[BenchRow]:
    lanes = "one lane" if group.lanes == 1 else f"{group.lanes} lanes"
    for name, figure, unit in _FIGURES:
        yield BenchRow(
            case=f"turn {sides.plan.history}, {lanes}, {name}",
            ours=figure(sides.ours),
            baseline=f"{BASELINE}; {server}",
            theirs=figure(sides.theirs),
            unit=unit,
            more_is_better=figure is per_second,
            spread=(_range(figure, sides.ours), _range(figure, sides.theirs)),
        )


def _growth(sides: Sequence[_Sides]) -> BenchRow:
    first, last = sides[0], sides[-1]
    return BenchRow(
        case=f"p50 of turn {last.plan.history} / turn {first.plan.history}, one lane",
        ours=p50(last.ours) / p50(first.ours),
        baseline=BASELINE,
        theirs=p50(last.theirs) / p50(first.theirs),
        unit="times",
    )


async def _contest(group: Group, url: str) -> list[_Sides]:
    runs: list[_Run] = []
    async with _ways(url) as (ours, theirs):
        for plan in group.plans:
            runs += [
                _Run(ours, plan.ours, await _prepare(ours, group, plan, plan.ours)),
                _Run(
                    theirs,
                    plan.theirs,
                    await _prepare(theirs, group, plan, plan.theirs),
                ),
            ]
        async with ours.answering():
            for number in range(group.rounds + 1):
                # There and back, so that none always comes after the same other one.
                for run in runs if number % 2 else reversed(runs):
                    await run.round(number)
        for run in runs:
            await run.check()
    return [
        _Sides(plan=plan, ours=our.rounds[1:], theirs=their.rounds[1:])
        for plan, our, their in zip(group.plans, runs[::2], runs[1::2], strict=True)
    ]


@asynccontextmanager
async def _ways(url: str) -> AsyncIterator[tuple[ChorusWay, JsonWay]]:
    async with asyncio.timeout(STEP_S), ChorusWay(url) as ours:
        yield ours, JsonWay(ours.store)


# For each lane its turns, in order: a conversation, and the turn's number in it.
_Lanes = Sequence[Sequence[tuple[str, int]]]


async def _prepare(way: Way, group: Group, plan: Plan, turns: int) -> _Lanes:
    """Give every conversation its history; return what is to be done on each lane."""
    uses = max(1, plan.history // DRIFT)
    lanes = [
        [
            (f"{plan.history}-{lane}-{turn // uses}", plan.history + turn % uses)
            for turn in range((group.rounds + 1) * turns)
        ]
        for lane in range(group.lanes)
    ]
    for lane in lanes:
        for conversation in dict.fromkeys(name for name, _ in lane):
            await way.prepare(conversation, plan.history)
    return lanes


class _Run:
    """One way through one plan: so many turns of each lane in each round."""

    def __init__(self, way: Way, turns: int, lanes: _Lanes) -> None:
        self.rounds: list[Round] = []
        self._way = way
        self._turns = turns
        self._lanes = lanes

    async def round(self, number: int) -> None:
        spent: list[float] = []

        async def work(lane: Sequence[tuple[str, int]]) -> None:
            for conversation, turn in lane:
                began = time.perf_counter()
                await self._way.turn(conversation, turn)
                spent.append(time.perf_counter() - began)

        now = slice(number * self._turns, (number + 1) * self._turns)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for lane in self._lanes:
                tasks.create_task(work(lane[now]))
        elapsed = time.perf_counter() - began
        self.rounds.append(Round(turns=spent, elapsed=elapsed))

    async def check(self) -> None:
        """Raise OutOfOrder unless everything was kept, in order."""
        for lane in self._lanes:
            for conversation, last in dict(lane).items():
                texts = await self._way.texts(conversation)
                check_log(conversation, texts, last + 1)


# Figures


def p50(rounds: Sequence[Round]) -> float:
    return quantile(_all_ms(rounds), 0.5)


def p99(rounds: Sequence[Round]) -> float:
    return quantile(_all_ms(rounds), 0.99)


def per_second(rounds: Sequence[Round]) -> float:
    return sum(len(one.turns) for one in rounds) / sum(one.elapsed for one in rounds)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


Figure = Callable[[Sequence[Round]], float]

_FIGURES: Sequence[tuple[str, Figure, str]] = (
    ("p50", p50, "ms per turn"),
    ("p99", p99, "ms per turn"),
    ("all", per_second, "turns/s"),
)


def _all_ms(rounds: Sequence[Round]) -> list[float]:
    return [1000 * spent for one in rounds for spent in one.turns]


def _range(figure: Figure, rounds: Sequence[Round]) -> tuple[float, float]:
    figures = [figure([one]) for one in rounds]
    return (min(figures), max(figures))


# Bytes


def _bytes(scale: Scale, servers: _Servers) -> Iterator[BenchRow]:
    plans = scale.groups[0].plans
    for history in (plans[0].history, plans[-1].history):
        with servers.step() as url:
            ours, theirs = asyncio.run(_written(history, scale.byte_turns, url))
        yield BenchRow(
            case=f"turn {history}, append-only file, accepted to delivered",
            ours=ours,
            baseline=f"{BASELINE}; {servers.name}",
            theirs=theirs,
            unit="bytes per turn",
        )


async def _written(history: int, turns: int, url: str) -> tuple[float, float]:
    """Every turn is a conversation's of its own, so that no history grows."""
    names = [f"bytes-{number}" for number in range(turns)]
    async with _ways(url) as (ours, theirs):
        for name in names:
            await ours.prepare(name, history)
            await theirs.prepare(name, history)
        before = await _file_size(ours.store)
        async with ours.answering(EVERYTHING) as bot:
            for name in names:
                await ours.turn(name, history)
            await bot.idle()
        between = await _file_size(ours.store)
        for name in names:
            await theirs.turn(name, history)
        after = await _file_size(ours.store)
    return (between - before) / turns, (after - between) / turns


async def _file_size(store: Store) -> int:
    client: Any = store.connection.commands
    return int((await client.info("persistence"))["aof_current_size"])


# Null turns


def _null_turns(scale: Scale, servers: _Servers) -> Iterator[BenchRow]:
    """As `run` does it, and with the answering in a process of its own."""
    ways: Mapping[str, Collection[Role]] = {
        "one process": EVERYTHING,
        "connectors and workers in two processes": ["connectors"],
    }
    for name, roles in ways.items():
        with servers.step() as url:
            rates = asyncio.run(_rates(scale, roles, url))
        yield BenchRow(
            case=(
                f"null turns, accepted to delivered in order, "
                f"{scale.conversations} conversations, {name}, {os.cpu_count()} cores; "
                f"{servers.name}"
            ),
            ours=statistics.median(rates),
            unit="turns/s",
            spread=((min(rates), max(rates)),),
        )


async def _rates(scale: Scale, roles: Collection[Role], url: str) -> list[float]:
    """Return the turns per second of each round, after one that warms up."""
    connector, config = Deliveries(), bench_config()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(STEP_S))
        if "workers" not in roles:
            await stack.enter_async_context(_worker(url))
        store = await stack.enter_async_context(
            Store(url=url, settings=config.conversation)
        )
        bot = await stack.enter_async_context(
            null_bot(store, config=config, connector=connector, roles=roles)
        )
        return [
            await _rate(bot, connector, scale, number)
            for number in range(scale.rounds + 1)
        ][1:]


@asynccontextmanager
async def _worker(url: str) -> AsyncIterator[None]:
    """Run a process that answers; it ends with its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", bench_state_worker.__name__, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 (as asked for)
    assert process.stdout is not None  # noqa: S101
    try:
        if await process.stdout.readline() != AT_WORK:
            raise AssertionError("the process that was to answer did not start")
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def _rate(
    bot: ConversationManager, connector: Deliveries, scale: Scale, number: int
) -> float:
    names = [f"round-{number}-{name}" for name in range(scale.conversations)]

    async def talk(name: str) -> None:
        for at in range(scale.messages):
            if (accepted := await bot.accept(message(name, at))) != "accepted":
                raise AssertionError(accepted)

    total = scale.conversations * scale.messages
    connector.expect(total)
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(talk(name))
    delivered = await connector.arrived()
    elapsed = time.perf_counter() - began
    for name in names:
        check_order(name, delivered[name], scale.messages)
    return total / elapsed


# Bursts


def _bursts(bursts: int, servers: _Servers) -> Iterator[BenchRow]:
    with servers.step() as url:
        gaps = asyncio.run(_Burst().gaps(bursts, url))
    for name, share in (("p50", 0.5), ("longest", 1.0)):
        yield BenchRow(
            case=f"burst of two: first committed to second begun, {name} of {bursts}; "
            f"{servers.name}",
            ours=quantile(gaps, share),
            unit="ms",
        )


class _Burst:
    """
    Two messages that came at once: the first is answered when both are accepted, the
    second as soon as the lane allows.
    """

    def __init__(self) -> None:
        self._both = asyncio.Event()
        self._committed: asyncio.Queue[float] = asyncio.Queue()
        self._begun: asyncio.Queue[float] = asyncio.Queue()

    async def gaps(self, bursts: int, url: str) -> list[float]:
        """Return the milliseconds between two turns, for each of `bursts`."""
        config = bench_config()
        answerer = NullAnswerer(self._asked)
        async with (
            asyncio.timeout(STEP_S),
            WatchedStore(url, config, self._told) as store,
            null_bot(store, config=config, answerer=answerer) as bot,
        ):
            return [await self._gap(bot, f"burst-{number}") for number in range(bursts)]

    async def _gap(self, bot: ConversationManager, name: str) -> float:
        self._both.clear()
        await asyncio.gather(*(bot.accept(message(name, number)) for number in (0, 1)))
        self._both.set()
        await self._begun.get()
        ended = await self._committed.get()
        gap = await self._begun.get() - ended
        await self._committed.get()
        await bot.idle()
        return 1000 * gap

    async def _asked(self, turn: Turn) -> None:
        self._begun.put_nowait(time.perf_counter())
        await self._both.wait()

    def _told(self, token: Token, committed: Committed) -> None:
        self._committed.put_nowait(time.perf_counter())
