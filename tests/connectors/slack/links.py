"""
The stand-in's Socket Mode: the sockets of one app, and what is sent down them.

Each envelope goes to one socket. One that is not acknowledged in time goes out again,
to the next socket, three times at most, as Slack does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import orjson
from aiohttp import WSMsgType, web

from tests.connectors.slack.blocks import Json
from tests.connectors.slack.payloads import Payload

RETRIES = 3


@dataclass(slots=True, eq=False)
class Envelope:
    """One payload on its way. `over` is set once it was acknowledged or given up."""

    payload: Payload
    attempts: int = 0
    ids: list[str] = field(default_factory=list)
    acked: bool = False
    answer: Json = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _taken: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, answer: Json) -> None:
        self.acked, self.answer = True, answer
        self._taken.set()

    async def taken(self) -> None:
        await self._taken.wait()


class Links:
    """The open sockets. `ack_s` is how long Slack waits for an acknowledgement."""

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.ack_s = 1.0
        self.answers_pings = True
        self.opened = 0
        self.acked: list[Envelope] = []
        self.unacked: list[Envelope] = []
        self._sockets: list[web.WebSocketResponse] = []
        self._transports: dict[web.WebSocketResponse, asyncio.BaseTransport] = {}
        self._tickets: set[str] = set()
        self._waiting: dict[str, Envelope] = {}
        self._changed = asyncio.Condition()
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._sockets)

    def ticket(self) -> str:
        """Return a ticket for one socket, as apps.connections.open hands out."""
        ticket = f"ticket-{next(self._numbers)}"
        self._tickets.add(ticket)
        return ticket

    async def connected(self, number: int = 1) -> None:
        """Wait until so many sockets are open."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._sockets) >= number)

    def push(self, payload: Payload) -> Envelope:
        """Send a payload down a socket, as often as it takes; wait for `over`."""
        envelope = Envelope(payload)
        task = asyncio.create_task(self._deliver(envelope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return envelope

    async def disconnect(self, reason: str = "refresh_requested") -> None:
        """Ask every client to connect anew (`warning` comes ten seconds earlier)."""
        asked = {
            "type": "disconnect",
            "reason": reason,
            "debug_info": {"host": "applink-1"},
        }
        for socket in list(self._sockets):
            await socket.send_str(_text(asked))

    def drop(self, number: int | None = None) -> None:
        """Lose so many connections, the oldest first, without a word."""
        for socket in self._sockets[:number]:
            transport = self._transports[socket]
            assert isinstance(transport, asyncio.Transport)
            transport.abort()

    def silent(self, *, silent: bool = True) -> None:
        """Leave pings unanswered, as a connection does that is dead on the way."""
        self.answers_pings = not silent

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.drop()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket for as long as it is open."""
        if request.query.get("ticket") not in self._tickets:
            return web.Response(status=401)
        self._tickets.discard(request.query["ticket"])
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        async with self._open(socket, request):
            await socket.send_str(_text(self._hello()))
            async for message in socket:
                match message.type:
                    case WSMsgType.PING if self.answers_pings:
                        await socket.pong(message.data)
                    case WSMsgType.TEXT:
                        self._heard(orjson.loads(message.data))
        return socket

    @asynccontextmanager
    async def _open(
        self, socket: web.WebSocketResponse, request: web.Request
    ) -> AsyncIterator[None]:
        assert request.transport is not None
        self._sockets.append(socket)
        self._transports[socket] = request.transport
        self.opened += 1
        await self._tell()
        try:
            yield
        finally:
            self._sockets.remove(socket)
            del self._transports[socket]
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _hello(self) -> Json:
        return {
            "type": "hello",
            "num_connections": len(self._sockets),
            "connection_info": {"app_id": self.app_id},
            "debug_info": {"host": "applink-1", "approximate_connection_time": 18060},
        }

    def _heard(self, answer: Json) -> None:
        # What comes too late is for an envelope that nobody waits for any more.
        envelope = self._waiting.get(str(answer.get("envelope_id")))
        if envelope is not None:
            envelope.take(answer)

    async def _deliver(self, envelope: Envelope) -> None:
        for attempt in range(RETRIES + 1):
            if await self._attempt(envelope, attempt):
                self.acked.append(envelope)
                break
        else:
            self.unacked.append(envelope)
        envelope.over.set()

    async def _attempt(self, envelope: Envelope, attempt: int) -> bool:
        await self.connected()
        envelope_id = f"envelope-{next(self._numbers)}"
        envelope.attempts = attempt + 1
        envelope.ids.append(envelope_id)
        self._waiting[envelope_id] = envelope
        try:
            async with asyncio.timeout(self.ack_s):
                await self._send(envelope, envelope_id, attempt)
                await envelope.taken()
        except TimeoutError:
            return False
        finally:
            del self._waiting[envelope_id]
        return True

    async def _send(self, envelope: Envelope, envelope_id: str, attempt: int) -> None:
        # To the one that waited longest, so that each gets its share.
        socket = self._sockets.pop(0)
        self._sockets.append(socket)
        told: Json = {
            "envelope_id": envelope_id,
            "type": envelope.payload.kind,
            "payload": envelope.payload.content,
            "accepts_response_payload": envelope.payload.kind != "events_api",
        }
        if envelope.payload.kind == "events_api":
            reason = "timeout" if attempt else ""
            told |= {"retry_attempt": attempt, "retry_reason": reason}
        # One that was just lost takes nothing more, and what it was told is lost too.
        with suppress(ConnectionError):
            await socket.send_str(_text(told))


def _text(value: Json) -> str:
    return orjson.dumps(value).decode()
