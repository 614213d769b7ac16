"""
The conversation manager: what one process does for the conversations.

It runs connectors, which bring messages and deliver replies, or workers, which answer,
or both. Any number of processes share one Redis; none knows of the others. Knows
nothing about how anything is done: inbox, worker and outbox do it, a crew gives each
its work.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import datetime
from types import TracebackType
from typing import Literal, Protocol, Self

from bot.config import Config
from bot.conversation import inbox, outbox, worker
from bot.conversation.commands import Commands, NoActions, TakesCommands
from bot.conversation.crew import Crew, Held
from bot.conversation.frames import FrameListener, FramePublisher
from bot.conversation.inbox import Inbox
from bot.conversation.keys import Queue
from bot.conversation.outbox import Outbox
from bot.conversation.patience import Patience
from bot.conversation.reminders import Reminders
from bot.conversation.store import Store
from bot.conversation.tokens import Tokens
from bot.conversation.worker import AfterCommit, Answerer, Worker, unheard
from bot.errors import ChorusError, StoreError
from bot.interfaces import Accepted, Connector, ShowsFrames
from bot.model import Event, Record

Role = Literal["connectors", "workers"]

EVERYTHING: Collection[Role] = ("connectors", "workers")
ADDRESSES_AT_ONCE = 1000
LOOK_S = 0.5


class Observers(worker.Observers, outbox.Observers, inbox.Observers, Protocol):
    """Who is told what happened; one that fails must not be noticed here."""


class MemoryUsedUp(ChorusError):
    """The process has grown to the limit; whoever watches it starts it again."""


class ConversationManager:
    """
    An async context manager: inside it this process works. `run` lets the connectors
    bring messages. One that is not `patient` does not wait for a store that stays
    away: it is cancelled inside, and leaves with the store's error. `alone`: no other
    process is at work here, so what a former one held is taken over at once.
    `actions` are those that the answerer runs for commands.
    `after_commit` is told of each turn once it is kept; it must not wait.
    """

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        store: Store,
        answerer: Answerer | None,
        connectors: Mapping[str, Connector],
        observers: Observers,
        config: Config,
        explain: Callable[[Record], str],
        clock: Callable[[], datetime],
        seeds: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        roles: Collection[Role] = EVERYTHING,
        patient: bool = True,
        alone: bool = False,
        actions: TakesCommands | None = None,
        after_commit: AfterCommit = unheard,
    ) -> None:
        self._store = store
        self._connectors = connectors
        self._config = config
        self._alone = alone
        self._roles = roles
        self._patience = Patience(sleep, patient=patient)
        self._changed = asyncio.Event()
        self._full = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._inbox = Inbox(
            store=store,
            platforms=connectors,
            observers=observers,
            config=config,
            queued=self._queued,
        )
        showing = [
            name for name, one in connectors.items() if isinstance(one, ShowsFrames)
        ]
        self._frames = FrameListener(store.connection, showing, sleep)
        self._outbox = Outbox(
            store=store,
            connectors=connectors,
            observers=observers,
            patience=self._patience,
            frames=self._frames,
            sleep=sleep,
        )
        self._crews: list[Crew] = []
        self._tokens: list[Tokens] = []
        self._worker: Worker | None = None
        self._reminders = Reminders(store, list(connectors), self._patience)
        if "connectors" in roles:
            # One for each: a platform that is down must not keep the others waiting.
            self._crews += [
                self._crew("out", [name], self._outbox.work, ADDRESSES_AT_ONCE)
                for name in connectors
            ]
        if "workers" in roles and answerer is not None:
            self._worker = Worker(
                store=store,
                answerer=answerer,
                commands=Commands(
                    store=store,
                    patience=self._patience,
                    actions=actions or NoActions(),
                    explain=explain,
                    config=config,
                ),
                observers=observers,
                config=config,
                clock=clock,
                seeds=seeds,
                patience=self._patience,
                frames=FramePublisher(store, sleep),
                after_commit=after_commit,
            )
            at_once = config.workers.concurrency
            self._crews.append(
                self._crew("ready", list(connectors), self._work, at_once)
            )

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._running += [self._tasks.create_task(crew.run()) for crew in self._crews]
        if self._worker is not None:
            self._running += [
                self._tasks.create_task(self._worker.listen()),
                self._tasks.create_task(self._reminders.run()),
            ]
        if "connectors" in self._roles:
            listening = self._frames.listen(self._outbox.frame)
            self._running.append(self._tasks.create_task(listening))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        Let what is running finish, for `workers.shutdown_s` and unless something went
        wrong; the rest goes back into its lane.
        """
        well = kind is None or issubclass(kind, MemoryUsedUp)
        grace_s = self._config.workers.shutdown_s if well else 0
        try:
            # Workers first: what they answer now is still delivered by this process.
            ends = time.monotonic() + grace_s
            for queue in ("ready", "out"):
                left_s = max(0, ends - time.monotonic())
                crews = [crew for crew in self._crews if crew.queue == queue]
                await asyncio.gather(*(crew.stop(left_s) for crew in crews))
        finally:
            for task in self._running:
                task.cancel()
            await self._outbox.close()
            try:
                await self._tasks.__aexit__(None, None, None)
            except BaseExceptionGroup as group:
                raise _only(group) from None

    async def run(self, until: asyncio.Event | None = None) -> None:
        """
        Run the connectors until each of them has finished, one fails, or `until` is
        set. A process without connectors works until then. Raises MemoryUsedUp when
        `workers.max_memory_mb` was reached.
        """
        ends = [
            asyncio.create_task(end.wait())
            for end in (until, self._full)
            if end is not None
        ]
        talking = asyncio.create_task(self._talk())
        try:
            await asyncio.wait({*ends, talking}, return_when="FIRST_COMPLETED")
            if talking.done():
                await talking
        finally:
            for task in (*ends, talking):
                task.cancel()
            await asyncio.gather(*ends, talking, return_exceptions=True)
        if self._full.is_set():
            raise MemoryUsedUp(
                f"workers.max_memory_mb: the process grew to {_peak_mib()} MiB, the "
                f"limit is {self._config.workers.max_memory_mb}; it has finished its "
                f"turns and is to be started again"
            )

    async def idle(self) -> None:
        """
        Wait until every accepted message of these platforms is answered and every
        reply is out.
        """
        while True:
            self._changed.clear()
            # Lanes first: a message may become a reply between the two looks.
            lanes_first = reversed(self._tokens)
            left = [await self._patience(tokens.left) for tokens in lanes_first]
            if not any(left):
                break
            # What others do here changes nothing that we would hear of.
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
        await self._outbox.settled()

    async def accept(self, event: Event) -> Accepted:
        """Take an event from a connector; see `Inbox.accept`."""
        return await self._inbox.accept(event)

    def _queued(self, event: Event) -> None:
        working = self._config.replies_for(event.address).working
        self._outbox.show(event.address, working)
        self._frames.expect(event)

    async def _talk(self) -> None:
        if "connectors" not in self._roles:
            await asyncio.Event().wait()
        try:
            async with asyncio.TaskGroup() as tasks:
                for connector in self._connectors.values():
                    tasks.create_task(connector.run(self.accept))
        except BaseExceptionGroup as group:
            raise _only(group) from None

    def _crew(
        self,
        queue: Queue,
        platforms: Sequence[str],
        work: Callable[[Held], Awaitable[None]],
        at_once: int,
    ) -> Crew:
        tokens = Tokens(self._store.connection, self._store.shards, queue, platforms)
        self._tokens.append(tokens)
        return Crew(
            queue=queue,
            store=self._store,
            tokens=tokens,
            work=work,
            patience=self._patience,
            at_once=at_once,
            lease_s=self._config.workers.lease_s,
            alone=self._alone,
            changed=self._changed.set,
        )

    async def _work(self, held: Held) -> None:
        assert self._worker is not None  # noqa: S101 (its crew exists with it only)
        await self._worker.work(held)
        limit = self._config.workers.max_memory_mb
        if limit is not None and _peak_mib() >= limit:
            self._full.set()


def _peak_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 * 1024 if sys.platform == "darwin" else 1024)


def _only(group: BaseExceptionGroup) -> BaseException:
    """
    Return the one error in the group, so that the operator reads its sentence. A store
    that is away may end several tasks at once; they say the same.
    """
    errors = list(_leaves(group))
    alike = all(isinstance(error, StoreError) for error in errors)
    return errors[0] if alike or len(errors) == 1 else group


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _leaves(each)
