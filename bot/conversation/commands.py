"""
What a customer can say with a command: why, help, forget, or the name of an action.

Knows nothing about lanes and delivery. An action is a stranger's code: it is given a
time limit, can be stopped, and whatever it raises becomes the apology.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from pydantic import JsonValue
from rapidfuzz import process

from bot.config import Config
from bot.conversation.patience import Patience
from bot.conversation.state import Forgotten
from bot.conversation.store import Store
from bot.errors import PluginError, TurnError
from bot.interfaces import Action
from bot.model import ActionResult, Outcome, Record, Reply, Turn

BUILT_IN: Mapping[str, str] = {
    "why": "explains the last answer",
    "help": "lists what I can do",
    "forget": "erases what I remember of this conversation",
}

Awaited = TypeVar("Awaited")


class Observers(Protocol):
    """Who is told what happened. Fails for nobody."""

    async def turn_started(self, turn: Turn) -> None: ...
    async def turn_failed(self, turn: Turn, error: Exception) -> None: ...


class Interrupted(TurnError):
    """An action was stopped by the customer, or took too long."""


class Stop:
    """
    The customer's way to stop a turn: `pressed` is set for those who look, and
    whoever waits inside `interrupts` is interrupted.
    """

    def __init__(self) -> None:
        self.pressed = threading.Event()
        self.why = ""
        self._limit: asyncio.Timeout | None = None

    def press(self, why: str = "") -> None:
        self.why = self.why or why
        self.pressed.set()
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def interrupts(
        self, waiting: Awaitable[Awaited], timeout_s: float
    ) -> Awaited:
        """Return what is awaited; raise Interrupted once it is overdue or stopped."""
        limit = self._limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await waiting
        except TimeoutError as error:
            if not limit.expired():
                raise  # its own
            raise Interrupted(f"took longer than {timeout_s:g} s") from error
        finally:
            self._limit = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """
    What a turn came to. Without a record it is about the bot, and not logged. When
    `silent`, the customer hears nothing, not even that the bot has stopped working.
    """

    reply: Reply
    record: Record | None = None
    slots: Mapping[str, JsonValue] = field(default_factory=dict)
    action: str | None = None
    silent: bool = False

    @property
    def outcome(self) -> Outcome | None:
        return None if self.record is None else self.record.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Answers turns whose message is a command."""

    store: Store
    patience: Patience
    actions: Mapping[str, Action]
    observers: Observers
    explain: Callable[[Record], str]
    config: Config
    action_timeout_s: float

    async def answer(self, turn: Turn, stop: Stop) -> Answered:
        name, _, arguments = turn.message.text.strip().partition(" ")
        match name:
            case "why":
                return await self._why(turn)
            case "help":
                return Answered(reply=Reply(text=self._help()))
            case "forget":
                return await self._forget(turn)
            case _ if name in self.actions:
                return await self._act(turn, self.actions[name], arguments, stop)
            case _:
                return Answered(reply=Reply(text=self._unknown(name)))

    async def _why(self, turn: Turn) -> Answered:
        address = turn.message.address
        record = await self.patience(lambda: self.store.last_record(address))
        if record is None:
            return Answered(reply=Reply(text="There is no answer to explain yet."))
        return Answered(reply=Reply(text=self.explain(record)))

    def _help(self) -> str:
        known = {
            **BUILT_IN,
            **{name: one.description for name, one in self.actions.items()},
        }
        return "\n".join(f"- `/{name}`: {told}" for name, told in known.items())

    async def _forget(self, turn: Turn) -> Answered:
        address = turn.message.address
        erased = await self.patience(lambda: self.store.forget_conversation(address))
        return Answered(reply=Reply(text=_told(erased)))

    def _unknown(self, name: str) -> str:
        known = [*BUILT_IN, *self.actions]
        near = [
            f"`/{found}`"
            for found, _, _ in process.extract(name, known, score_cutoff=60, limit=3)
        ]
        hint = f"did you mean {' or '.join(near)}?" if near else "`/help` lists them."
        return f"I do not know the command `/{name[:40]}`; {hint}"

    async def _act(
        self, turn: Turn, action: Action, arguments: str, stop: Stop
    ) -> Answered:
        await self.observers.turn_started(turn)
        try:
            result = await self._result(turn, action, arguments, stop)
        except Interrupted as error:
            if stop.pressed.is_set():
                return self.stopped(turn)
            return await self._failed(turn, PluginError(action.name, str(error)))
        except PluginError as error:
            return await self._failed(turn, error)
        reply = result.reply or Reply(text="")
        why = f"the customer ran the action {action.name!r}"
        return Answered(
            reply=reply,
            record=self._record(turn, "direct", reply, why),
            slots=result.slots,
            action=action.name,
        )

    async def _result(
        self, turn: Turn, action: Action, arguments: str, stop: Stop
    ) -> ActionResult:
        running = action.run(turn, arguments.strip())
        try:
            result: object = await stop.interrupts(running, self.action_timeout_s)
        except Interrupted:
            raise
        # A stranger's code may raise anything; the customer gets the apology.
        except Exception as error:
            told = f"raised {type(error).__name__}: {error}"
            raise PluginError(action.name, told) from error
        if not isinstance(result, ActionResult):
            told = f"returned {type(result).__name__}, not an ActionResult"
            raise PluginError(action.name, told)
        return result

    async def _failed(self, turn: Turn, error: Exception) -> Answered:
        await self.observers.turn_failed(turn, error)
        return self.failed(turn, error)

    def failed(self, turn: Turn, error: Exception) -> Answered:
        """Return the apology, and the record that says why."""
        reply = Reply(text=self.config.replies.apology)
        record = self._record(turn, "failed", reply, str(error))
        return Answered(reply=reply, record=replace(record, problems=(str(error),)))

    def stopped(self, turn: Turn) -> Answered:
        reply = Reply(text=self.config.replies.cancelled)
        record = self._record(turn, "cancelled", reply, "the customer stopped it")
        return Answered(reply=reply, record=record)

    def interrupted(self, turn: Turn) -> Answered:
        """Return silence: the newer message is what the customer waits for."""
        reply = Reply(text="")
        record = self._record(turn, "cancelled", reply, "a newer message came")
        return Answered(reply=reply, record=record, silent=True)

    def _record(self, turn: Turn, outcome: Outcome, reply: Reply, why: str) -> Record:
        return Record(
            turn=turn,
            outcome=outcome,
            reply=reply,
            why=why,
            config=self.config.fingerprint,
        )


def _told(erased: Forgotten) -> str:
    if not (erased.events or erased.slots or erased.records):
        return "There was nothing to forget in this conversation."
    return (
        f"I have forgotten this conversation: {erased.events} events, "
        f"{erased.slots} remembered values and {erased.records} explanations."
    )
