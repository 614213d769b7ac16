"""
Bench `actions`: what it costs to run an action of rasa-sdk, in this process and over
HTTP. That it comes to the same both ways is looked at first: what does not is raised,
not reported.

The actions are the demonstration's, one of each kind; the call holds a conversation of
ten turns. In process the baseline is rasa-sdk's executor, bare: on this event loop, on
a call that is parsed already, so `adds` is all that we add. Two threads that hand each
other nothing are measured, too: most of it is that. Over HTTP the baseline is the same
server, called as Rasa 3.6 calls it, with a connection for each call. Ways take turns.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bot.actions import tracker
from bot.actions.answers import read
from bot.actions.calls import (
    ActionAnswer,
    ActionCall,
    ActionPlace,
    JsonObject,
    unseen,
)
from bot.actions.domain import domain_of
from bot.actions.in_process import InProcess
from bot.actions.remote import Remote
from bot.actions.rules import understood
from bot.actions.state import DialogueState
from bot.actions.threads import ActionThreads
from bot.actions_config import ActionsConfig
from bot.errors import ActionError
from bot.evaluation import demo_actions
from bot.evaluation.bench_actions_theirs import bare, served
from bot.evaluation.metrics import quantile
from bot.evaluation.report import BenchRow
from bot.interfaces import Progress
from bot.model import Address, Event, EventKind, Turn

if TYPE_CHECKING:
    from bot.app import App

DEMO = "bot.evaluation.demo_actions"
IN_PROCESS = "rasa-sdk's executor, bare"
OVER_HTTP = "a connection for each call, as Rasa 3.6"
HANDED_OVER = "a queue from thread to thread, and one back"
TIMEOUT_S = 30.0

CONFIG = ActionsConfig.model_validate(
    {
        "slots": {
            "order": {"pattern": r"\d+"},
            "quantity": {"type": "int"},
            "pleased": {"type": "bool"},
            "reason": {},
        },
        "forms": {
            "return_form": {"slots": ["order", "quantity"]},
            "survey_form": {"slots": ["pleased"]},
        },
        "responses": {"utter_greet": [{"text": "Hello {name}."}]},
    }
)
# What a form's validation finds at the end of the events, and every action has a look.
FOUND: JsonObject = {"order": "12", "quantity": "3", "pleased": "no"}
AS_IT_CAME: JsonObject = {"as_it_came": [5, 5.0, -(2**64), "急件 🎁", None]}

# What an action came to: its answer, or how it failed and why.
Outcome = ActionAnswer | tuple[str, str]

_Run = Callable[[], Awaitable[object]]
_Prepare = Callable[[], _Run]  # what is not timed

_US, _MS = ("µs", 1e6), ("ms", 1e3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How often each action runs in each way: `runs` in a row, in each of `rounds`."""

    rounds: int = 25
    runs: int = 20


class Different(AssertionError):
    """An action does not come to the same in process and over HTTP."""


def actions_bench(_: App, progress: Progress) -> list[BenchRow]:
    """Measure with a server of its own; the bot's actions are not touched."""
    return asyncio.run(measured(Scale(), progress))


async def measured(scale: Scale, progress: Progress) -> list[BenchRow]:
    threads = ActionThreads()
    try:
        rows = [await _nothing_at_all(threads, scale)]
        async with served(DEMO) as url, at_server(url) as remote:
            for number, action in enumerate(demo_actions.ACTIONS):
                progress("Actions", number, len(demo_actions.ACTIONS))
                rows += await _compared(action, threads, remote, scale)
        return rows
    finally:
        threads.close()


def in_process(action: type[Any], threads: ActionThreads) -> InProcess:
    """Return one of the demonstration's actions in this process."""
    use = f"{DEMO}:{action.__name__}"
    return InProcess(use, timeout_s=TIMEOUT_S, reword=False, threads=threads)


@asynccontextmanager
async def at_server(url: str) -> AsyncIterator[Remote]:
    """Yield the actions of a server, with what they say joined where they stream."""
    remote = Remote(
        url=url,
        token=None,
        actions=(),
        streams=("action_recite",),
        timeout_s=TIMEOUT_S,
        reword=False,
    )
    try:
        yield remote
    finally:
        await remote.close()


def plain_call(name: str) -> ActionCall:
    """Return a call of an action in the middle of a conversation."""
    return _call(name, FOUND)


def hard_call(name: str) -> ActionCall:
    """Return the same call, with values that two readers of JSON may read otherwise."""
    return _call(name, {**FOUND, **AS_IT_CAME})


async def outcome(place: ActionPlace, call: ActionCall) -> Outcome:
    """Return what an action comes to in one place."""
    try:
        return await place.run(call, unseen)
    except ActionError as error:
        return error.fault, str(error)


def _call(name: str, found: JsonObject) -> ActionCall:
    history = [
        event
        for number in range(10)
        for event in (
            _said("message", f"m{number}", "How long does it take to send it back?"),
            _said("reply", f"r{number}", "It takes five days from when it is here."),
        )
    ]
    message = _said("message", "m", "where is order 12?")
    turn = Turn(id="t", message=message, seed=1, history=history)
    filled: list[JsonObject] = [
        {"event": "slot", "timestamp": None, "name": slot, "value": value}
        for slot, value in found.items()
    ]
    state = DialogueState(
        slots=found, events=[*tracker.events_of([*history, message]), *filled]
    )
    domain = tracker.as_json(domain_of(CONFIG, [name]))
    request = tracker.request(name, turn, state, domain, understood(message))
    return ActionCall(name=name, turn=turn, request=request)


def _said(kind: EventKind, name: str, text: str) -> Event:
    return Event(
        id=name,
        kind=kind,
        address=Address(platform="bench", account="a", chat="c", user="u"),
        time=demo_actions.NOON,
        text=text,
    )


async def _compared(
    action: type[Any], threads: ActionThreads, remote: Remote, scale: Scale
) -> list[BenchRow]:
    place = in_process(action, threads)
    call = hard_call(place.name)
    here, there = await outcome(place, call), await outcome(remote, call)
    if here != there:
        raise Different(f"{place.name}: in process {here}, over HTTP {there}")
    call = plain_call(place.name)
    run = bare(action)

    def theirs() -> _Run:
        parsed = read(call.request)  # anew for each, because actions change it
        return lambda: _unless_rejected(run(parsed))

    times = await _raced(
        {
            "ours": lambda: lambda: outcome(place, call),
            "theirs": theirs,
            "kept": lambda: lambda: outcome(remote, call),
            "alone": lambda: lambda: _alone(remote.where, call),
        },
        scale,
    )
    case = f"{place.name}, the same both ways"
    return [
        _row(f"{case}: in process", times["ours"], IN_PROCESS, times["theirs"], _US),
        _row(f"{case}: over HTTP", times["kept"], OVER_HTTP, times["alone"], _MS),
    ]


async def _nothing_at_all(threads: ActionThreads, scale: Scale) -> BenchRow:
    async def nothing() -> bytes:
        return b""

    there: queue.SimpleQueue[bool] = queue.SimpleQueue()
    back: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def hand_back() -> None:
        while there.get():
            back.put(True)  # noqa: FBT003 (a token)

    async def hand_over() -> None:
        there.put(True)  # noqa: FBT003
        back.get()

    thread = threading.Thread(target=hand_back)
    thread.start()
    times = await _raced(
        {
            "ours": lambda: lambda: threads.on_loop(nothing, TIMEOUT_S),
            "theirs": lambda: hand_over,
        },
        scale,
    )
    there.put(False)  # noqa: FBT003
    thread.join()
    return _row("no action at all", times["ours"], HANDED_OVER, times["theirs"], _US)


async def _unless_rejected(running: Awaitable[object]) -> None:
    # One of the actions rejects every call.
    with suppress(Exception):
        await running


async def _alone(url: str, call: ActionCall) -> None:
    async with at_server(url) as remote:
        await outcome(remote, call)


async def _raced(
    ways: Mapping[str, _Prepare], scale: Scale
) -> Mapping[str, Sequence[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(scale.rounds + 1):
        for name, prepare in ways.items():
            spent = [await _spent(prepare()) for _ in range(scale.runs)]
            if number:  # the first round warms up
                times[name] += spent
    return times


async def _spent(run: _Run) -> float:
    began = time.perf_counter()
    await run()
    return time.perf_counter() - began


def _row(
    case: str,
    ours: Sequence[float],
    baseline: str,
    theirs: Sequence[float],
    unit: tuple[str, float],
) -> BenchRow:
    name, per_second = unit
    p50, p99, their_p50, their_p99 = (
        per_second * quantile(times, share)
        for times in (ours, theirs)
        for share in (0.5, 0.99)
    )
    return BenchRow(
        case=f"{case}, p50",
        ours=p50,
        baseline=baseline,
        theirs=their_p50,
        unit=name,
        also={"p99": p99, "their p99": their_p99, "adds": p50 - their_p50},
    )
