"""
A plugin's action as a place: what it returns, in the words of rasa-sdk's webhook.

Knows nothing of why it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from bot.actions.answers import holds_json
from bot.actions.calls import ActionAnswer, ActionCall, JsonObject
from bot.actions.strangers import said
from bot.errors import ActionError
from bot.interfaces import Action
from bot.model import ActionResult, Reply

TIMEOUT_S = 30.0


class PluginPlace:
    """One action of a plugin."""

    where = "plugin"
    reword = False

    def __init__(self, action: Action, timeout_s: float = TIMEOUT_S) -> None:
        self._action = action
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        return self._action.name

    @property
    def timeout_s(self) -> float:
        return self._timeout_s

    async def names(self) -> Sequence[str]:
        return (self.name,)

    async def run(
        self, call: ActionCall, stream: Callable[[str], None]
    ) -> ActionAnswer:
        result = await self._result(call)
        wrong = _wrong_with(result)
        if wrong:
            raise ActionError(call.name, "nonsense", wrong)
        assert isinstance(result, ActionResult)  # noqa: S101 (nothing is wrong with it)
        return ActionAnswer(
            events=[
                {"event": "slot", "timestamp": None, "name": name, "value": value}
                for name, value in result.slots.items()
            ],
            responses=[_response(result.reply)] if result.reply else [],
            reply=result.reply,
        )

    async def close(self) -> None:
        """There is nothing to end: a plugin has hooks for that."""

    async def _result(self, call: ActionCall) -> object:
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                return await self._action.run(call.turn, call.arguments.strip())
        # A stranger's code may raise anything, even an exit, and that would end the
        # bot; the customer gets the apology.
        except BaseException as error:
            if _is_cancelled_by_us(error):
                raise
            if limit.expired():
                told = f"took longer than {self._timeout_s:g} s"
                raise ActionError(call.name, "late", told) from error
            told = f"raised {type(error).__name__}: {said(error)}"
            raise ActionError(call.name, "crashed", told) from error


def _is_cancelled_by_us(error: BaseException) -> bool:
    """An action may also wait for what somebody else has cancelled."""
    task = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError)
    return cancelled and task is not None and task.cancelling() > 0


def _wrong_with(result: object) -> str:
    if not isinstance(result, ActionResult):
        return f"returned {type(result).__name__}, not an ActionResult"
    # Types are the author's promise, which nothing has checked.
    reply: object = result.reply
    slots: object = result.slots
    if not isinstance(reply, Reply | None):
        return f"its reply is {type(reply).__name__}, not a Reply"
    if not isinstance(slots, Mapping):
        return f"its slots are {type(slots).__name__}, not a mapping"
    for name, value in slots.items():
        if not isinstance(name, str) or not holds_json(name):
            return f"one of its slots has a name of type {type(name).__name__}"
        if not holds_json(value):
            return f"its slot {name!r} holds what is no JSON"
    return ""


def _response(reply: Reply) -> JsonObject:
    return {
        "text": reply.text,
        "buttons": [
            {"title": button.text, "payload": button.payload}
            for button in reply.buttons
        ],
    }
