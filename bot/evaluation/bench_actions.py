"""
Bench `actions`: what it costs to run an action of rasa-sdk, in this process and over
HTTP, and whether both come to the same.

The actions are the demonstration's, one of each kind; the call holds a conversation of
ten turns. In process the baseline is rasa-sdk's executor, bare: on this event loop, on
a call that is parsed already, so that `adds` is all that we add. Over HTTP it is the
same server called as Rasa 3.6 calls it, with a connection for each call. An answer that
is not the same both ways is raised, not reported. The ways take turns.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from bot.model import Address, Event, Turn

if TYPE_CHECKING:
    from bot.app import App

DEMO = "bot.evaluation.demo_actions"
IN_PROCESS = "rasa-sdk's executor, bare"
OVER_HTTP = "a connection for each call, as Rasa 3.6"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How often each action runs in each way: `runs` in a row, in each of `rounds`."""

    rounds: int = 25
    runs: int = 20


class Different(AssertionError):
    """An action does not come to the same in process and over HTTP."""


# What an action came to: its answer, or how it failed and why.
Outcome = ActionAnswer | tuple[str, str]

# Prepares a call, which is timed without that.
_Way = Callable[[], Awaitable[Callable[[], Awaitable[object]]]]

_US, _MS = ("µs", 1e6), ("ms", 1e3)


def actions_bench(_: App, progress: Progress) -> list[BenchRow]:
    """Measure with a server of its own; the bot's actions are not touched."""
    return asyncio.run(measured(Scale(), progress))


async def measured(scale: Scale, progress: Progress) -> list[BenchRow]:
    threads = ActionThreads()
    places = demo_places(threads)
    try:
        async with served(DEMO) as url:
            remote = remote_at(url)
            rows: list[BenchRow] = []
            for number, place in enumerate(places):
                progress("Actions", number, len(places))
                rows += await _compared(place, remote, scale)
            await remote.close()
        return rows
    finally:
        threads.close()


def demo_places(threads: ActionThreads) -> list[InProcess]:
    """Return the demonstration's actions in this process."""
    names = [
        name
        for name, value in vars(demo_actions).items()
        if inspect.isclass(value) and value.__module__ == DEMO
    ]
    return [
        InProcess(f"{DEMO}:{name}", timeout_s=TIMEOUT_S, reword=False, threads=threads)
        for name in names
    ]


def remote_at(url: str) -> Remote:
    """Return the demonstration's actions on a server."""
    return Remote(
        url=url,
        token=None,
        actions=(),
        streams=("action_recite",),
        timeout_s=TIMEOUT_S,
        reword=False,
    )


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


def _said(kind: str, name: str, text: str) -> Event:
    return Event(
        id=name,
        kind="message" if kind == "message" else "reply",
        address=Address(platform="bench", account="a", chat="c", user="u"),
        time=demo_actions.NOON,
        text=text,
    )


async def _compared(place: InProcess, remote: Remote, scale: Scale) -> list[BenchRow]:
    call = hard_call(place.name)
    here, there = await outcome(place, call), await outcome(remote, call)
    if here != there:
        raise Different(f"{place.name}: in process {here}, over HTTP {there}")
    times = await _raced(_ways(place, remote, plain_call(place.name)), scale)
    return [
        _row(place.name, "in process", times["ours"], IN_PROCESS, times["theirs"], _US),
        _row(place.name, "over HTTP", times["kept"], OVER_HTTP, times["fresh"], _MS),
    ]


def _ways(place: InProcess, remote: Remote, call: ActionCall) -> Mapping[str, _Way]:
    run = bare(DEMO)

    async def ours() -> Callable[[], Awaitable[object]]:
        return lambda: outcome(place, call)

    async def theirs() -> Callable[[], Awaitable[object]]:
        parsed = read(call.request)  # for each call, because actions change it
        return lambda: _unless_rejected(run(parsed))

    async def kept() -> Callable[[], Awaitable[object]]:
        return lambda: outcome(remote, call)

    async def fresh() -> Callable[[], Awaitable[object]]:
        return lambda: _alone(remote.where, call)

    return {"ours": ours, "theirs": theirs, "kept": kept, "fresh": fresh}


async def _unless_rejected(running: Awaitable[object]) -> None:
    # One of the actions rejects every call.
    with suppress(Exception):
        await running


async def _alone(url: str, call: ActionCall) -> None:
    once = remote_at(url)
    await outcome(once, call)
    await once.close()


async def _raced(
    ways: Mapping[str, _Way], scale: Scale
) -> Mapping[str, Sequence[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(scale.rounds + 1):
        for name, way in ways.items():
            spent = [await _spent(await way()) for _ in range(scale.runs)]
            if number:  # the first round warms up
                times[name] += spent
    return times


async def _spent(run: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await run()
    return time.perf_counter() - began


def _row(  # noqa: PLR0913, PLR0917 (all that a row says)
    action: str,
    way: str,
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
        case=f"{action} {way}: the same both ways; p50",
        ours=p50,
        baseline=baseline,
        theirs=their_p50,
        unit=name,
        also={"p99": p99, "their p99": their_p99, "adds": p50 - their_p50},
    )
