"""
A crew: takes tokens, has each worked on, and holds on to it meanwhile.

Waits for tokens instead of asking for them again and again; works a bounded number at
once; renews what it holds; takes over from holders that died. Knows nothing about
lanes, outboxes or what the work is.

A holder is taken for dead when it has not renewed its token for three quarters of a
lease. Everybody looks for such tokens each quarter, so that within one lease of a
death somebody else is at work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from bot import metrics
from bot.conversation.keys import Queue, Shard
from bot.conversation.patience import Patience
from bot.conversation.state import Unreadable
from bot.conversation.store import Store
from bot.conversation.tokens import Token, Tokens
from bot.errors import StoreError, place_of
from bot.model import digest_of

logger = logging.getLogger(__name__)

PARTS = 4  # a lease is renewed, and the dead are looked for, so often in each
HAND_BACK_S = 5.0
LAST_S = 1.0
ASIDE = 1000  # tokens, at most, that are held and take no place


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """
    A token in somebody's hands. `over`: the work is done, or about to be. `pausing`:
    it waits for some time to pass, and would as well in other hands. `aside`: it waits
    for its own kind and takes nobody's place meanwhile. `counts`: handed back or not,
    it was begun, and may have done something.
    """

    token: Token
    valid_s: float
    room_changed: Callable[[], None]
    over: bool = False
    pausing: bool = False
    aside: bool = False
    counts: bool = False
    renewed: float = field(default_factory=time.monotonic)
    task: asyncio.Task[None] | None = None

    def is_current(self) -> bool:
        """Say whether nobody can have taken it over, as far as our clock tells."""
        return time.monotonic() - self.renewed < self.valid_s

    def step_aside(self) -> None:
        self.aside = True
        self.room_changed()

    def step_in(self) -> None:
        self.aside = False
        self.room_changed()


class Crew:
    """
    Runs `work` for each token that it takes. What `work` raises costs that token: it
    is somebody's again after a lease. A StoreError of somebody who is not patient ends
    the crew. `alone`: nobody else is at work, so what is held was left by the dead.
    """

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        queue: Queue,
        store: Store,
        tokens: Tokens,
        work: Callable[[Held], Awaitable[None]],
        patience: Patience,
        at_once: int,
        lease_s: float,
        alone: bool,
        changed: Callable[[], None],
    ) -> None:
        self.queue = queue
        self._store = store
        self._tokens = tokens
        self._work = work
        self._patience = patience
        self._at_once = at_once
        self._part_s = lease_s / PARTS
        self._valid_s = lease_s - self._part_s
        self._alone = alone
        self._changed = changed
        self._held: set[Held] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._takers: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Work until stopped."""
        async with asyncio.TaskGroup() as tasks:
            # One for each shard: one that is away must not keep the others waiting.
            self._takers = [
                tasks.create_task(take(shard, tasks))
                for shard in self._tokens.shards
                for take in (self._take_over, self._take)
            ]
            renewing = [
                tasks.create_task(self._renew(shard)) for shard in self._tokens.shards
            ]
            await self._stopped.wait()
            for task in (*self._takers, *renewing):
                task.cancel()

    async def stop(self, grace_s: float) -> None:
        """
        Take what is there and no more; let what is running finish within `grace_s`,
        hand back the rest.
        """
        if grace_s > 0:
            await self._take_last()
        for taker in self._takers:
            taker.cancel()
        # Who waits for time to pass must not wake up now, to be cut off in a moment.
        waiting = {held for held in self._held if held.pausing or held.aside}
        for held in waiting:
            if held.task:
                held.task.cancel()
        working = [held.task for held in self._held - waiting if held.task]
        if working and grace_s > 0:
            await asyncio.wait(working, timeout=grace_s)
        left = [held for held in self._held if not held.over]
        tasks = [held.task for held in self._held if held.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # One that is still listening would be given what is handed back.
        if self._takers:
            await asyncio.wait(self._takers)
        await self._hand_back(left)
        self._stopped.set()

    async def _take_last(self) -> None:
        """A reply that was committed just now is still to be sent by this process."""
        if self.queue == "ready":
            return
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LAST_S):
                # Redis tells nobody when the last one was taken.
                while await self._tokens.untaken():  # noqa: ASYNC110
                    await asyncio.sleep(LAST_S / 100)

    # Taking

    async def _take(self, shard: Shard, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._room.wait()
            if self._free() <= 0:
                continue  # somebody who stood aside was quicker
            room = max(1, self._free() // len(self._tokens.shards))
            take = partial(self._tokens.take, shard, room)
            await self._admit(await self._patience(take), tasks)

    async def _take_over(self, shard: Shard, tasks: asyncio.TaskGroup) -> None:
        idle_ms = 0 if self._alone else round(1000 * self._valid_s)
        while True:
            if (room := self._free()) > 0:
                take = partial(self._tokens.take_over, shard, room, idle_ms)
                await self._admit(await self._patience(take), tasks)
            idle_ms = round(1000 * self._valid_s)
            await asyncio.sleep(self._part_s)

    def _free(self) -> int:
        aside = sum(held.aside for held in self._held)
        return self._at_once - len(self._held) + min(aside, ASIDE)

    async def _admit(self, tokens: Iterable[Token], tasks: asyncio.TaskGroup) -> None:
        """Begin on tokens, and let others have those that there is no room for."""
        mine = {(held.token.stream, held.token.id) for held in self._held}
        # Taken over from ourselves, who could not renew it: it is still worked on.
        others = [one for one in tokens if (one.stream, one.id) not in mine]
        room = max(0, self._free())
        for token in others[:room]:
            held = Held(
                token=token, valid_s=self._valid_s, room_changed=self._count_room
            )
            self._held.add(held)
            held.task = tasks.create_task(self._hold(held))
        self._count_room()
        for token in others[room:]:
            await self._patience(partial(self._store.hand_back, token, self.queue))

    def _count_room(self) -> None:
        if self._free() > 0:
            self._room.set()
        else:
            self._room.clear()

    # Holding

    async def _hold(self, held: Held) -> None:
        try:
            await self._work(held)
        except StoreError as error:
            if not isinstance(error, Unreadable):
                raise
            logger.error(  # noqa: TRY400
                "conversation %s has to wait: %s",
                digest_of(held.token.conversation),
                error,
            )
        # A mistake of ours, or a connector's, costs one token for a lease.
        except Exception as error:  # noqa: BLE001
            logger.error(  # noqa: TRY400 (what it says may quote a message)
                "work on a token of %r failed: %s", self.queue, place_of(error)
            )
        finally:
            self._held.discard(held)
            self._count_room()
            self._changed()

    async def _renew(self, shard: Shard) -> None:
        while True:
            await asyncio.sleep(self._part_s)
            mine = {
                held.token: held for held in self._held if held.token.shard == shard
            }
            if not mine:
                continue
            asked = time.monotonic()
            lost, gone = await self._patience(partial(self._tokens.renew, mine))
            for token, held in mine.items():
                if token not in lost | gone:
                    held.renewed = asked
                elif not held.over:
                    self._drop(held, lost=token in lost)

    def _drop(self, held: Held, *, lost: bool) -> None:
        digest = digest_of(held.token.conversation)
        if lost:
            metrics.lease_lost("lane" if self.queue == "ready" else "outbox")
            logger.warning(
                "the lease on %s was lost: it was not renewed in time, and another one "
                "has taken over; nothing of this one's work is kept",
                digest,
            )
        else:
            logger.info("work on %s is dropped: the conversation was erased", digest)
        held.over = True
        if held.task is not None:
            held.task.cancel()

    async def _hand_back(self, left: Iterable[Held]) -> None:
        try:
            async with asyncio.timeout(HAND_BACK_S):
                for held in left:
                    with suppress(StoreError):  # of one shard, others may be well
                        await self._store.hand_back(
                            held.token, self.queue, failed=held.counts
                        )
                # What came in while we stopped listening.
                for token in await self._tokens.stranded():
                    await self._store.hand_back(token, self.queue)
                await self._tokens.leave()
        except (StoreError, TimeoutError) as error:
            # Others will take it over, one lease later.
            logger.warning("work in progress could not be handed back: %s", error)
