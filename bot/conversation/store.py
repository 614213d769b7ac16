"""
The store: conversations in Redis, one round trip for each step of a turn.

Redis is known here and in redis_server.py only; what goes wrong with it leaves as
StoreError. The work is bounded by the window, never by the length of a conversation.

    chorus:{s0}:busy               set of the conversations with work to do
    chorus:{s0}:seen:<hash>        an event's claim, for a day; says nothing about it
    chorus:{s0}:record:<turn>      what `chorus explain` shows, with its own TTL
    chorus:{s0}:person:<id>        set of the conversations a person spoke in
    chorus:{s0}:c:<key>:lane       accepted, unanswered messages
    chorus:{s0}:c:<key>:outbox     committed, undelivered replies
    chorus:{s0}:c:<key>:log        the last events
    chorus:{s0}:c:<key>:slots      hash, values in JSON
    chorus:{s0}:c:<key>:meta       hash: turn (the last one), explained (the last with a
                                   record)
    chorus:{s0}:c:<key>:turns      ids of the turns with a record
    chorus:{s0}:c:<key>:people     who spoke in it

The shard's tag comes first, so that no id with braces in it can move a key. There is
one shard. Everything expires but `busy`, whose stale members the next look takes out.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import JsonValue
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from bot.config import ConversationConfig
from bot.conversation import scripts
from bot.conversation.state import (
    EVENTS,
    RECORDS,
    REPLIES,
    SLOTS,
    TURN_ID_LENGTH,
    Committed,
    Forgotten,
    State,
    Undelivered,
    Unwritable,
    Waiting,
    Work,
    turn_id,
)
from bot.errors import StoreError
from bot.interfaces import Accepted
from bot.model import Address, Event, Record, Reply

DAY_S = 86_400
SEEN_S = DAY_S  # platforms retry for minutes, at most hours
TIMEOUT_S = 5.0
RETRIES = 3
CONNECTIONS = 50
REWRITE_S = 60.0
REWRITE_PAUSE_S = 0.02

_PREFIX = "chorus:{s0}"
_BUSY = f"{_PREFIX}:busy"
_RECORD = f"{_PREFIX}:record:"

# What redis-py raises: most of it, but not all, has RedisError as its base.
REDIS_ERRORS = (
    exceptions.RedisError,
    exceptions.RedisClusterException,
    exceptions.ChildDeadlockedError,
    exceptions.IncorrectPolicyType,
)


class Store:
    """
    An async context manager; entering it checks that Redis answers. `embedded` says
    that the append-only file is ours, to be rewritten after somebody was forgotten.
    """

    def __init__(
        self, *, url: str, settings: ConversationConfig, embedded: bool = False
    ) -> None:
        self._where = without_password(url)
        self._embedded = embedded
        self._window = settings.window_events
        self._max_events = settings.max_events
        self._ttl_s = _seconds(settings.ttl_days)
        self._record_ttl_s = _seconds(settings.record_ttl_days)
        self._client = Redis.from_pool(_pool(url, self._where))
        register = self._client.register_script
        self._accept = register(scripts.ACCEPT)
        self._turn_away = register(scripts.TURN_AWAY)
        self._note = register(scripts.NOTE)
        self._claim = register(scripts.CLAIM)
        self._next = register(scripts.NEXT)
        self._load = register(scripts.LOAD)
        self._commit = register(scripts.COMMIT)
        self._delivered = register(scripts.DELIVERED)
        self._erase = register(scripts.ERASE)
        self._rewriting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        try:
            with self._translated():
                await self._client.ping()
        except BaseException:
            await self._client.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    # Into a conversation

    async def accept(self, event: Event, lane_limit: int) -> Accepted:
        """Claim the event and put it at the end of its lane."""
        entry = _entry(turn_id(event), EVENTS.write(event))
        return await self._claimed(
            self._accept, event, ["lane", _BUSY], [entry, lane_limit]
        )

    async def turn_away(self, event: Event, notice: Reply) -> Accepted:
        """Claim the event and answer it without a turn; its text is not kept."""
        undelivered = Undelivered(
            turn_id=turn_id(event), address=event.address, reply=notice
        )
        entry = _entry(undelivered.turn_id, REPLIES.write(undelivered))
        return await self._claimed(self._turn_away, event, ["outbox", _BUSY], [entry])

    async def note(self, event: Event) -> Accepted:
        """Claim the event and log it; nothing answers it."""
        return await self._claimed(
            self._note, event, ["log"], [EVENTS.write(event), self._max_events]
        )

    async def claim(self, event: Event) -> Accepted:
        """Claim the event; nothing of it is kept."""
        EVENTS.write(event)  # what cannot be written may not claim either
        with self._translated():
            answer = await self._claim(keys=[_seen(event)], args=[_token(), SEEN_S])
        return _accepted(answer)

    async def _claimed(
        self, script: Any, event: Event, parts: Sequence[str], more: Sequence[Any]
    ) -> Accepted:
        conversation = event.address.key
        keys = [_seen(event), _person(event.address), _key(conversation, "people")]
        keys += [part if part == _BUSY else _key(conversation, part) for part in parts]
        args = [_token(), SEEN_S, conversation, self._ttl_s, *more]
        with self._translated():
            return _accepted(await script(keys=keys, args=args))

    # A turn

    async def pending(self) -> list[str]:
        """Return the keys of the conversations with messages or replies left over."""
        with self._translated():
            return sorted(key.decode() for key in await self._members(_BUSY))

    async def next_work(self, conversation: str) -> Work:
        keys = [_key(conversation, "lane"), _key(conversation, "outbox"), _BUSY]
        with self._translated():
            replies, head = await self._next(keys=keys, args=[conversation])
        return Work(
            undelivered=[REPLIES.read(reply[TURN_ID_LENGTH:]) for reply in replies],
            waiting=None if head is None else _waiting(head),
        )

    async def load(self, address: Address) -> State:
        keys = [_key(address.key, part) for part in ("log", "slots")]
        with self._translated():
            events, slots = await self._load(keys=keys, args=[self._window])
        return State(
            history=[EVENTS.read(event) for event in events],
            slots={
                name.decode(): SLOTS.read(value)
                for name, value in zip(slots[::2], slots[1::2], strict=True)
            },
        )

    async def commit(
        self,
        waiting: Waiting,
        *,
        events: Sequence[Event] = (),
        slots: Mapping[str, JsonValue] | None = None,
        record: Record | None = None,
        reply: Reply | None = None,
    ) -> Committed:
        """
        Log the events, set the slots (None clears one), keep the record, put the reply
        into the outbox and take the message off its lane: all of it or nothing.
        """
        address = waiting.event.address
        parts = ("lane", "outbox", "log", "slots", "meta", "turns", "people")
        outgoing = b""
        if reply is not None:
            undelivered = Undelivered(
                turn_id=waiting.turn_id, address=address, reply=reply
            )
            outgoing = _entry(waiting.turn_id, REPLIES.write(undelivered))
        args: list[str | bytes | int] = [
            waiting.turn_id,
            self._ttl_s,
            self._max_events,
            _RECORD,
            b"" if record is None else RECORDS.write(record),
            self._record_ttl_s,
            outgoing,
            len(events),
            *[EVENTS.write(event) for event in events],
            *_slot_args(slots or {}),
        ]
        with self._translated():
            answer = await self._commit(
                keys=[_key(address.key, part) for part in parts], args=args
            )
        committed: Committed = answer.decode()
        return committed

    async def delivered(self, sent: Undelivered, record: Record | None = None) -> None:
        """Take the reply out of the outbox; `record`, when given, replaces its own."""
        keys = [_key(sent.address.key, "outbox"), _RECORD + sent.turn_id]
        written = b"" if record is None else RECORDS.write(record)
        args: list[str | bytes] = [sent.turn_id, written]
        with self._translated():
            await self._delivered(keys=keys, args=args)

    # Looking back

    async def record(self, turn: str) -> Record | None:
        """Return the turn's record; None when it expired or there never was one."""
        key = (_RECORD + turn).encode(errors="replace")
        with self._translated():
            written: Any = await self._client.get(key)
        return None if written is None else RECORDS.read(written)

    async def last_record(self, address: Address) -> Record | None:
        with self._translated():
            turn = await self._hash_field(_key(address.key, "meta"), "explained")
        return None if turn is None else await self.record(turn.decode())

    # Forgetting

    async def forget(self, person: str, platform: str | None = None) -> Forgotten:
        """
        Erase every conversation that `person` (an `Address.user`, or the chat's id
        where users have none) spoke in, on one platform or on all of them. A thread
        shared with others goes as a whole: its replies and records quote everybody.
        """
        with self._translated():
            members = await self._members(_person_key(person))
        conversations = [
            key.decode()
            for key in members
            if platform is None
            or key.startswith(quote(platform, safe="").encode() + b":")
        ]
        erased = Forgotten()
        for conversation in conversations:
            erased += await self._erased(conversation, "all")
        await self._rewrite_file()
        return erased

    async def forget_conversation(self, address: Address) -> Forgotten:
        """Erase one conversation, except the messages that wait for an answer."""
        erased = await self._erased(address.key, "keep lane")
        await self._rewrite_file()
        return erased

    async def _erased(
        self, conversation: str, extent: Literal["all", "keep lane"]
    ) -> Forgotten:
        parts = ("lane", "outbox", "log", "slots", "meta", "turns", "people")
        keys = [*(_key(conversation, part) for part in parts), _BUSY]
        with self._translated():
            messages, replies, events, slots, records = await self._erase(
                keys=keys, args=[conversation, _RECORD, extent]
            )
        return Forgotten(
            conversations=1,
            events=events,
            slots=slots,
            records=records,
            messages=messages,
            replies=replies,
        )

    async def _rewrite_file(self) -> None:
        """
        Write the embedded server's file anew: what was deleted is still in the old
        one. A rewrite that is already running began too early to count.
        """
        if not self._embedded:
            return
        async with self._rewriting:
            await self._rewrite_over()
            with self._translated():
                await self._client.bgrewriteaof()
            await self._rewrite_over()
            await self._check_rewritten()

    async def _rewrite_over(self) -> None:
        # Redis tells nobody when a rewrite is over, so it has to be asked.
        try:
            async with asyncio.timeout(REWRITE_S):
                while await self._is_rewriting():  # noqa: ASYNC110
                    await asyncio.sleep(REWRITE_PAUSE_S)
        except TimeoutError as error:
            raise self._not_rewritten(f"took longer than {REWRITE_S:g} s") from error

    async def _is_rewriting(self) -> bool:
        found = await self._persistence()
        return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])

    async def _check_rewritten(self) -> None:
        if (await self._persistence())["aof_last_bgrewrite_status"] != "ok":
            raise self._not_rewritten("failed, as the server's log explains")

    def _not_rewritten(self, why: str) -> StoreError:
        return StoreError(
            f"redis.url: {self._where!r}: what was erased may still be in the "
            f"append-only file, whose rewriting {why}; run BGREWRITEAOF"
        )

    async def _persistence(self) -> dict[str, Any]:
        with self._translated():
            found: dict[str, Any] = await self._client.info("persistence")
        return found

    # Redis

    # redis-py types these for both of its clients and both ways of decoding.
    async def _members(self, key: str) -> set[bytes]:
        found: Any = self._client.smembers(key)
        members: set[bytes] = await found
        return members

    async def _hash_field(self, key: str, field: str) -> bytes | None:
        found: Any = self._client.hget(key, field)
        value: bytes | None = await found
        return value

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except REDIS_ERRORS as error:
            raise translated(error, self._where) from error


# The first line whose class fits and whose word is in the message says it.
_TOLD: Sequence[tuple[tuple[type[Exception], ...], str, str]] = (
    (
        (exceptions.ResponseError, exceptions.ConnectionError),
        "already authenticated",
        "wants a password; put it into redis.url",
    ),
    (
        (exceptions.ConnectionError,),
        "Authentication required",
        "wants a password; put it into redis.url",
    ),
    (
        (exceptions.ConnectionError,),
        "invalid username-password",
        "refused the user or password; correct them in redis.url",
    ),
    (
        (exceptions.AuthenticationError, exceptions.AuthorizationError),
        "",
        "refused the user or password; correct them in redis.url",
    ),
    (
        (exceptions.NoPermissionError,),
        "",
        "this user may not do what Chorus needs ({said}); extend its ACL",
    ),
    (
        (exceptions.BusyLoadingError,),
        "",
        "still loading its data; try again in a moment",
    ),
    (
        (exceptions.ConnectionError, exceptions.TimeoutError),
        "",
        "cannot be reached ({said}); start it, or correct redis.url",
    ),
    (
        (exceptions.OutOfMemoryError,),
        "",
        "out of memory, so nothing can be kept; raise its maxmemory",
    ),
    (
        (exceptions.ReadOnlyError, exceptions.MasterDownError),
        "",
        "a replica that cannot be written; name the primary in redis.url",
    ),
    (
        (exceptions.ResponseError,),
        "MISCONF",
        "cannot write to its disk ({said}); free some space on it",
    ),
    (REDIS_ERRORS, "", "answered with {kind} ({said}); see its log"),
)


def translated(error: Exception, where: str) -> StoreError:
    """Say in one sentence what is wrong with the Redis at `where`."""
    kind = type(error).__name__
    said = " ".join(str(error).split()) or kind
    told = next(
        sentence
        for classes, word, sentence in _TOLD
        if isinstance(error, classes) and word in said
    )
    return StoreError(f"redis.url: {where!r}: {told.format(said=said, kind=kind)}")


def without_password(url: str) -> str:
    """Return the URL as messages may show it."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return url.partition("://")[0] + "://…"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _pool(url: str, where: str) -> BlockingConnectionPool:
    try:
        return BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            # No health checks: with retries, and a server that wants a password, each
            # makes a new connection that checks its health first, and so on (8.1.0).
            health_check_interval=0,
            # Sends a command again when its answer was lost; see scripts.py.
            retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=1), RETRIES),
        )
    except ValueError as error:
        raise StoreError(
            f"redis.url: {where!r}: not a Redis URL; write redis://host:6379/0, "
            f"rediss://… or unix:///path"
        ) from error


def _key(conversation: str, part: str) -> str:
    return f"{_PREFIX}:c:{conversation}:{part}"


def _seen(event: Event) -> str:
    named = f"{event.address.key} {event.id}".encode(errors="replace")
    return f"{_PREFIX}:seen:{hashlib.sha256(named).hexdigest()[:32]}"


def _person(address: Address) -> str:
    return _person_key(address.chat if address.user is None else address.user)


def _person_key(person: str) -> str:
    return f"{_PREFIX}:person:{quote(person, safe='', errors='replace')}"


def _token() -> str:
    return uuid.uuid4().hex


def _accepted(answer: bytes) -> Accepted:
    accepted: Accepted = answer.decode()  # type: ignore[assignment]  # the scripts' words
    return accepted


def _entry(turn: str, written: bytes) -> bytes:
    return turn.encode() + written


def _waiting(entry: bytes) -> Waiting:
    return Waiting(
        turn_id=entry[:TURN_ID_LENGTH].decode(),
        event=EVENTS.read(entry[TURN_ID_LENGTH:]),
    )


def _slot_args(slots: Mapping[str, JsonValue]) -> Iterator[str | bytes]:
    for name, value in slots.items():
        yield _name(name)
        yield b"" if value is None else SLOTS.write(value)


def _name(slot: str) -> bytes:
    try:
        return slot.encode()
    except UnicodeEncodeError as error:
        raise Unwritable(f"slot {slot!r}: the name is not valid Unicode") from error


def _seconds(days: float) -> int:
    return max(1, round(days * DAY_S))
