"""
The store: conversations in Redis, one round trip for each step of a message's way.

Redis is known here and in the modules that this one is built on only; what goes wrong
with it leaves as StoreError. The work is bounded by the window, never by the length of
a conversation. What is called what is in keys.py, what happens in one step in
scripts.py.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from types import TracebackType
from typing import Any, Literal, Self

from pydantic import JsonValue

from bot.config import ConversationConfig
from bot.conversation import entries, scripts
from bot.conversation.connection import Connection
from bot.conversation.keys import (
    META,
    Part,
    Queue,
    Shard,
    Shards,
    frames_channel,
    person_digest,
    person_of,
    platform_of,
)
from bot.conversation.rewriting import Rewriting
from bot.conversation.scripts import GROUP
from bot.conversation.shelf import RedisShelf
from bot.conversation.state import (
    EVENTS,
    HOUR_S,
    MOST_REMINDERS,
    RECORDS,
    REPLIES,
    Begun,
    Cancel,
    Committed,
    Forgotten,
    Keeper,
    Outgoing,
    Reminder,
    State,
    Undelivered,
    Urgency,
    Waiting,
    soonest,
    turn_id,
)
from bot.conversation.tokens import Token
from bot.errors import StoreError
from bot.interfaces import Accepted
from bot.model import Address, Event, Record, Reply

logger = logging.getLogger(__name__)

DAY_S = 86_400
SEEN_S = DAY_S  # platforms retry for minutes, at most hours
MOST_FIRED = 100  # reminders that one step moves, a few milliseconds of Redis's time
FULL_MS = 5_000  # how long a reminder waits that found its lane full
MOST_JUDGED = 10_000  # turns of a shard whose judgements are kept

# The names of a queue's fields in `meta`: of its token, and of the lease on it.
_FIELDS: Mapping[Queue, tuple[str, str]] = {
    "ready": ("token", "lease"),
    "out": ("out_token", "out_lease"),
}


class Store:
    """
    An async context manager; entering it checks that Redis answers. `embedded` says
    that the append-only file is ours, to be rewritten after somebody was forgotten.
    `scheduled` is set for each shard on which this store has kept a new reminder.
    """

    def __init__(
        self,
        *,
        url: str,
        settings: ConversationConfig,
        shards: int = 1,
        embedded: bool = False,
    ) -> None:
        self.connection = Connection(url)
        self.shards = Shards(shards)
        self.scheduled = {shard: asyncio.Event() for shard in self.shards.all}
        self._settings = settings
        self.ttl_s = _seconds(settings.ttl_days)
        self._record_ttl_s = _seconds(settings.record_ttl_days)
        self._people_ttl_s = max(self.ttl_s, self._record_ttl_s)
        self.handoff_hours = settings.handoff_hours
        self.handoff_ms = round(1000 * HOUR_S * settings.handoff_hours)
        script = self.connection.script
        self._accept = script(scripts.ACCEPT)
        self._turn_away = script(scripts.TURN_AWAY)
        self._judge = script(scripts.JUDGE)
        self._stop = script(scripts.STOP)
        self._begin = script(scripts.BEGIN)
        self._count = script(scripts.COUNT)
        # Whatever becomes of a frame, nothing else may have to wait for it.
        self._frame = script(scripts.FRAME, batched=False)
        self._commit = script(scripts.COMMIT)
        self._acting = script(scripts.ACTING)
        self._fire = script(scripts.FIRE)
        self._hand_back = script(scripts.HAND_BACK)
        self._open = script(scripts.OPEN)
        self._sent = script(scripts.SENT)
        self._later = script(scripts.LATER)
        self._mark = script(scripts.MARK)
        self._erase = script(scripts.ERASE)
        self._retire = script(scripts.RETIRE)
        self._rewriting = Rewriting(self.connection) if embedded else None

    async def __aenter__(self) -> Self:
        await self.connection.__aenter__()
        try:
            await self._check_shards()
        except BaseException:
            await self.connection.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.connection.__aexit__(kind, error, traceback)

    async def _check_shards(self) -> None:
        """With another number of shards, conversations would not be found again."""
        wanted = len(self.shards.all)
        client: Any = self.connection.commands
        with self.connection.translated():
            await client.hsetnx(META, "shards", wanted)
            found = int(await client.hget(META, "shards"))
        if found != wanted:
            raise StoreError(
                f"redis.shards: {wanted}, but the conversations in "
                f"{self.connection.where!r} are spread over {found}; write {found}"
            )

    async def ping(self) -> None:
        client: Any = self.connection.commands
        with self.connection.translated():
            await client.ping()

    def shelf(self, platform: str) -> RedisShelf:
        """Return where the platform's connector keeps things of its own."""
        return RedisShelf(self.connection, self.shards, platform)

    # Into a conversation

    async def accept(self, event: Event, *, interrupts: bool = False) -> Accepted:
        """
        Claim the event and put it at the end of its lane. `interrupts` stops the turn
        that is running there for the same person.
        """
        shard = self.shards.of(event.address.key)
        return await self._claimed(
            self._accept,
            event,
            keys=[
                *self._parts(event.address, "lane", "meta"),
                self._queue(event.address, "ready"),
                shard.named("waiting"),
                shard.named("stops"),
            ],
            args=[
                turn_id(event),
                EVENTS.write(event),
                self._settings.lane_limit,
                person_digest(event.address) if interrupts else "",
            ],
        )

    async def turn_away(
        self, event: Event, notice: Reply, *, once: bool = False
    ) -> Accepted:
        """
        Claim the event and answer it without a turn; its text is not kept. `once`: say
        nothing if this was said since the last turn.
        """
        undelivered = Undelivered(
            turn_id=turn_id(event),
            address=event.address,
            reply=notice,
            urgency="interactive",
        )
        return await self._claimed(
            self._turn_away,
            event,
            keys=[
                *self._parts(event.address, "outbox", "meta"),
                self._queue(event.address, "out"),
                self.shards.of(event.address.key).named("owed"),
            ],
            args=[
                undelivered.turn_id,
                REPLIES.write(undelivered),
                "once" if once else "",
                self.handoff_ms,
            ],
        )

    async def judge(self, event: Event, record: Record | None) -> Accepted:
        """
        Claim the feedback and log it; nothing answers it. It is kept as its person's
        word on the turn, if that is this conversation's, which its record says.
        """
        shard = self.shards.of(event.address.key)
        turn = event.data.get("turn") if record is None else record.turn.id
        log, judged = self._parts(event.address, "log", "judged")
        return await self._claimed(
            self._judge,
            event,
            keys=[log, shard.judged(f"{turn}"), shard.named("judgements"), judged],
            args=[
                EVENTS.write(event),
                self._settings.max_events,
                turn or "",
                *_chosen(record),
                "" if record is None else "recorded",
                person_digest(event.address),
                event.data["rating"],
                self._record_ttl_s,
                MOST_JUDGED,
                "" if record is None else record.arm,
            ],
        )

    async def stop(self, event: Event) -> Accepted:
        """Claim the event and stop the turn at the head of its lane; keep nothing."""
        EVENTS.write(event)  # what cannot be written may not claim either
        shard = self.shards.of(event.address.key)
        keys = [
            shard.seen(event),
            *self._parts(event.address, "lane", "meta"),
            shard.named("stops"),
        ]
        with self.connection.translated():
            return _accepted(await self._stop(keys=keys, args=[_claim(), SEEN_S]))

    async def _claimed(
        self, script: Any, event: Event, keys: Sequence[str], args: Sequence[Any]
    ) -> Accepted:
        shard = self.shards.of(event.address.key)
        claim_keys = [
            shard.seen(event),
            shard.person(person_of(event.address)),
            *self._parts(event.address, "people"),
            shard.named("active"),
            shard.rate(event.address.platform, person_of(event.address)),
        ]
        claim_args = [
            _claim(),
            SEEN_S,
            event.address.key,
            self.ttl_s,
            self._people_ttl_s,
            self._settings.messages_per_minute,
        ]
        with self.connection.translated():
            answer = await script(keys=[*claim_keys, *keys], args=[*claim_args, *args])
        return _accepted(answer)

    # A turn

    async def begin(self, token: Token, messages: int = 1) -> Begun | None:
        """
        Take up the lane of `token`: its first `messages`, and what the turn starts
        from. None when there is nothing to do, or another one holds the token.
        """
        shard = self.shards.of(token.conversation)
        keys = [
            token.stream,
            shard.of(token.conversation, "meta"),
            shard.of(token.conversation, "lane"),
            shard.named("waiting"),
            shard.of(token.conversation, "log"),
            shard.of(token.conversation, "slots"),
        ]
        args = [*_holder(token), messages, self._settings.window_events]
        with self.connection.translated():
            answer = await self._begin(keys=keys, args=args)
        return (
            entries.begun(answer, token.conversation) if answer[0] == b"begun" else None
        )

    async def commit(  # noqa: PLR0913 (all that one step keeps)
        self,
        token: Token,
        answered: Sequence[Waiting],
        *,
        events: Sequence[Event] = (),
        slots: Mapping[str, JsonValue] | None = None,
        record: Record | None = None,
        reply: Reply | None = None,
        urgency: Urgency = "final",
        set_aside: str = "",
        handed: str = "any",
        keeper: Keeper = "",
        why: str = "",
        reminders: Sequence[Reminder] = (),
        cancels: Sequence[Cancel] = (),
        user_wrote: bool = False,
    ) -> Committed:
        """
        Log the events, set the slots (None clears one), keep the record, put the reply
        into the outbox and take the messages off their lane: all of it or nothing, and
        nothing when the lease is not the lane's any more. `set_aside` says why the
        message also becomes a dead letter. `handed`, unless it is "any", is since when
        people had the conversation as the turn began, or empty: nothing is kept if that
        is not so any more. `keeper` is who has it from now on, and `why`. Reminders are
        cancelled first; then those go that a message drops, if `user_wrote` one, also
        out of the lane; then `reminders` are set, the last of each name. The first of
        `answered` names the turn.
        """
        turn, address = answered[0].turn_id, answered[0].event.address
        outgoing = b""
        if reply is not None:
            outgoing = REPLIES.write(
                Undelivered(turn_id=turn, address=address, reply=reply, urgency=urgency)
            )
        shard = self.shards.of(token.conversation)
        parts: tuple[Part, ...] = (
            *("lane", "outbox", "log", "slots", "meta", "turns", "people", "letters"),
            "reminders",
        )
        lane, outbox, log, slots_key, meta, turns, people, letters, reminded = (
            self._parts(address, *parts)
        )
        keys = [
            token.stream,
            meta,
            lane,
            shard.named("waiting"),
            outbox,
            self._queue(address, "out"),
            shard.named("owed"),
            log,
            slots_key,
            turns,
            people,
            shard.named("active"),
            shard.record(turn),
            shard.named("dead"),
            letters,
            shard.named("handed"),
            reminded,
            shard.reminders(address.platform),
        ]
        cancelled = [entries.cancel_args(cancel) for cancel in cancels]
        set_now = [entries.reminder_args(reminder) for reminder in soonest(reminders)]
        args: list[str | bytes | int] = [
            GROUP,
            token.id,
            token.lease,
            token.conversation,
            turn,
            len(answered),
            self.ttl_s,
            self._settings.max_events,
            shard.record(""),
            b"" if record is None else RECORDS.write(_without_history(record)),
            self._record_ttl_s,
            outgoing,
            set_aside.encode(errors="replace"),
            handed,
            keeper,
            why.encode(errors="replace"),
            "wrote" if user_wrote else "",
            MOST_REMINDERS,
            len(cancelled),
            len(set_now),
            len(events),
            *chain.from_iterable(cancelled),
            *chain.from_iterable(set_now),
            *[EVENTS.write(event) for event in events],
            *entries.slot_args(slots or {}),
        ]
        with self.connection.translated():
            answer: bytes = await self._commit(keys=keys, args=args)
        word, _, surplus = answer.decode().partition(" ")
        committed: Committed = word  # type: ignore[assignment]  # the script's words
        if reminders:
            self.scheduled[shard].set()
            left_out = len({one.name for one in reminders}) - len(set_now)
            too_many = left_out + int(surplus or 0)
            if too_many and word == "committed":
                logger.warning(
                    "turn %s: %d reminders were dropped, the latest ones: a "
                    "conversation has %d at most; let the action set fewer, or cancel "
                    "some",
                    turn,
                    too_many,
                    MOST_REMINDERS,
                )
        return committed

    async def mark_acting(self, token: Token, turn: str) -> bool:
        """
        Note that from now on the turn may do something outside that must not be done
        twice, which `begin` tells whoever takes it up again. False when the lane is
        another's by now.
        """
        meta = self.shards.of(token.conversation).of(token.conversation, "meta")
        with self.connection.translated():
            return bool(await self._acting(keys=[meta], args=[token.lease, turn]))

    async def fire(self, shard: Shard, platforms: Sequence[str]) -> float | None:
        """
        Put the reminders of these platforms that are due into their lanes, some at
        once; return in how many seconds the next one is due, None when there is none.
        """
        keys = [shard.named("waiting"), shard.named("active")]
        for platform in platforms:
            keys += [shard.reminders(platform), shard.queue("ready", platform)]
        args = [
            f"{shard.prefix}:c:",
            self.ttl_s,
            self._people_ttl_s,
            self._settings.lane_limit,
            MOST_FIRED,
            FULL_MS,
        ]
        with self.connection.translated():
            now, due = await self._fire(keys=keys, args=args)
        return max(0, int(due) - int(now)) / 1000 if due else None

    async def count_attempt(self, token: Token) -> None:
        """Count that what was begun as an orphan is really tried now."""
        meta = self.shards.of(token.conversation).of(token.conversation, "meta")
        with self.connection.translated():
            await self._count(keys=[meta], args=[token.lease])

    async def publish_frame(self, token: Token, turn: str, text: str) -> bool:
        """
        Tell whoever shows it what is written of a turn's reply so far; nothing of it is
        kept. False when it is not the time for it: see the script.
        """
        shard = self.shards.of(token.conversation)
        keys = [shard.of(token.conversation, part) for part in ("meta", "outbox")]
        channel = frames_channel(platform_of(token.conversation))
        with self.connection.translated():
            return bool(
                await self._frame(keys=keys, args=[token.lease, channel, turn, text])
            )

    async def hand_back(
        self, token: Token, queue: Queue, *, failed: bool = False
    ) -> None:
        """
        Let another one take up the lane or outbox at once. What was begun does not
        count as an attempt, unless it `failed`.
        """
        meta = self.shards.of(token.conversation).of(token.conversation, "meta")
        again = "again" if failed else ""
        args = [*_holder(token), *_FIELDS[queue], again, self.ttl_s]
        with self.connection.translated():
            await self._hand_back(keys=[token.stream, meta], args=args)

    async def load(self, address: Address) -> State:
        """Return the last events and the slots, as a turn would begin with."""
        log, slots = self._parts(address, "log", "slots")
        window = self._settings.window_events
        client: Any = self.connection.commands
        with self.connection.translated():
            events = await client.lrange(log, -window, -1) if window else []
            return entries.state(events, await client.hgetall(slots))

    # Delivery

    async def open_outbox(self, token: Token) -> Outgoing | None:
        """
        Return the reply at the head. None when there is nothing to send, or another
        one holds the token.
        """
        shard = self.shards.of(token.conversation)
        keys = [
            token.stream,
            shard.of(token.conversation, "meta"),
            shard.of(token.conversation, "outbox"),
            shard.named("owed"),
        ]
        with self.connection.translated():
            return entries.outgoing(await self._open(keys=keys, args=_holder(token)))

    async def sent(
        self, token: Token, turn: str, record: Record | None = None
    ) -> Outgoing | None:
        """
        Take the reply of `turn` out and return the next one. `record`, when given,
        replaces the turn's.
        """
        shard = self.shards.of(token.conversation)
        keys = [
            token.stream,
            shard.of(token.conversation, "meta"),
            shard.of(token.conversation, "outbox"),
            shard.named("owed"),
            shard.record(turn),
        ]
        written = b"" if record is None else RECORDS.write(record)
        args = [GROUP, token.id, token.lease, token.conversation, turn, written]
        with self.connection.translated():
            return entries.outgoing(await self._sent(keys=keys, args=args))

    async def later(self, token: Token, tries: int) -> None:
        """
        Note that the head did not arrive, for the `tries`-th time, and is not being
        sent for now.
        """
        meta = self.shards.of(token.conversation).of(token.conversation, "meta")
        with self.connection.translated():
            await self._later(keys=[meta], args=[token.lease, tries])

    async def mark(self, token: Token, turn: str) -> bool:
        """Mark the head as being sent; False when the outbox is another's by now."""
        meta = self.shards.of(token.conversation).of(token.conversation, "meta")
        with self.connection.translated():
            holder = [GROUP, token.consumer, token.id, token.lease]
            return bool(
                await self._mark(keys=[token.stream, meta], args=[*holder, turn])
            )

    async def retire(self, platform: str) -> None:
        """Remove the empty queues of a platform that nobody will use again."""
        with self.connection.translated():
            for shard in self.shards.all:
                queues = [shard.queue(queue, platform) for queue in _FIELDS]
                await self._retire(keys=queues, args=[])

    # Looking back

    async def record(self, turn: str) -> Record | None:
        """Return the turn's record; None when it expired or there never was one."""
        # A turn's id does not say which shard its conversation is on.
        client: Any = self.connection.commands
        with self.connection.translated():
            for shard in self.shards.all:
                key = shard.record(turn).encode(errors="replace")
                if (written := await client.get(key)) is not None:
                    return RECORDS.read(written)
        return None

    async def record_of(self, address: Address, turn: str) -> Record | None:
        """Return the record of a turn of this conversation."""
        client: Any = self.connection.commands
        with self.connection.translated():
            written = await client.get(self.shards.of(address.key).record(turn))
        return None if written is None else RECORDS.read(written)

    async def ratings(self, turn: str) -> list[int]:
        """Return what people think of a turn's reply: 1 or -1, one for each."""
        client: Any = self.connection.commands
        with self.connection.translated():
            for shard in self.shards.all:
                key = shard.judged(turn).encode(errors="replace")
                if judged := await client.hgetall(key):
                    return entries.ratings(judged)
        return []

    async def last_record(self, address: Address) -> Record | None:
        client: Any = self.connection.commands
        with self.connection.translated():
            (meta,) = self._parts(address, "meta")
            turn = await client.hget(meta, "explained")
        return None if turn is None else await self.record_of(address, turn.decode())

    # Forgetting

    async def forget(self, person: str, platform: str | None = None) -> Forgotten:
        """
        Erase every conversation that `person` (an `Address.user`, or the chat's id
        where users have none) spoke in, on one platform or on all of them. A thread
        shared with others goes as a whole: its replies and records quote everybody.
        """
        client: Any = self.connection.commands
        erased = Forgotten()
        for shard in self.shards.all:
            with self.connection.translated():
                members = await client.smembers(shard.person(person))
            for conversation in sorted(member.decode() for member in members):
                if platform is None or platform_of(conversation) == platform:
                    erased += await self._erased(conversation, "all")
        await self._rewrite()
        return erased

    async def forget_conversation(self, address: Address) -> Forgotten:
        """
        Erase one conversation, except what waits for an answer or is being sent. A
        file that cannot be written anew is logged: it is not the customer's to mend.
        """
        erased = await self._erased(address.key, "keep lane")
        try:
            await self._rewrite()
        except StoreError as error:
            logger.error("a customer asked to be forgotten: %s", error)  # noqa: TRY400
        return erased

    async def abandon(self, address: Address) -> None:
        """Drop what waits in a conversation that nobody is in any more."""
        await self._erased(address.key, "lane only")

    async def _erased(
        self, conversation: str, extent: Literal["all", "keep lane", "lane only"]
    ) -> Forgotten:
        shard, platform = self.shards.of(conversation), platform_of(conversation)
        keys = [
            *(
                shard.of(conversation, part)
                for part in (
                    "lane",
                    "outbox",
                    "log",
                    "slots",
                    "meta",
                    "turns",
                    "people",
                )
            ),
            shard.queue("ready", platform),
            shard.queue("out", platform),
            *map(shard.named, ("waiting", "owed", "active", "dead")),
            shard.of(conversation, "letters"),
            shard.of(conversation, "judged"),
            *map(shard.named, ("judgements", "handed")),
            shard.of(conversation, "reminders"),
            shard.reminders(platform),
        ]
        prefixes = [shard.record(""), shard.rate(platform, ""), shard.person("")]
        with self.connection.translated():
            messages, replies, events, slots, records = await self._erase(
                keys=keys, args=[GROUP, conversation, *prefixes, extent]
            )
        return Forgotten(
            conversations=1,
            events=events,
            slots=slots,
            records=records,
            messages=messages,
            replies=replies,
        )

    async def _rewrite(self) -> None:
        # Also when nothing was found: the answer of an erasing may have been lost.
        if self._rewriting is not None:
            await self._rewriting.rewrite()

    # Names

    def _parts(self, address: Address, *parts: Part) -> list[str]:
        conversation = address.key
        shard = self.shards.of(conversation)
        return [shard.of(conversation, part) for part in parts]

    def _queue(self, address: Address, queue: Queue) -> str:
        return self.shards.of(address.key).queue(queue, address.platform)


def _claim() -> str:
    """Tell our own command, sent again, from somebody else's of the same event."""
    return uuid.uuid4().hex


def _accepted(answer: bytes) -> Accepted:
    accepted: Accepted = answer.decode()  # type: ignore[assignment]  # the scripts' words
    return accepted


def _holder(token: Token) -> list[str]:
    return [GROUP, token.consumer, token.id, token.lease, token.conversation]


def _chosen(record: Record | None) -> tuple[str, str]:
    """Return place and origin of the candidate that was sent, empty for none."""
    if record is None or record.chosen is None:
        return "", ""
    return str(record.chosen), record.candidates[record.chosen].origin


def _without_history(record: Record) -> Record:
    """The log has it; a copy in every record would be most of what a turn writes."""
    return replace(record, turn=replace(record.turn, history=()))


def _seconds(days: float) -> int:
    return max(1, round(days * DAY_S))
