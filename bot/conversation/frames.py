"""
Frames: what is written of a reply so far, from its worker to whoever shows it.

They are published and heard, not kept. What nobody hears is lost, and none can be late:
there is no backlog to read after an outage, nothing to forget with a conversation, and
no frame in Redis's file. A script publishes them, and only while its turn still has the
lease. Knows nothing about how a text comes about, nor how it is shown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress

from bot.conversation.cleaning import cleaned_text
from bot.conversation.connection import Connection
from bot.conversation.keys import frames_channel
from bot.conversation.patience import pause_s
from bot.conversation.scripts import TIME_LENGTH, TURN_LENGTH
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.conversation.tokens import Token
from bot.errors import StoreError
from bot.model import Address, Event

logger = logging.getLogger(__name__)

PAUSE_S = 0.25  # between two frames of a turn: nobody reads faster
PUBLISH_S = 1.0  # by then it is out of date
EXPECTED = 10_000  # turns, at most, whose frames are waited for

Sleep = Callable[[float], Awaitable[None]]


class FramePublisher:
    """The worker's side: publishes what turns show while they run."""

    def __init__(self, store: Store, sleep: Sleep) -> None:
        self._store = store
        self._sleep = sleep
        self._failing = False

    @asynccontextmanager
    async def of(self, token: Token, turn: str) -> AsyncIterator[Callable[[str], None]]:
        """
        Give the turn its `show`: it may be called on any thread, never waits and never
        raises. What it was given last counts; what is not out when the turn ends is
        dropped.
        """

        async def publish(text: str) -> bool:
            return await self._published(token, turn, text)

        writing = _Writing(publish, self._sleep)
        try:
            yield writing.show
        finally:
            await writing.end()

    async def _published(self, token: Token, turn: str, text: str) -> bool:
        """Publish one frame; False when it is not out."""
        try:
            async with asyncio.timeout(PUBLISH_S):
                out = await self._store.publish_frame(token, turn, text)
        except (StoreError, TimeoutError) as error:
            if not self._failing:
                logger.warning("replies are not shown as they are written: %s", error)
            self._failing = True
            return False
        self._failing = False
        return out


class _Writing:
    """The frames of one turn: the latest text, a few times a second at most."""

    def __init__(self, publish: Callable[[str], Awaitable[bool]], sleep: Sleep) -> None:
        self._publish = publish
        self._sleep = sleep
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._latest = ""
        self._over = False
        self._publishing: asyncio.Task[None] | None = None

    def show(self, text: str) -> None:
        with suppress(RuntimeError):  # who computes may outlive the loop
            self._loop.call_soon_threadsafe(self._take, text)

    async def end(self) -> None:
        self._over = True
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.gather(self._publishing, return_exceptions=True)

    def _take(self, text: str) -> None:
        if self._over:
            return
        self._latest = cleaned_text(text)
        self._changed.set()
        if self._publishing is None:  # most turns show nothing and need no task
            self._publishing = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not await self._publish(self._latest):
                self._changed.set()
            await self._sleep(PAUSE_S)


class FrameListener:
    """
    The connectors' side: hears the frames of some platforms. A turn's are shown by the
    process that accepted its message, and until its reply is handed out here.
    """

    def __init__(
        self, connection: Connection, platforms: Sequence[str], sleep: Sleep
    ) -> None:
        self._connection = connection
        self._channels = [frames_channel(platform) for platform in platforms]
        self._sleep = sleep
        # Where a turn's frames are shown, and the number of the last one.
        self._expected: dict[str, tuple[Address, bytes]] = {}

    def expect(self, event: Event) -> None:
        """Show the frames of the turn that answers `event`."""
        self._expected[turn_id(event)] = (event.address, b"")
        if len(self._expected) > EXPECTED:
            del self._expected[next(iter(self._expected))]

    def over(self, turn: str) -> None:
        """Show no frame of the turn any more."""
        self._expected.pop(turn, None)

    async def listen(self, show: Callable[[Address, str], None]) -> None:
        """Hand on frames until cancelled; those of an outage of Redis are lost."""
        failures = 0
        while self._channels:
            try:
                heard = self._connection.published(self._channels)
                async with aclosing(heard):
                    async for frame in heard:
                        failures = 0
                        self._heard(frame, show)
            except StoreError as error:
                failures += 1
                if failures == 1:
                    logger.warning("no reply is shown while it is written: %s", error)
            await self._sleep(pause_s(failures))

    def _heard(self, frame: bytes, show: Callable[[Address, str], None]) -> None:
        turn = frame[:TURN_LENGTH].decode()
        # Redis's clock numbers them, whichever worker writes. One that was sent twice,
        # or by somebody who then lost the turn, does not come after a newer one.
        number = frame[TURN_LENGTH : TURN_LENGTH + TIME_LENGTH]
        address, last = self._expected.get(turn, (None, b""))
        if address is None or number <= last:
            return
        self._expected[turn] = (address, number)
        show(address, frame[TURN_LENGTH + TIME_LENGTH :].decode())
