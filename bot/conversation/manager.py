"""
The conversation manager: accept, lane, turn, commit, deliver.

Knows nothing about models, plugins or platforms, nor about Redis: an answerer answers,
connectors deliver, the store keeps. The messages of one conversation are worked
strictly in order, conversations beside each other. A message leaves its lane in the
same step that keeps its answer, so a process may die anywhere and the next one goes on.

One process works all lanes. Leases, which let several share them, belong round
`_work`; fencing belongs into the store's `commit`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import unquote

from bot.config import Config
from bot.conversation import commands, outbox
from bot.conversation.cleaning import cleaned, is_readable
from bot.conversation.commands import Answered, Commands, Stop
from bot.conversation.facts import facts
from bot.conversation.outbox import Outbox, pause_s
from bot.conversation.state import Undelivered, Unwritable, Waiting
from bot.conversation.store import Store
from bot.errors import StoreError
from bot.interfaces import Accepted, Action, Connector
from bot.model import Event, Record, Reply, Turn

logger = logging.getLogger(__name__)

FROM_CONNECTORS = frozenset({"message", "command", "cancel", "feedback"})
WORKING = "Thinking …"
PATIENCE = 4  # failures of the store in a row; with the pauses, about seven seconds


class Answerer(Protocol):
    """
    Answers messages. Raises nothing but asyncio's cancellation: a turn that failed or
    was stopped comes back as a record that says so. Tells observers of its turns.
    """

    async def answer(self, turn: Turn, cancelled: threading.Event) -> Record: ...


class Observers(commands.Observers, outbox.Observers, Protocol):
    """Who is told what happened; one that fails must not be noticed here."""

    async def feedback_received(self, event: Event, record: Record | None) -> None: ...


@dataclass(slots=True, kw_only=True)
class _Lane:
    """What a lane's worker has to remember between its steps."""

    key: str
    stop: Stop | None = None
    failures: int = 0
    apologised: str | None = None  # the turn the customer was told about
    record: Record | None = None  # of the turn committed last


class ConversationManager:
    """
    An async context manager: inside it messages are answered, `run` lets the
    connectors bring them. `resumes` says whether what a former process left behind is
    taken up: a process that shares another's server must not, since the other one is
    still at work on it. One that is not `patient` does not wait for a store that stays
    away: it is cancelled inside, and leaves with the store's error.
    """

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        store: Store,
        answerer: Answerer,
        connectors: Mapping[str, Connector],
        observers: Observers,
        actions: Sequence[Action],
        config: Config,
        explain: Callable[[Record], str],
        clock: Callable[[], datetime],
        seeds: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        resumes: bool = True,
        patient: bool = True,
        turns_at_once: int = 8,
        lane_limit: int = 100,
        action_timeout_s: float = 30.0,
    ) -> None:
        self._store = store
        self._answerer = answerer
        self._connectors = connectors
        self._observers = observers
        self._config = config
        self._clock = clock
        self._seeds = seeds
        self._sleep = sleep
        self._outbox = Outbox(
            store=store, connectors=connectors, observers=observers, sleep=sleep
        )
        self._resumes = resumes
        self._patient = patient
        self._lane_limit = lane_limit
        self._commands = Commands(
            store=store,
            actions={action.name: action for action in actions},
            observers=observers,
            explain=explain,
            config=config,
            action_timeout_s=action_timeout_s,
        )
        self._turns = asyncio.Semaphore(turns_at_once)
        self._tasks = asyncio.TaskGroup()
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._lanes: dict[str, _Lane] = {}
        self._woken: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        try:
            if self._resumes:
                await self._resume()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop at once; what was being worked on stays in its lane."""
        for key, worker in self._workers.items():
            if (stop := self._lanes[key].stop) is not None:
                stop.pressed.set()
            worker.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            raise _only(group) from None

    async def run(self) -> None:
        """Run the connectors until each of them has finished, or one fails."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for connector in self._connectors.values():
                    tasks.create_task(connector.run(self.accept))
        except BaseExceptionGroup as group:
            raise _only(group) from None

    async def idle(self) -> None:
        """Wait until every accepted message is answered and every reply is out."""
        await self._idle.wait()

    # Accept

    async def accept(self, event: Event) -> Accepted:
        """
        Take an event from a connector. It is durable when this returns, and the
        connector may acknowledge it to its service then, whatever the answer was.
        Raises StoreError when it could not be kept: nothing may be acknowledged.
        """
        try:
            return await self._accept(cleaned(event))
        except Unwritable as error:
            logger.warning("an event was refused: %s", error)
            return "refused"

    async def _accept(self, event: Event) -> Accepted:
        if event.kind not in FROM_CONNECTORS:
            logger.warning("an event was refused: connectors bring no %r", event.kind)
            return "refused"
        if event.address.platform not in self._connectors:
            logger.warning(
                "an event was refused: no connector %r", event.address.platform
            )
            return "refused"
        match event.kind:
            case "cancel":
                return await self._cancel(event)
            case "feedback":
                return await self._feedback(event)
        notice = self._notice(event.text)
        if notice is not None:
            return await self._turn_away(event, notice)
        return await self._queue(event)

    async def _queue(self, event: Event) -> Accepted:
        accepted = await self._store.accept(event, self._lane_limit)
        if accepted == "refused":
            logger.warning(
                "a message was refused: %d wait in %s already",
                self._lane_limit,
                event.address.key,
            )
            busy = Reply(text=self._config.replies.busy)
            return await self._turn_away(event, busy)
        # A duplicate wakes the lane too: the first answer may have been lost on its
        # way from Redis, after the message was kept.
        self._wake(event.address.key)
        return accepted

    def _notice(self, text: str) -> Reply | None:
        replies, limit = self._config.replies, self._config.conversation
        if len(text) > limit.max_message_characters:
            # Not str.format: a brace in the operator's text must not break it.
            told = replies.too_long.replace("{characters}", str(len(text)))
            told = told.replace("{limit}", str(limit.max_message_characters))
            return Reply(text=told)
        return None if is_readable(text) else Reply(text=replies.empty)

    async def _turn_away(self, event: Event, notice: Reply) -> Accepted:
        accepted = await self._store.turn_away(event, notice)
        self._wake(event.address.key)
        return "refused" if accepted == "accepted" else accepted

    async def _cancel(self, event: Event) -> Accepted:
        accepted = await self._store.claim(event)
        lane = self._lanes.get(event.address.key)
        if accepted == "accepted" and lane is not None and lane.stop is not None:
            lane.stop.press()
        return accepted

    async def _feedback(self, event: Event) -> Accepted:
        accepted = await self._store.note(event)
        if accepted == "accepted":
            record = await self._judged(event)
            await self._observers.feedback_received(event, record)
        return accepted

    async def _judged(self, event: Event) -> Record | None:
        """Find the turn that `data["turn"]` names, or else the last one."""
        named = event.data.get("turn")
        if not isinstance(named, str):
            return await self._store.last_record(event.address)
        record = await self._store.record(named)
        if record is None or record.turn.message.address.key != event.address.key:
            return None  # nobody judges, or learns about, another conversation's turn
        return record

    # Lanes

    async def _resume(self) -> None:
        for key in await self._store.pending():
            # Only those that can be answered here: a terminal session must not take
            # up what a customer on Slack was waiting for.
            if unquote(key.partition(":")[0]) in self._connectors:
                self._wake(key)

    def _wake(self, key: str) -> None:
        self._woken.add(key)
        if key not in self._workers:
            self._idle.clear()
            self._lanes[key] = _Lane(key=key)
            self._workers[key] = self._tasks.create_task(self._work(self._lanes[key]))

    async def _work(self, lane: _Lane) -> None:
        """Work one lane until it is empty; if patient, outwait a store that is gone."""
        try:
            while lane.key in self._woken:
                self._woken.discard(lane.key)
                await self._work_off(lane)
        finally:
            # No await since the last look at `_woken`: no message can fall between.
            del self._workers[lane.key], self._lanes[lane.key]
            if not self._workers:
                self._idle.set()

    async def _work_off(self, lane: _Lane) -> None:
        while True:
            try:
                work = await self._store.next_work(lane.key)
                for undelivered in work.undelivered:
                    await self._outbox.deliver(undelivered, lane.record)
                if work.waiting is not None:
                    await self._take_turn(lane, work.waiting)
                elif not work.undelivered:
                    return
                lane.failures = 0
            except StoreError as error:
                lane.failures += 1
                if not self._patient and lane.failures >= PATIENCE:
                    raise
                logger.error("conversation %s has to wait: %s", lane.key, error)  # noqa: TRY400
                await self._sleep(pause_s(lane.failures))

    # A turn

    async def _take_turn(self, lane: _Lane, waiting: Waiting) -> None:
        lane.stop = Stop()
        address = waiting.event.address
        try:
            async with self._turns:
                await self._outbox.show(address, WORKING)
                await self._answer(lane, waiting, lane.stop)
        except StoreError:
            await self._apologise(lane, waiting)
            raise
        finally:
            lane.stop = None
            await self._outbox.show(address, "")

    async def _answer(self, lane: _Lane, waiting: Waiting, stop: Stop) -> None:
        state = await self._store.load(waiting.event.address)
        turn = Turn(
            id=waiting.turn_id,
            message=waiting.event,
            seed=self._seeds(),
            history=state.history,
            slots=state.slots,
        )
        answered = await self._answered(turn, stop)
        try:
            lane.record = await self._commit(waiting, answered)
        except Unwritable as error:
            logger.warning("the answer of turn %s cannot be kept: %s", turn.id, error)
            apology = self._commands.failed(turn, error)
            lane.record = await self._commit(waiting, apology)
            await self._observers.turn_failed(turn, error)

    async def _answered(self, turn: Turn, stop: Stop) -> Answered:
        if stop.pressed.is_set():  # while it waited for its turn
            return self._commands.stopped(turn)
        if turn.message.kind == "command":
            return await self._commands.answer(turn, stop)
        try:
            record = await self._answerer.answer(turn, stop.pressed)
        except Exception as error:
            # It promised not to raise; a mistake in it ends one turn, not the bot.
            logger.exception("turn %s: the answerer broke its contract", turn.id)
            return self._commands.failed(turn, error)
        return Answered(reply=record.reply, record=record)

    async def _commit(self, waiting: Waiting, answered: Answered) -> Record | None:
        committed = await self._store.commit(
            waiting,
            events=facts(waiting.event, answered, self._clock()),
            slots=answered.slots,
            record=answered.record,
            reply=answered.reply if answered.reply.text else None,
        )
        if committed == "gone":
            logger.info(
                "turn %s was dropped: its conversation was erased meanwhile",
                waiting.turn_id,
            )
        return answered.record

    async def _apologise(self, lane: _Lane, waiting: Waiting) -> None:
        """
        Tell the customer, once, past the outbox: the store is gone. The message stays
        in its lane and is answered when the store is back.
        """
        if lane.apologised == waiting.turn_id:
            return
        lane.apologised = waiting.turn_id
        apology = Undelivered(
            turn_id=f"{waiting.turn_id}:apology",
            address=waiting.event.address,
            reply=Reply(text=self._config.replies.apology),
        )
        await self._outbox.send_past_the_store(apology)


def _only(group: BaseExceptionGroup) -> BaseException:
    """Return the one error in the group, so that the operator reads its sentence."""
    errors = group.exceptions
    while len(errors) == 1 and isinstance(errors[0], BaseExceptionGroup):
        errors = errors[0].exceptions
    return errors[0] if len(errors) == 1 else group
