"""
Two ways of keeping a conversation, for bench `state`: ours, and one JSON value.

Both keep the same events of the same turns, each of a message and a reply that repeats
it, and can be asked what they kept. Knows nothing about how turns are timed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self

from bot.conversation.manager import ConversationManager, Role
from bot.conversation.state import EVENTS, Committed
from bot.conversation.store import Store
from bot.conversation.tokens import Token, Tokens
from bot.evaluation.bench_state_worker import (
    NOON,
    PLATFORM,
    WatchedStore,
    address_of,
    bench_config,
    message,
    null_bot,
    text_of,
)
from bot.model import Event

ANSWERING: Collection[Role] = ["workers"]


class Way(Protocol):
    """`prepare` gives a conversation its history, and comes before any `turn`."""

    async def prepare(self, conversation: str, turns: int) -> None: ...
    async def turn(self, conversation: str, number: int) -> None: ...
    async def texts(self, conversation: str) -> Sequence[str]:
        """Return the text of every event that was kept."""
        ...


class ChorusWay:
    """
    An async context manager. Turns are answered inside `answering` only, because the
    lanes of conversations that are being prepared must not be taken by a worker.
    """

    def __init__(self, url: str) -> None:
        self._config = bench_config()
        self.store = WatchedStore(url, self._config, self._committed)
        shards = self.store.shards
        self._tokens = Tokens(self.store.connection, shards, "ready", [PLATFORM])
        self._waiting: dict[str, asyncio.Future[Committed]] = {}
        self._bot: ConversationManager | None = None

    async def __aenter__(self) -> Self:
        await self.store.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.store.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def answering(
        self, roles: Collection[Role] = ANSWERING
    ) -> AsyncIterator[ConversationManager]:
        async with null_bot(self.store, config=self._config, roles=roles) as bot:
            self._bot = bot
            yield bot

    async def prepare(self, conversation: str, turns: int) -> None:
        """Commit all of the history at once, as if one turn had brought it."""
        await self.store.accept(message(conversation, 0))
        tokens: list[Token] = []
        while not tokens:
            tokens = await self._tokens.take(self.store.shards.all[0], room=1)
        begun = await self.store.begin(tokens[0])
        if begun is None:
            raise AssertionError(conversation)
        events = history(conversation, turns)
        await self.store.commit(tokens[0], begun.messages, events=events)

    async def turn(self, conversation: str, number: int) -> None:
        assert self._bot is not None  # noqa: S101 (turns are inside `answering`)
        committed = asyncio.get_running_loop().create_future()
        self._waiting[address_of(conversation).key] = committed
        accepted = await self._bot.accept(message(conversation, number))
        answer = (accepted, await committed)
        if answer != ("accepted", "committed"):
            raise AssertionError(answer)

    async def texts(self, conversation: str) -> Sequence[str]:
        key = address_of(conversation).key
        log = self.store.shards.of(key).of(key, "log")
        client: Any = self.store.connection.commands
        return [EVENTS.read(one).text for one in await client.lrange(log, 0, -1)]

    def _committed(self, token: Token, committed: Committed) -> None:
        if (waiting := self._waiting.pop(token.conversation, None)) is not None:
            waiting.set_result(committed)


class JsonWay:
    """One value for each conversation: GET, parse, change, write, SET."""

    def __init__(self, store: Store) -> None:
        self._client: Any = store.connection.commands

    async def prepare(self, conversation: str, turns: int) -> None:
        events = list(map(_as_json, history(conversation, turns)))
        await self._set(conversation, {"events": events, "slots": {}})

    async def turn(self, conversation: str, number: int) -> None:
        state = json.loads(await self._client.get(_key(conversation)))
        state["events"] += map(_as_json, facts_of(conversation, number))
        await self._set(conversation, state)

    async def texts(self, conversation: str) -> Sequence[str]:
        state = json.loads(await self._client.get(_key(conversation)))
        return [event["text"] for event in state["events"]]

    async def _set(self, conversation: str, state: dict[str, Any]) -> None:
        await self._client.set(_key(conversation), json.dumps(state))


def history(conversation: str, turns: int) -> list[Event]:
    return [fact for number in range(turns) for fact in facts_of(conversation, number)]


def facts_of(conversation: str, number: int) -> list[Event]:
    """Return what a log keeps of a turn, the reply as the program writes it."""
    asked = message(conversation, number)
    reply = Event(
        id=f"{asked.id}:reply",
        kind="reply",
        address=asked.address,
        time=NOON,
        text=text_of(number),
        data={"turn": asked.id, "outcome": "answered", "citations": []},
    )
    return [asked, reply]


def _key(conversation: str) -> str:
    return f"json:{conversation}"


def _as_json(event: Event) -> dict[str, Any]:
    address = event.address
    return {
        "id": event.id,
        "kind": event.kind,
        "address": {
            "platform": address.platform,
            "account": address.account,
            "chat": address.chat,
            "thread": address.thread,
            "user": address.user,
        },
        "time": event.time.isoformat(),
        "text": event.text,
        "data": event.data,
    }
