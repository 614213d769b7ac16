"""
A chat service that is a test: it takes replies, pushes messages, and can be difficult.

Lives in the test's process. Connectors in other processes reach it through a unix
socket, one JSON object a line:

    → {"op": "send", "conversation": …, "key": …, "text": …}
    ← {"id": …} or {"later": seconds} or {"refused": why}, or the connection is dropped
    → {"op": "find", "conversation": …, "key": …}
    ← {"id": … or null}
    → {"op": "serve"}                      and from then on, on this connection:
    ← {"number": …, "event": …}            a message for the bot
    → {"number": …, "answer": …}           what accept said, or "error: …"

Like many services it does not look at keys when something is sent: what is sent twice
is there twice. A message is offered again, to any connector, until one acknowledges it.
Knows nothing about Chorus but what an event looks like.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from bot.conversation.state import EVENTS
from bot.model import Event

LINE = 1 << 22  # bytes, at most
OFFER_S = 3.0
PAUSE_S = 0.05

# What becomes of a send: taken; not now; never; taken, but the answer is lost; neither
# taken nor answered.
Treatment = Literal["take", "later", "refuse", "lose answer", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A reply that a customer can read; `at` is a `time.monotonic()` moment."""

    conversation: str
    key: str
    text: str
    at: float


class Platform:
    """
    An async context manager; `path` is its socket. Everything that arrived is in
    `arrived`, in order; `replies` tells it by conversation, `times` by key.

    `latency_s` is how long each send takes, from when it was taken. `treatments` are
    taken by the next sends, one each; without one a send is taken. `offer` gives a
    message to one connector, `deliver` until it was acknowledged.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chorus-"))
        self.path = self._folder / "platform"
        self.latency_s = 0.0
        self.retry_after_s = 0.05
        self.treatments: deque[Treatment] = deque()
        self.arrived: list[Arrived] = []
        self.finds = 0
        self._by_conversation: defaultdict[str, list[Arrived]] = defaultdict(list)
        self._times: Counter[str] = Counter()
        self._connectors: list[_Served] = []
        self._next = itertools.count()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(
            self._talk, self.path, limit=LINE, backlog=1000
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        talks = list(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        shutil.rmtree(self._folder)

    # What arrived

    def replies(self, conversation: str) -> list[str]:
        """Return the texts that arrived in a conversation, in order."""
        return [one.text for one in self._by_conversation[conversation]]

    def arrivals(self, conversation: str) -> Sequence[Arrived]:
        return self._by_conversation[conversation]

    def times(self, key: str) -> int:
        """Return how often the reply with this key arrived."""
        return self._times[key]

    @property
    def repeated(self) -> dict[str, int]:
        """Return how often too often each reply arrived that did."""
        return {key: times - 1 for key, times in self._times.items() if times > 1}

    @property
    def connectors(self) -> int:
        """Return how many connectors are being served."""
        return len(self._connectors)

    async def until(
        self, happened: Callable[[], bool], otherwise: str, timeout_s: float = 30.0
    ) -> None:
        """Wait until something has `happened`, looked at whenever anything does."""
        try:
            async with asyncio.timeout(timeout_s):
                while not happened():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as late:
            raise AssertionError(f"{otherwise} within {timeout_s:g} s") from late

    # Messages for the bot

    async def deliver(self, event: Event) -> str:
        """Offer a message until it is acknowledged; return what accept said."""
        while True:
            answer = await self.offer(event)
            if answer in {"accepted", "duplicate", "refused"}:
                return answer
            await asyncio.sleep(PAUSE_S)

    async def offer(self, event: Event) -> str:
        """
        Offer a message to the next connector in line. Returns what accept said;
        "error: …", what it raised; or "lost", when no answer came.
        """
        await self.until(lambda: bool(self._connectors), "no connector came")
        served = self._connectors[next(self._next) % len(self._connectors)]
        try:
            async with asyncio.timeout(OFFER_S):
                return await served.offered(event)
        except (TimeoutError, ConnectionError):
            return "lost"

    # Connections

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            # Whoever is at the other end is killed again and again.
            with contextlib.suppress(ConnectionError):
                async for line in reader:
                    await self._answer(json.loads(line), reader, writer)
        finally:
            self._talks.discard(talk)
            writer.close()

    async def _answer(
        self,
        asked: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        match asked["op"]:
            case "serve":
                await self._serve(reader, writer)
            case "find":
                self.finds += 1
                found = self._times[asked["key"]] > 0
                await _write(writer, {"id": asked["key"] if found else None})
            case "send":
                answer = await self._take(asked)
                if answer is None:
                    writer.close()
                else:
                    await _write(writer, answer)

    async def _take(self, sent: dict[str, Any]) -> dict[str, Any] | None:
        treatment = self.treatments.popleft() if self.treatments else "take"
        if treatment in {"take", "lose answer"}:
            self._note(sent)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        match treatment:
            case "take":
                return {"id": sent["key"]}
            case "later":
                return {"later": self.retry_after_s}
            case "refuse":
                return {"refused": "the chat was deleted"}
            case _:
                return None

    def _note(self, sent: dict[str, Any]) -> None:
        arrived = Arrived(
            conversation=sent["conversation"],
            key=sent["key"],
            text=sent["text"],
            at=time.monotonic(),
        )
        self.arrived.append(arrived)
        self._by_conversation[arrived.conversation].append(arrived)
        self._times[arrived.key] += 1
        self._changed.set()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        served = _Served(writer)
        self._connectors.append(served)
        self._changed.set()
        try:
            async for line in reader:
                served.answered(json.loads(line))
        finally:
            self._connectors.remove(served)
            served.close()
            self._changed.set()


class _Served:
    """A connector that messages are pushed to."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = itertools.count()
        self._offers: dict[int, asyncio.Future[str]] = {}

    async def offered(self, event: Event) -> str:
        """Push a message; return the answer. Raises ConnectionError if it cannot."""
        if self._writer.is_closing():
            return "lost"
        number = next(self._numbers)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._offers[number] = answer
        try:
            pushed = {"number": number, "event": json.loads(EVENTS.write(event))}
            await _write(self._writer, pushed)
            return await answer
        finally:
            del self._offers[number]

    def answered(self, line: dict[str, Any]) -> None:
        offer = self._offers.get(line["number"])
        if offer is not None and not offer.done():
            offer.set_result(line["answer"])

    def close(self) -> None:
        for offer in self._offers.values():
            if not offer.done():
                offer.set_result("lost")


async def _write(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
    writer.write(json.dumps(line).encode() + b"\n")
    await writer.drain()
