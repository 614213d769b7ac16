from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from bot.actions.calls import unseen
from bot.actions.plugin_place import PluginPlace
from bot.errors import ActionError
from bot.model import ActionResult, Button, Reply, Turn
from tests.actions.conftest import Call

Run = Callable[[Turn, str], Awaitable[Any]]


class Plugin:
    """An action of a plugin that does what the test says."""

    name = "stock"
    description = "tells what is in stock"

    def __init__(self, run: Run) -> None:
        self._run = run

    async def run(self, turn: Turn, arguments: str) -> Any:
        return await self._run(turn, arguments)


def returning(result: object) -> PluginPlace:
    async def run(turn: Turn, arguments: str) -> object:
        return result

    return PluginPlace(Plugin(run))


async def test_a_plugins_reply_and_slots_are_an_answer(call: Call) -> None:
    reply = Reply(
        text="Two.", buttons=[Button(text="More", payload="/more")], images=["a.png"]
    )
    place = returning(ActionResult(reply=reply, slots={"stock": 2, "gone": None}))

    answer = await place.run(call("stock"), unseen)

    assert answer.reply is reply
    assert answer.responses == [
        {"text": "Two.", "buttons": [{"title": "More", "payload": "/more"}]}
    ]
    assert answer.events == [
        {"event": "slot", "timestamp": None, "name": "stock", "value": 2},
        {"event": "slot", "timestamp": None, "name": "gone", "value": None},
    ]


async def test_a_plugin_that_says_nothing_has_no_response(call: Call) -> None:
    answer = await returning(ActionResult()).run(call("stock"), unseen)

    assert (answer.events, answer.responses, answer.reply) == ([], [], None)


async def test_a_plugin_is_given_the_turn_and_the_arguments(call: Call) -> None:
    given: list[object] = []

    async def run(turn: Turn, arguments: str) -> ActionResult:
        given.extend([turn, arguments])
        return ActionResult()

    one = replace(call("stock"), arguments=" shoes \n")
    await PluginPlace(Plugin(run)).run(one, unseen)

    assert given == [one.turn, "shoes"]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (None, "returned NoneType, not an ActionResult"),
        ("two", "returned str, not an ActionResult"),
        (ActionResult(reply="two"), "its reply is str, not a Reply"),  # type: ignore[arg-type]
        (ActionResult(slots=[1]), "its slots are list, not a mapping"),  # type: ignore[arg-type]
        (ActionResult(slots={1: 2}), "a name of type int"),  # type: ignore[dict-item]
        (ActionResult(slots={"x": float("nan")}), "its slot 'x' holds what is no JSON"),
        (ActionResult(slots={"x": {1, 2}}), "its slot 'x' holds what is no JSON"),  # type: ignore[dict-item]
        (ActionResult(slots={"x": "\ud83d"}), "its slot 'x' holds what is no JSON"),
    ],
)
async def test_an_answer_that_is_none_is_nonsense(
    call: Call, result: object, told: str
) -> None:
    with pytest.raises(ActionError, match=told) as raised:
        await returning(result).run(call("stock"), unseen)

    assert raised.value.fault == "nonsense"


@pytest.mark.parametrize("error", [ValueError("no stock"), TimeoutError("no stock")])
async def test_a_plugin_that_raises_has_crashed(call: Call, error: Exception) -> None:
    async def run(turn: Turn, arguments: str) -> ActionResult:
        raise error

    name = type(error).__name__
    with pytest.raises(ActionError, match=f"raised {name}: no stock") as raised:
        await PluginPlace(Plugin(run)).run(call("stock"), unseen)

    assert raised.value.fault == "crashed"


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SystemExit(3), "raised SystemExit: 3"),
        (KeyboardInterrupt(), "raised KeyboardInterrupt"),
        (asyncio.CancelledError(), "raised CancelledError"),
        (Exiting(), "raised Exiting: its words raised SystemExit"),
    ],
)
async def test_a_plugin_that_would_end_the_bot_has_crashed(
    call: Call, error: BaseException, told: str
) -> None:
    async def run(turn: Turn, arguments: str) -> ActionResult:
        raise error

    with pytest.raises(ActionError, match=told) as raised:
        await PluginPlace(Plugin(run)).run(call("stock"), unseen)

    assert raised.value.fault == "crashed"


async def test_a_plugin_is_cancelled_with_who_waits_for_it(call: Call) -> None:
    begun = asyncio.Event()

    async def run(turn: Turn, arguments: str) -> ActionResult:
        begun.set()
        await asyncio.Event().wait()
        return ActionResult()

    running = asyncio.ensure_future(PluginPlace(Plugin(run)).run(call("stock"), unseen))
    await begun.wait()

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_plugin_that_takes_too_long_is_late(call: Call) -> None:
    async def run(turn: Turn, arguments: str) -> ActionResult:
        await asyncio.Event().wait()
        return ActionResult()

    with pytest.raises(ActionError, match=r"took longer than 0.01 s") as raised:
        await PluginPlace(Plugin(run), timeout_s=0.01).run(call("stock"), unseen)

    assert raised.value.fault == "late"
