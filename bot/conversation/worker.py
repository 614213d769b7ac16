"""
The worker: takes up a lane, answers what is at its head, commits.

Knows nothing about models, plugins or platforms, nor about Redis: an answerer answers,
the store keeps. A message leaves its lane in the same step that keeps its answer, so a
worker may die anywhere and the next one goes on. An answer is held until it is kept:
a store that goes away meanwhile costs time, not the answer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from bot import metrics
from bot.config import Config, DuringTurn
from bot.conversation import effects
from bot.conversation.commands import Answered, Commands, Stop
from bot.conversation.crew import Held
from bot.conversation.facts import facts
from bot.conversation.frames import FramePublisher
from bot.conversation.keys import person_digest
from bot.conversation.patience import Patience
from bot.conversation.room import Room
from bot.conversation.shares import Shares
from bot.conversation.state import Begun, Handed, Unwritable, Waiting
from bot.conversation.stops import Announced, Stops
from bot.conversation.store import Store
from bot.errors import TurnCancelled, TurnError, place_of
from bot.model import Address, Event, Record, Turn

logger = logging.getLogger(__name__)

ACTED = "its worker ended while an action ran; what may be done is not done again"
TOGETHER = 20  # messages that are looked at, and answered together, at most


class Answerer(Protocol):
    """
    Answers messages. Raises nothing but asyncio's cancellation: a turn that failed or
    was stopped comes back as a record that says so. Tells observers of its turns.
    `show` may be told the beginning of the reply as it grows, on any thread; it never
    waits and never raises. `acting` is awaited before the first action of a turn runs;
    it raises TurnCancelled where nothing may be done any more.
    """

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: Callable[[], Awaitable[None]],
    ) -> Record: ...


class Observers(Protocol):
    """Who is told what happened. Fails for nobody."""

    async def turn_failed(self, turn: Turn, error: Exception) -> None: ...
    async def conversation_handed_over(self, turn: Turn, reason: str) -> None: ...
    async def conversation_resumed(self, address: Address) -> None: ...


AfterCommit = Callable[[Turn, Record], None]


def unheard(turn: Turn, record: Record) -> None:
    """Nobody wants to know of a turn that was committed."""


class AttemptsUsedUp(TurnError):
    """Worker after worker ended in the middle of this turn."""


class Worker:
    """Works lanes; `crew.Crew` gives it one after the other."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        store: Store,
        answerer: Answerer,
        commands: Commands,
        observers: Observers,
        config: Config,
        clock: Callable[[], datetime],
        seeds: Callable[[], int],
        patience: Patience,
        frames: FramePublisher,
        after_commit: AfterCommit = unheard,
    ) -> None:
        self._store = store
        self._answerer = answerer
        self._commands = commands
        self._observers = observers
        self._config = config
        self._attempts = config.workers.attempts
        self._handoff_hours = config.conversation.handoff_hours
        self._clock = clock
        self._seeds = seeds
        self._patience = patience
        self._frames = frames
        self._after_commit = after_commit
        self._running: dict[str, tuple[Turn, Stop]] = {}
        self._stops = Stops(store, patience, self._stop)
        self._room = Room()
        at_once = config.workers.concurrency
        self._shares = Shares(config.workers.per_person or max(1, at_once // 2))

    async def listen(self) -> None:
        """Hear of turns that are to stop, until cancelled."""
        await self._stops.listen()

    async def work(self, held: Held) -> None:
        """Answer the head of a lane, and commit the answer."""
        mode = self._config.during_turn(Address.from_key(held.token.conversation))
        begun = await self._begin(held, mode)
        if begun is None:
            return
        person = person_digest(begun.messages[0].event.address)
        async with self._shares.of(person, held) as waited:
            if waited:  # it may have been erased, handed over, written to meanwhile
                begun = await self._begin(held, mode)
            if begun is not None:
                await self._work(held, begun, mode)

    async def _begin(self, held: Held, mode: DuringTurn) -> Begun | None:
        messages = 1 if mode == "queue" else TOGETHER
        begun = await self._patience(lambda: self._store.begin(held.token, messages))
        held.over = begun is None
        return begun

    async def _work(self, held: Held, begun: Begun, mode: DuringTurn) -> None:
        metrics.waited(begun.waited_s)
        answering = _answering(begun, mode)
        turn = self._turn(answering, begun)
        held.counts = turn.message.kind == "command"
        answered = await self._answered(held, turn, begun, mode)
        if self._may_try_again(turn, answered, begun):
            logger.warning(
                "turn %s failed at attempt %d of %d and is tried again",
                turn.id,
                begun.attempt,
                self._attempts,
            )
            held.over = True
            await self._patience(
                lambda: self._store.hand_back(held.token, "ready", failed=True)
            )
            return
        await self._keep(held, turn, answering, answered, begun.handed)

    # Answering

    def _turn(self, answering: Sequence[Waiting], begun: Begun) -> Turn:
        return Turn(
            id=answering[0].turn_id,
            message=_together([one.event for one in answering]),
            seed=self._seeds(),
            history=begun.state.history,
            slots=begun.state.slots,
        )

    async def _answered(
        self, held: Held, turn: Turn, begun: Begun, mode: DuringTurn
    ) -> Answered:
        if not begun.messages[0].readable:
            return self._made(self._commands.failed(turn, _unreadable()))
        handed = begun.handed if turn.message.kind != "command" else None
        if handed and handed.lasts(self._handoff_hours):
            return self._made(self._commands.with_people(turn, handed))
        hopeless = self._hopeless(turn, begun)
        if hopeless:
            return await self._given_up(turn, hopeless)
        if mode == "interrupt" and _is_overtaken(begun.messages):
            return self._made(self._commands.interrupted(turn))
        if not begun.orphaned:
            async with self._room.shared():
                return await self._tried(held, turn, begun)
        async with self._room.alone():
            await self._patience(lambda: self._store.count_attempt(held.token))
            return await self._tried(held, turn, begun)

    async def _tried(self, held: Held, turn: Turn, begun: Begun) -> Answered:
        stop = Stop()
        self._running[turn.id] = (turn, stop)
        try:
            # It may have been announced before we heard that we have begun.
            announced = self._stops.of(turn.id)
            if begun.stop or (announced and announced.why == "stopped"):
                return self._made(self._commands.stopped(turn))
            if announced is not None:
                self._stop(turn.id, announced)
            answered = await self._answer(held, turn, stop, begun.handed)
        except asyncio.CancelledError:
            stop.press()  # for those who compute on another thread
            raise
        finally:
            self._running.pop(turn.id, None)
        if stop.why == "newer" and answered.outcome == "cancelled":
            return _silenced(answered, self._commands.interrupted(turn))
        return answered

    async def _answer(
        self, held: Held, turn: Turn, stop: Stop, handed: Handed | None
    ) -> Answered:
        is_command = turn.message.kind == "command"
        if is_command and not self._commands.leaves_to_actions(turn):
            return self._made(await self._commands.answer(turn, handed))

        async def acting() -> None:
            await self._mark_acting(held, turn)

        try:
            async with self._frames.of(held.token, turn.id) as show:
                record = await self._answerer.answer(turn, stop.pressed, show, acting)
        except Exception as error:  # noqa: BLE001
            # It promised not to raise; a mistake in it ends one turn, not the bot.
            logger.error(  # noqa: TRY400
                "turn %s: the answerer broke its contract: %s", turn.id, place_of(error)
            )
            return self._made(self._commands.failed(turn, error))
        answered = Answered(reply=record.reply, record=record)
        paused = effects.paused(record)
        if record.outcome == "handed_over" or paused:
            return replace(answered, keeper="people")
        if paused is False:  # an action gave it back
            return replace(answered, keeper="bot")
        if is_command:  # those are answered whoever has the conversation
            return answered
        # Where people had it, they were silent for too long.
        return self._commands.resumed(turn, answered) if handed else answered

    async def _mark_acting(self, held: Held, turn: Turn) -> None:
        """Note that the turn may have done something that must not be done twice."""
        marked = await self._patience(
            lambda: self._store.mark_acting(held.token, turn.id)
        )
        if not marked:
            raise TurnCancelled("another worker answers this turn by now")

    def _hopeless(self, turn: Turn, begun: Begun) -> str:
        """Say why the message is not tried again, "" where it is."""
        if begun.acting:
            return ACTED
        # A command may have done something when it was begun before.
        attempts = 1 if turn.message.kind == "command" else self._attempts
        if begun.attempt <= attempts:
            return ""
        return f"it was tried {begun.attempt - 1} times, and no worker came to its end"

    async def _given_up(self, turn: Turn, why: str) -> Answered:
        error = AttemptsUsedUp(why)
        await self._observers.turn_failed(turn, error)
        return self._made(self._commands.failed(turn, error))

    def _made(self, answered: Answered) -> Answered:
        """Count what the answerer, who counts its own, knows nothing about."""
        if answered.record is not None:
            metrics.turn_over(answered.record)
        return answered

    def _may_try_again(self, turn: Turn, answered: Answered, begun: Begun) -> bool:
        """What may have done something already is not run again."""
        return (
            answered.outcome == "failed"
            and not (answered.record and answered.record.has_acted)
            and not begun.acting
            and turn.message.kind == "message"
            and begun.attempt < self._attempts
            and begun.messages[0].readable
        )

    def _stop(self, turn_id: str, announced: Announced) -> None:
        if turn_id not in self._running:
            return
        turn, stop = self._running[turn_id]
        if announced.why == "stopped" or _is_interrupted_by(turn, announced.who):
            stop.press(announced.why)

    # Keeping

    async def _keep(
        self,
        held: Held,
        turn: Turn,
        answering: Sequence[Waiting],
        answered: Answered,
        handed: Handed | None,
    ) -> None:
        try:
            await self._commit(held, turn, answering, answered, handed)
        except Unwritable as error:
            logger.warning("the answer of turn %s cannot be kept: %s", turn.id, error)
            await self._observers.turn_failed(turn, error)
            apology = self._commands.failed(turn, error)
            await self._commit(held, turn, answering, apology, handed)

    async def _commit(
        self,
        held: Held,
        turn: Turn,
        answering: Sequence[Waiting],
        answered: Answered,
        handed: Handed | None,
    ) -> None:
        record, is_command = answered.record, turn.message.kind == "command"
        reminding = effects.reminding(record, self._clock())
        if record is not None and reminding.problems:
            record = effects.with_problems(record, reminding)
        set_aside = ""
        if record is not None and answered.outcome == "failed":
            set_aside = record.why or "the turn failed"
        # What a customer commands and what an action did is done, whoever answers
        # messages by now.
        has_acted = record is not None and record.has_acted
        is_done = is_command or (handed is None and has_acted)
        # The renewal may find the token gone before we hear that it was committed.
        held.over = True
        committed = await self._patience(
            lambda: self._store.commit(
                held.token,
                answering,
                events=facts([one.event for one in answering], answered, self._clock()),
                slots={} if record is None else record.slots,
                record=record,
                reply=None if answered.silent else answered.reply,
                urgency="interactive" if is_command else "final",
                set_aside=set_aside,
                handed="any" if is_done else (handed.since if handed else ""),
                keeper=answered.keeper,
                why="" if record is None else record.why,
                reminders=reminding.reminders,
                cancels=reminding.cancels,
                user_wrote=turn.message.kind == "message",
            )
        )
        match committed:
            case "lost":
                metrics.lease_lost("lane")
                logger.warning(
                    "turn %s was not committed: its lease was lost, and another "
                    "worker answers it",
                    turn.id,
                )
            case "gone":
                logger.info(
                    "turn %s was dropped: its conversation was erased meanwhile",
                    turn.id,
                )
            case "changed":
                logger.info(
                    "turn %s begins again: its conversation was handed over or given "
                    "back meanwhile",
                    turn.id,
                )
                await self._patience(lambda: self._store.hand_back(held.token, "ready"))
            case _:
                await self._tell(turn, answered, set_aside)

    async def _tell(self, turn: Turn, answered: Answered, set_aside: str) -> None:
        """Tell of a turn that was committed."""
        address = turn.message.address
        if set_aside:
            metrics.set_aside(address.platform)
            logger.error("turn %s was set aside; see chorus dead-letters", turn.id)
        if answered.keeper == "people" and answered.record is not None:
            why = answered.record.why
            await self._observers.conversation_handed_over(turn, why)
        elif answered.keeper == "bot":
            await self._observers.conversation_resumed(address)
        if answered.record is not None:
            self._after_commit(turn, answered.record)


def _answering(begun: Begun, mode: DuringTurn) -> Sequence[Waiting]:
    """
    Return what this turn answers: the head, and when messages are answered together,
    those of the same person that follow it.
    """
    head, *following = begun.messages
    answering = [head]
    if mode == "merge" and head.readable and head.event.kind == "message":
        for one in following:
            same = one.event.address.user == head.event.address.user
            if not one.readable or one.event.kind != "message" or not same:
                break
            answering.append(one)
    return answering


def _together(events: Sequence[Event]) -> Event:
    text = "\n".join(event.text for event in events)
    return replace(events[0], text=text)


def _is_overtaken(messages: Sequence[Waiting]) -> bool:
    """Say whether the person who wrote the head has written again."""
    head, *following = (one.event for one in messages if one.readable)
    return head.kind == "message" and any(
        one.kind == "message" and one.address.user == head.address.user
        for one in following
    )


def _is_interrupted_by(turn: Turn, person: str) -> bool:
    """A command may be doing something that must not be left half done."""
    message = turn.message
    return message.kind == "message" and person_digest(message.address) == person


def _silenced(answered: Answered, silence: Answered) -> Answered:
    """Keep what actions did until the turn was stopped, and say nothing."""
    record = answered.record
    if record is not None and silence.record is not None:
        why = silence.record.why
        record = replace(record, reply=silence.reply, why=why)
    return replace(answered, reply=silence.reply, record=record, silent=True)


def _unreadable() -> TurnError:
    return TurnError("the message was written by another version of Chorus")
