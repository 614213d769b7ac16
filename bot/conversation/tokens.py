"""
Tokens: who may work on which lane or outbox, and for how long.

A token is taken from a stream, by waiting for one; held as long as it is renewed; and
taken over from a holder who renews it no more. Redis counts that time, so no clock but
its own matters. Knows nothing about what the work is.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import exceptions

from bot.conversation import scripts
from bot.conversation.connection import BLOCK_MS, Connection
from bot.conversation.keys import Queue, Shard, Shards
from bot.conversation.scripts import GROUP

UNUSED_S = 30 * 86_400
STRANDED = 1000  # tokens of one stream, at most, that are looked for at the end

# The stream, and redis-py's (id, fields).
Entry = tuple[str, tuple[bytes, dict[bytes, bytes]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The right to one conversation's lane or outbox; `lease` is its holder's name."""

    stream: str
    shard: Shard
    id: str
    conversation: str
    lease: str
    consumer: str


class Tokens:
    """The tokens of one queue, for some platforms, as one process takes them."""

    def __init__(
        self,
        connection: Connection,
        shards: Shards,
        queue: Queue,
        platforms: Sequence[str],
    ) -> None:
        self._connection = connection
        self._streams = {
            shard: [shard.queue(queue, platform) for platform in platforms]
            for shard in shards.all
        }
        self._consumer = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._renew = connection.script(scripts.RENEW)
        self._leave = connection.script(scripts.LEAVE)

    @property
    def shards(self) -> list[Shard]:
        return list(self._streams)

    async def take(self, shard: Shard, room: int) -> list[Token]:
        """Wait for tokens, a few of each platform; none came when it is empty."""
        streams = self._streams[shard]
        each = max(1, room // len(streams))
        with self._connection.translated():
            try:
                found: Any = await self._connection.blocking.xreadgroup(
                    GROUP,
                    self._consumer,
                    dict.fromkeys(streams, ">"),
                    count=each,
                    block=BLOCK_MS,
                )
            except exceptions.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._make_groups(streams)
                return []
        taken = [
            (stream.decode(), entry) for stream, entries in found for entry in entries
        ]
        return await self._tokens(shard, taken)

    async def take_over(self, shard: Shard, room: int, idle_ms: int) -> list[Token]:
        """Take tokens whose holders have not renewed them for `idle_ms`."""
        taken: list[Token] = []
        for stream in self._streams[shard]:
            cursor = b"0-0"
            while len(taken) < room:
                # It looks at a few only, and says where it has stopped looking.
                cursor, entries = await self._claim(
                    stream, cursor, room - len(taken), idle_ms
                )
                there = [(stream, one) for one in entries if one[1]]
                taken += await self._tokens(shard, there)
                if cursor == b"0-0":
                    break
        return taken

    async def _claim(
        self, stream: str, cursor: bytes, count: int, idle_ms: int
    ) -> tuple[bytes, list[Any]]:
        client: Any = self._connection.commands
        with self._connection.translated():
            try:
                found = await client.xautoclaim(
                    stream, GROUP, self._consumer, idle_ms, cursor, count
                )
            except exceptions.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                return b"0-0", []
        return found[0], found[1]

    async def renew(self, tokens: Iterable[Token]) -> tuple[set[Token], set[Token]]:
        """
        Go on holding `tokens`; return those that another one holds by now, and those
        that are gone with their conversations.
        """
        held: defaultdict[str, dict[bytes, Token]] = defaultdict(dict)
        for token in tokens:
            held[token.stream][token.id.encode()] = token
        lost: set[Token] = set()
        gone: set[Token] = set()
        for stream, by_id in held.items():
            with self._connection.translated():
                answer = await self._renew(
                    keys=[stream], args=[GROUP, self._consumer, *by_id]
                )
                lost.update(by_id[one] for one in answer[0])
                for token in (by_id[one] for one in answer[1]):
                    # Another one has finished there, or it was erased.
                    found = lost if await self._exists(token) else gone
                    found.add(token)
        return lost, gone

    async def _exists(self, token: Token) -> bool:
        client: Any = self._connection.commands
        meta = token.shard.of(token.conversation, "meta")
        return bool(await client.exists(meta))

    async def stranded(self) -> list[Token]:
        """Return what this process holds, also what it never heard that it got."""
        found: list[Token] = []
        client: Any = self._connection.commands
        for shard, streams in self._streams.items():
            with self._connection.translated():
                entries = [
                    (stream, entry)
                    for stream in streams
                    for row in await self._pending(stream)
                    for entry in await client.xrange(
                        stream, row["message_id"], row["message_id"]
                    )
                ]
            found += await self._tokens(shard, entries)
        return found

    async def _pending(self, stream: str) -> list[dict[str, Any]]:
        client: Any = self._connection.commands
        try:
            rows: list[dict[str, Any]] = await client.xpending_range(
                stream, GROUP, "-", "+", STRANDED, self._consumer
            )
        except exceptions.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            return []
        return rows

    async def leave(self) -> None:
        """Strike this process off the groups, and those that died an hour ago."""
        with self._connection.translated():
            for streams in self._streams.values():
                for stream in streams:
                    await self._leave(keys=[stream], args=[GROUP, self._consumer])

    async def left(self) -> int:
        """Return how many lanes or outboxes there is work in."""
        with self._connection.translated():
            lengths: list[int] = [
                await self._connection.commands.xlen(stream)
                for streams in self._streams.values()
                for stream in streams
            ]
        return sum(lengths)

    async def untaken(self) -> int:
        """Return how many of them nobody has taken yet."""
        client: Any = self._connection.commands
        number = 0
        with self._connection.translated():
            for streams in self._streams.values():
                for stream in streams:
                    taken = await client.xpending(stream, GROUP)
                    number += await client.xlen(stream) - taken["pending"]
        return number

    async def _make_groups(self, streams: Sequence[str]) -> None:
        for stream in streams:
            try:
                await self._connection.commands.xgroup_create(
                    stream, GROUP, "0", mkstream=True
                )
            except exceptions.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            # Or one that is never used would stay for ever.
            if await self._connection.commands.ttl(stream) < 0:
                await self._connection.commands.expire(stream, UNUSED_S)

    async def _tokens(self, shard: Shard, entries: Sequence[Entry]) -> list[Token]:
        """Find out which conversations they stand for; drop those of erased ones."""
        if not entries:
            return []
        client: Any = self._connection.commands
        names = [shard.name(fields[b"c"].decode()) for _, (_, fields) in entries]
        found: list[Token] = []
        with self._connection.translated():
            conversations = await client.mget(names)
            for (stream, (id_, _)), key in zip(entries, conversations, strict=True):
                if key is None:
                    await client.xack(stream, GROUP, id_)
                    await client.xdel(stream, id_)
                    continue
                found.append(
                    Token(
                        stream=stream,
                        shard=shard,
                        id=id_.decode(),
                        conversation=key.decode(),
                        lease=secrets.token_hex(8),
                        consumer=self._consumer,
                    )
                )
        return found
