"""
What a reviewer could once lose, repeat, block or stop: one test for each.

Leases are short and pauses are skipped; nothing waits for a fixed time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.exceptions import ConnectionError as GoneAway

from bot import metrics
from bot.app import App
from bot.cli.ask import OneQuestion, _asked
from bot.cli.opening import Opened
from bot.cli.progress import StepProgress
from bot.config import ConversationConfig
from bot.conversation import overview
from bot.conversation.batch import Batch
from bot.conversation.crew import Crew, Held
from bot.conversation.keys import Queue, Shard
from bot.conversation.manager import ConversationManager
from bot.conversation.outbox import GIVE_UP_S
from bot.conversation.patience import Patience
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.rewriting import Rewriting
from bot.conversation.state import Forgotten, turn_id
from bot.conversation.store import Store
from bot.conversation.tokens import Token, Tokens
from bot.errors import DeliveryError, StoreError
from bot.interfaces import Accepted
from bot.model import ActionResult, Address, Event, Reply, Sent, Turn
from bot.testing.fakes import MemoryConnector
from bot.testing.makers import an_address, an_event
from connectors.terminal import Terminal
from tests.conversation.test_manager import (
    CONFIG,
    TWO,
    Bot,
    Echo,
    Told,
    a_config,
    a_record,
    said,
)
from tests.conversation.test_sharing import an_app
from tests.conversation.test_store import answer, begun, delivered, taken

pytestmark = pytest.mark.services

LEASE_S = 0.4
BRIEFLY = a_config(workers={"lease_s": LEASE_S})
DAY_S = 86_400
DAY_MS = 1000 * DAY_S

READY = "chorus:{s0}:ready:memory"
OUT = "chorus:{s0}:out:memory"
LANE = "chorus:{s0}:c:memory:a1:c1:lane"
OUTBOX = "chorus:{s0}:c:memory:a1:c1:outbox"
STATE = "chorus:{s0}:c:memory:a1:c1:meta"


@pytest.fixture
def bot(store: Store) -> Bot:
    return Bot(store)


async def until(happened: Callable[[], object], within_s: float = 10.0) -> None:
    """Look again and again at what nobody tells."""
    async with asyncio.timeout(within_s):
        while not happened():  # noqa: ASYNC110 (that is what it is for)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def settings_of(
    server: EmbeddedRedis, shards: int = 1, **settings: Any
) -> AsyncIterator[Bot]:
    """Open a store with other settings on the module's server."""
    given = {"messages_per_minute": 10_000, **settings}
    async with Store(
        url=server.url, settings=ConversationConfig(**given), shards=shards
    ) as store:
        yield Bot(store)


def others(store: Store, queue: Queue) -> Tokens:
    """Return the tokens as another process takes them."""
    return Tokens(store.connection, store.shards, queue, ["memory"])


def idle_ms(client: redis.Redis, stream: str) -> dict[str, int]:
    """Return the tokens of a stream that are held, and since when unrenewed."""
    rows: Any = client.xpending_range(stream, "chorus", "-", "+", 100)
    return {row["message_id"]: row["time_since_delivered"] for row in rows}


async def answered(bot: Bot, *messages: Event, **more: Any) -> None:
    """Commit answers in a process that delivers nothing."""
    for message in messages:
        await bot.store.accept(message)
    async with bot.manager(roles=["workers"], **more) as manager:
        await manager.idle()


# Redis is away, or the process was


@contextmanager
def stopped(client: redis.Redis) -> Iterator[Callable[[float], None]]:
    """Give a way to let the server hang for some seconds (connections stay)."""
    found: Any = client.info("server")
    pid = found["process_id"]

    def stop(seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, os.kill, pid, signal.SIGCONT)

    try:
        yield stop
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_marking_a_reply_renews_its_token(
    store: Store, client: redis.Redis
) -> None:
    await answer(store, an_event())
    token = await taken(store, "out")
    await store.open_outbox(token)
    await until(lambda: idle_ms(client, OUT)[token.id] >= 400)

    marked = await store.mark(token, turn_id(an_event()))
    early = await others(store, "out").take_over(token.shard, 1, idle_ms=400)

    assert marked
    assert early == []


async def test_a_reply_whose_token_another_one_holds_is_not_marked(
    store: Store,
) -> None:
    await answer(store, an_event())
    slow = await taken(store, "out")
    await store.open_outbox(slow)
    await others(store, "out").take_over(slow.shard, 1, idle_ms=0)

    assert not await store.mark(slow, turn_id(an_event()))


@pytest.mark.skipif(sys.platform == "win32", reason="stops a process")
async def test_a_reply_marked_while_redis_was_away_is_delivered(
    bot: Bot, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, marks = bot.store.mark, 0

    with stopped(client) as stop:

        async def mark(token: Token, turn: str) -> bool:
            nonlocal marks
            marks += 1
            if marks == 1:
                stop(1.2 * LEASE_S)
            return await real(token, turn)

        monkeypatch.setattr(bot.store, "mark", mark)
        async with bot.manager(config=BRIEFLY) as manager:
            await manager.accept(said("hello"))
            await manager.idle()

    assert bot.connector.delivery == "at_most_once"
    assert bot.connector.replies() == ["hello!"]


Renewed = tuple[set[Token], set[Token]]


@dataclass
class LateRenewals:
    """Nothing is renewed until `come` is set; `claimed` were taken over meanwhile."""

    come: asyncio.Event = field(default_factory=asyncio.Event)
    claimed: list[Token] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        renew, take_over = Tokens.renew, Tokens.take_over

        async def late(tokens: Tokens, held: Iterable[Token]) -> Renewed:
            await self.come.wait()
            return await renew(tokens, held)

        async def seen(
            tokens: Tokens, shard: Shard, room: int, idle_ms: int
        ) -> list[Token]:
            found = await take_over(tokens, shard, room, idle_ms)
            self.claimed += found
            return found

        monkeypatch.setattr(Tokens, "renew", late)
        monkeypatch.setattr(Tokens, "take_over", seen)


async def test_a_lane_whose_renewal_was_late_is_not_begun_twice_by_its_own_process(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = LateRenewals()
    renewals.install(monkeypatch)
    gate = bot.answerer.gates["hello"] = asyncio.Event()

    async with bot.manager(config=BRIEFLY) as manager:
        await manager.accept(said("hello"))
        await bot.answerer.begun["hello"].wait()
        await until(lambda: renewals.claimed)
        renewals.come.set()
        gate.set()
        await manager.idle()

    assert len(bot.answerer.turns) == 1
    assert bot.connector.replies() == ["hello!"]


class Gated(MemoryConnector):
    """Counts what it is asked to send, and waits for its gate before it does."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.gate = asyncio.Event()
        self.asked: list[str] = []

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self.asked.append(reply.text)
        await self.gate.wait()
        return await super().send(address, reply, key)


async def test_an_outbox_whose_renewal_was_late_is_not_sent_twice_by_its_own_process(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = LateRenewals()
    renewals.install(monkeypatch)
    bot.connector = connector = Gated(delivery="at_least_once")

    async with bot.manager(config=BRIEFLY) as manager:
        await manager.accept(said("hello"))
        await until(lambda: connector.asked)
        await until(lambda: renewals.claimed)
        renewals.come.set()
        connector.gate.set()
        await manager.idle()

    assert connector.asked == ["hello!"]


@pytest.mark.parametrize(
    ("command", "step", "told"),
    [
        ("why", "last_record", "because of hello"),
        ("forget", "forget_conversation", "I have forgotten this conversation"),
    ],
)
async def test_a_store_away_for_a_moment_ends_neither_a_command_nor_the_process(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, command: str, step: str, told: str
) -> None:
    real, failures = getattr(bot.store, step), 0

    async def fails_twice(address: Address) -> Any:
        nonlocal failures
        if failures < 2:
            failures += 1
            raise StoreError("redis.url: away for a moment")
        return await real(address)

    monkeypatch.setattr(bot.store, step, fails_twice)

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.accept(said(command, kind="command"))
        await manager.accept(said("still there?"))
        await manager.idle()

    assert failures == 2
    assert told in bot.connector.replies()[1]
    assert bot.connector.replies()[2] == "still there?!"


async def test_a_file_that_cannot_be_rewritten_does_not_stop_a_customers_forget(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def rewrite(rewriting: Rewriting) -> None:
        raise StoreError("redis.url: rewriting failed; run BGREWRITEAOF")

    monkeypatch.setattr(Rewriting, "rewrite", rewrite)

    async with bot.manager() as manager:
        await manager.accept(said("my secret"))
        await manager.accept(said("forget", kind="command"))
        async with asyncio.timeout(5):
            await manager.idle()

    assert "I have forgotten this conversation" in bot.connector.replies()[1]
    assert "run BGREWRITEAOF" in caplog.text


async def test_the_log_of_an_outage_says_its_beginning_and_its_end_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bot.conversation.patience")
    failures = Counter[str]()

    async def works() -> str:
        return "works"

    async def meanwhile(seconds: float) -> None:
        await asyncio.sleep(0)
        await patience(works)  # another step gets through, and is no end of it

    def failing(name: str) -> Callable[[], Awaitable[str]]:
        async def step() -> str:
            failures[name] += 1
            if failures[name] <= 3:
                raise StoreError("redis.url: away")
            return name

        return step

    patience = Patience(meanwhile, patient=True)
    results = await asyncio.gather(*[patience(failing(name)) for name in "ab"])

    assert results == ["a", "b"]
    assert caplog.messages == [
        "everything has to wait for the store: redis.url: away",
        "the store is back, or nobody waits for it any more",
    ]


class Unanswering:
    """Stands in for a client: nothing comes back, until everything fails."""

    def __init__(self) -> None:
        self.executed = 0
        self.fails = asyncio.Event()

    def pipeline(self, *, transaction: bool) -> Unanswering:
        return self

    def execute_command(self, *command: object) -> None:
        """Nothing comes back."""

    async def execute(self, *, raise_on_error: bool) -> Sequence[object]:
        self.executed += 1
        await self.fails.wait()
        raise GoneAway("nothing came back")


async def test_a_batch_that_fails_fails_those_who_wait_for_the_next_one_too() -> None:
    client = Unanswering()
    batch = Batch(cast("Any", client))

    calls = [asyncio.create_task(batch.run("sha", b"", [], []))]
    await until(lambda: client.executed)
    calls += [asyncio.create_task(batch.run("sha", b"", [], [])) for _ in range(3)]
    await until(lambda: len(batch._waiting) == 3)
    client.fails.set()
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in results] == [GoneAway] * 4
    assert client.executed == 1


async def test_an_argument_that_cannot_be_encoded_fails_alone(store: Store) -> None:
    script = store.connection.script("return ARGV[1]")

    results = await asyncio.gather(
        *[script(keys=["k"], args=[text]) for text in ("one", "half \ud83d", "two")],
        return_exceptions=True,
    )

    assert results[::2] == [b"one", b"two"]
    assert isinstance(results[1], UnicodeEncodeError)


class OneShardIsAway:
    """Tokens of two shards, one for each; the first shard never answers again."""

    def __init__(self) -> None:
        self.shards = [Shard(0), Shard(1)]
        self.renewed = 0
        self.looked = 0
        self._given: set[Shard] = set()

    async def take(self, shard: Shard, room: int) -> list[Token]:
        if shard in self._given:
            await asyncio.Event().wait()
        self._given.add(shard)
        token = Token(
            stream=shard.queue("ready", "memory"),
            shard=shard,
            id="1-1",
            conversation="memory:a1:c1",
            lease="l",
            consumer="me",
        )
        return [token]

    async def take_over(self, shard: Shard, room: int, idle_ms: int) -> list[Token]:
        if shard.number == 0:
            await asyncio.Event().wait()
        self.looked += 1
        return []

    async def renew(self, held: Iterable[Token]) -> Renewed:
        if any(token.shard.number == 0 for token in held):
            await asyncio.Event().wait()
        self.renewed += 1
        return set(), set()

    async def stranded(self) -> list[Token]:
        return []

    async def leave(self) -> None:
        """Nothing is left behind."""


class KeepsNothing:
    async def hand_back(
        self, token: Token, queue: Queue, *, failed: bool = False
    ) -> None:
        """There is nobody else."""


async def test_a_shard_that_is_away_keeps_no_other_from_being_renewed() -> None:
    tokens = OneShardIsAway()
    working: list[Held] = []

    async def work(held: Held) -> None:
        working.append(held)
        await asyncio.Event().wait()

    crew = Crew(
        queue="ready",
        store=cast("Store", KeepsNothing()),
        tokens=cast("Tokens", tokens),
        work=work,
        patience=Patience(asyncio.sleep, patient=True),
        at_once=8,
        lease_s=0.2,
        alone=False,
        changed=lambda: None,
    )

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(crew.run())
        try:
            await until(lambda: len(working) == 2)
            await until(lambda: tokens.renewed >= 3, 5)
            await until(lambda: tokens.looked >= 3, 5)
        finally:
            await crew.stop(0)

    current = {held.token.shard.number: held.is_current() for held in working}
    assert current[1]


# Stopping and interrupting


class Cleaning:
    """An action that takes its time to clean up once it was stopped."""

    name = "clean"
    description = "cleans up"

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cleaning = asyncio.Event()
        self.clean = asyncio.Event()

    async def run(self, turn: Turn, arguments: str) -> ActionResult:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cleaning.set()
            await self.clean.wait()
        raise AssertionError("it was stopped")


async def test_a_stopped_action_that_cleans_up_keeps_nobody_waiting(
    bot: Bot,
) -> None:
    action = Cleaning()

    async with bot.manager(actions=[action]) as manager:
        await manager.accept(said("clean", kind="command"))
        await action.begun.wait()
        await manager.accept(said("", kind="cancel", id="1"))
        await action.cleaning.wait()
        await manager.accept(said("", kind="cancel", id="2"))
        await manager.accept(said("still there?"))
        await manager.idle()
        action.clean.set()

    assert bot.connector.replies() == [CONFIG.replies.cancelled, "still there?!"]


ANNA = an_address("group", user="anna")
BOB = an_address("group", user="bob")
INTERRUPTING = a_config(conversation={"during_turn": "interrupt"})


async def test_another_persons_message_does_not_interrupt_a_turn_in_a_group(
    bot: Bot,
) -> None:
    question = an_event("anna's", address=ANNA)
    gate = bot.answerer.gates["anna's"] = asyncio.Event()

    async with bot.manager(config=INTERRUPTING) as manager:
        await manager.accept(question)
        await bot.answerer.begun["anna's"].wait()
        await manager.accept(an_event("bob's", address=BOB))
        worker = manager._worker
        assert worker is not None
        await until(lambda: worker._stops.of(turn_id(question)))
        gate.set()
        await manager.idle()

    assert bot.connector.replies("group") == ["anna's!", "bob's!"]


async def test_another_persons_message_does_not_overtake_one_that_waits_in_a_group(
    bot: Bot,
) -> None:
    for event in (an_event("anna's", address=ANNA), an_event("bob's", address=BOB)):
        await bot.store.accept(event)

    async with bot.manager(config=INTERRUPTING) as manager:
        await manager.idle()

    assert bot.connector.replies("group") == ["anna's!", "bob's!"]


# Delivering


async def test_a_reply_is_not_dropped_however_often_its_platform_says_later(
    bot: Bot,
) -> None:
    bot.connector.failures.extend(
        DeliveryError("429", retryable=True, retry_after_s=1) for _ in range(40)
    )

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()

    assert len(bot.sleeps) == 40
    assert bot.connector.replies() == ["hello!"]


@pytest.mark.parametrize(
    ("age_s", "replies"), [(GIVE_UP_S - 60, ["hello!"]), (GIVE_UP_S + 1, [])]
)
async def test_a_reply_that_is_told_later_is_given_up_when_it_is_a_day_old(
    bot: Bot, client: redis.Redis, age_s: float, replies: list[str]
) -> None:
    await answered(bot, said("hello"))
    (entry,) = cast("list[str]", client.lrange(OUTBOX, 0, -1))
    committed = int(entry[16:29]) - round(1000 * age_s)
    client.lset(OUTBOX, 0, f"{entry[:16]}{committed:013}{entry[29:]}")
    bot.connector.failures.append(DeliveryError("429", retryable=True))

    async with bot.manager() as manager:
        await manager.idle()

    record = await bot.store.record(turn_id(said("hello")))
    assert record is not None
    assert bot.connector.replies() == replies
    assert [*record.problems] == (
        [] if replies else ["delivery: not delivered after attempt 1: 429"]
    )


class Reaches(MemoryConnector):
    """Reaches one chat only, as a terminal does."""

    def __init__(self, chat: str) -> None:
        super().__init__()
        self.asked = 0
        self._chat = chat

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self.asked += 1
        if address.chat != self._chat:
            raise DeliveryError(
                "not here", retryable=True, retry_after_s=0.02, elsewhere=True
            )
        return await super().send(address, reply, key)


async def test_a_reply_for_another_processs_connector_gets_there_within_a_few_tries(
    bot: Bot, server: EmbeddedRedis
) -> None:
    await answered(bot, said("hello", "b"))
    bot.connector = here = Reaches("a")
    roles: Mapping[str, Any] = {
        "roles": ["connectors"],
        "alone": False,
        "sleep": asyncio.sleep,
    }

    async with settings_of(server) as other, bot.manager(**roles):
        await until(lambda: here.asked)
        other.connector = there = Reaches("b")
        before = here.asked
        async with other.manager(**roles):
            reply = await there.next_reply("b")
            tries = here.asked - before

    assert reply.text == "hello!"
    assert tries <= 5


class Patchy(MemoryConnector):
    """Raises what no connector may, once."""

    asked = 0

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self.asked += 1
        if self.asked == 1:
            raise TimeoutError("a library's own")
        return await super().send(address, reply, key)


async def test_a_send_that_raises_something_unexpected_is_in_doubt_not_rejected(
    bot: Bot,
) -> None:
    bot.connector = connector = Patchy(delivery="at_least_once")

    async with bot.manager() as manager:
        await manager.accept(said("hello"))
        await manager.idle()

    assert connector.asked == 2
    assert connector.replies() == ["hello!"]


@dataclass
class Slowly(Told):
    """Hears of a reply until the lease on its outbox was renewed a few times."""

    lost: list[set[Token]] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        renew = Tokens.renew

        async def seen(tokens: Tokens, held: Iterable[Token]) -> Renewed:
            lost, gone = await renew(tokens, held)
            self.lost.append({one for one in lost | gone if one.stream == OUT})
            return lost, gone

        monkeypatch.setattr(Tokens, "renew", seen)

    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        await until(lambda: sum(map(bool, self.lost)) >= 2)
        await super().reply_sent(turn, reply)


async def test_a_hook_that_takes_long_to_hear_of_a_reply_costs_no_lease(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.told = told = Slowly()
    told.install(monkeypatch)
    before = metrics.reading("chorus_lease_losses_total", of="outbox")

    async with bot.manager(config=BRIEFLY) as manager:
        await manager.accept(said("hello"))
        await until(lambda: told.events)
        await manager.idle()

    assert told.events == [("sent", "hello", "hello!")]
    assert metrics.reading("chorus_lease_losses_total", of="outbox") == before
    assert bot.connector.statuses[-1] == (said("hello").address, "")


async def test_an_unreadable_record_does_not_send_its_reply_again(
    bot: Bot, client: redis.Redis
) -> None:
    await answered(bot, said("hello"))
    client.set(f"chorus:{{s0}}:record:{turn_id(said('hello'))}", '{"of": "another"}')
    bot.connector = connector = Gated(delivery="at_least_once")
    connector.gate.set()

    async with bot.manager(config=BRIEFLY) as manager:
        async with asyncio.timeout(5):
            await manager.idle()

    assert connector.asked == ["hello!"]


async def test_a_head_that_was_being_sent_is_doubtful_when_its_like_was_sent(
    store: Store, client: redis.Redis
) -> None:
    first, second = an_event("one"), an_event("two")
    await answer(store, first, "one!")
    await answer(store, second, "two!")
    token = await taken(store, "out")
    await store.open_outbox(token)
    (head, _) = cast("list[str]", client.lrange(OUTBOX, 0, -1))
    await store.mark(token, turn_id(first))
    await store.sent(token, turn_id(first))
    await store.mark(token, turn_id(second))
    # A replica that took over knows that the first was marked, and nothing since.
    client.lpush(OUTBOX, head)
    client.hset(STATE, "sending", turn_id(first))

    outgoing = await store.sent(token, turn_id(second))

    assert outgoing is not None
    assert outgoing.undelivered.turn_id == turn_id(first)
    assert outgoing.doubtful


async def test_one_failure_told_twice_counts_once(store: Store) -> None:
    await answer(store, an_event())
    token = await taken(store, "out")
    await store.open_outbox(token)

    await store.later(token, 1)
    await store.later(token, 1)  # the client sends it again

    outgoing = await store.open_outbox(token)
    assert outgoing is not None
    assert outgoing.tries == 1


async def test_a_platform_full_of_pausing_addresses_does_not_stop_another_one(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.conversation.manager.ADDRESSES_AT_ONCE", 2)
    down, up = MemoryConnector("down"), MemoryConnector("up", timeout_s=5)
    down.failures.extend(
        DeliveryError("503", retryable=True, retry_after_s=30) for _ in range(10)
    )
    pausing: list[float] = []

    async def sleep(seconds: float) -> None:
        pausing.append(seconds)
        await asyncio.Event().wait()

    connectors = {"down": down, "up": up}
    async with bot.manager(connectors=connectors, sleep=sleep) as manager:
        for number in range(3):
            address = an_address(f"c{number}", platform="down")
            await manager.accept(an_event(address=address))
        await until(lambda: len(pausing) == 2)
        await manager.accept(an_event("hello", address=an_address(platform="up")))
        reply = await up.next_reply()

    assert reply.text == "hello!"
    assert len(pausing) == 2


# Shutting down


async def test_a_delivery_that_pauses_is_not_woken_up_to_be_cut_off_at_shutdown(
    bot: Bot,
) -> None:
    patiently = a_config(workers={"shutdown_s": 3})
    await answered(bot, said("pausing", "a"), said("long", "b"))
    pausing = asyncio.Event()

    class Pauses(Gated):
        async def send(self, address: Address, reply: Reply, key: str) -> Sent:
            if address.chat == "a" and not pausing.is_set():
                raise DeliveryError("503", retryable=True, retry_after_s=1)
            return await super().send(address, reply, key)

    bot.connector = connector = Pauses()

    async def sleep(seconds: float) -> None:
        pausing.set()
        try:
            await asyncio.Event().wait()
        finally:
            connector.gate.set()  # the other one goes on when this one was let go

    async with bot.manager(config=patiently, sleep=sleep, roles=["connectors"]):
        await pausing.wait()
        await until(lambda: connector.asked)
    arrived = {chat: connector.replies(chat) for chat in "ab"}
    async with bot.manager() as manager:
        await manager.idle()

    assert arrived == {"a": [], "b": ["long!"]}
    assert connector.replies("a") == ["pausing!"]


async def test_one_more_cancellation_during_the_shutdown_does_not_hang(
    bot: Bot,
) -> None:
    bot.answerer.gates["long"] = asyncio.Event()
    leaving = asyncio.Event()

    async def run() -> None:
        patiently = a_config(workers={"shutdown_s": 60})
        async with bot.manager(config=patiently) as manager:
            await manager.accept(said("long"))
            await bot.answerer.begun["long"].wait()
            leaving.set()

    running = asyncio.create_task(run())
    await leaving.wait()
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=5)

    assert done == {running}
    assert running.cancelled()


async def test_shutting_down_takes_its_time_once_and_not_for_each_crew(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot.answerer.gates["long"] = asyncio.Event()
    bot.connector = connector = Gated()
    stop, graces = Crew.stop, list[float]()

    async def counted(crew: Crew, grace_s: float) -> None:
        graces.append(grace_s)
        await stop(crew, grace_s)

    monkeypatch.setattr(Crew, "stop", counted)

    async with bot.manager(config=a_config(workers={"shutdown_s": 0.3})) as manager:
        await manager.accept(said("quick", "a"))
        await manager.accept(said("long", "b"))
        await until(lambda: connector.asked)
        await bot.answerer.begun["long"].wait()

    workers_s, deliveries_s = graces
    assert workers_s == pytest.approx(0.3, abs=0.05)
    assert deliveries_s < 0.05


# Tokens and their streams


def expire(client: redis.Redis, stream: str) -> None:
    client.delete(stream)


def drop_tokens(client: redis.Redis, stream: str) -> None:
    for id_, _ in cast("list[tuple[str, object]]", client.xrange(stream)):
        client.xdel(stream, id_)


Losing = Callable[[redis.Redis, str], None]


@pytest.mark.parametrize("lose", [expire, drop_tokens])
async def test_a_lane_whose_token_is_gone_is_taken_up_with_the_next_message(
    store: Store, client: redis.Redis, lose: Losing
) -> None:
    await store.accept(an_event("one"))
    lose(client, READY)

    await store.accept(an_event("two"))
    async with asyncio.timeout(5):
        _, work = await begun(store)

    assert [one.event.text for one in work.messages] == ["one"]
    assert client.llen(LANE) == 2


@pytest.mark.parametrize("lose", [expire, drop_tokens])
async def test_an_outbox_whose_token_is_gone_is_delivered_with_the_next_reply(
    store: Store, client: redis.Redis, lose: Losing
) -> None:
    await answer(store, an_event("one"), "one!")
    lose(client, OUT)

    await answer(store, an_event("two"), "two!")
    async with asyncio.timeout(5):
        texts = await delivered(store)

    assert texts == ["one!", "two!"]


async def test_a_stream_lives_as_long_as_the_most_patient_process_wants(
    store: Store, server: EmbeddedRedis, client: redis.Redis
) -> None:
    async with settings_of(server, ttl_days=60) as longer:
        await longer.store.accept(an_event("long"))
    client.xgroup_destroy(READY, "chorus")

    await taken(store)  # makes the group again
    await store.accept(an_event("month", address=an_address("c2")))
    async with settings_of(server, ttl_days=1 / DAY_S) as shorter:
        await shorter.store.accept(an_event("second", address=an_address("c3")))

    assert client.ttl(READY) > 59 * DAY_S


async def test_a_stream_lives_as_long_as_the_last_message_behind_its_tokens(
    store: Store, client: redis.Redis
) -> None:
    await store.accept(an_event("one"))
    client.expire(READY, 100)

    await store.accept(an_event("two"))

    assert client.ttl(READY) > 29 * DAY_S


async def test_a_dead_ones_token_is_found_behind_many_that_are_held(
    store: Store, client: redis.Redis
) -> None:
    for number in range(13):
        await store.accept(an_event(address=an_address(f"c{number}")))
    living, dead, looking = (others(store, "ready") for _ in range(3))
    (shard,) = living.shards
    held = await living.take(shard, 12) or await living.take(shard, 12)
    (left,) = await dead.take(shard, 12)
    await until(lambda: idle_ms(client, READY)[left.id] >= 400)
    await living.renew(held)

    found = await looking.take_over(shard, 1, idle_ms=400)

    assert len(held) == 12
    assert [token.id for token in found] == [left.id]


async def test_no_more_turns_run_at_once_than_allowed_over_many_shards(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    async with settings_of(server, shards=16) as bot:
        gate = asyncio.Event()
        names = [f"chat {number}" for number in range(40)]
        bot.answerer.gates = dict.fromkeys(names, gate)
        for name in names:
            await bot.store.accept(said(name, name))

        config = a_config(workers=TWO)
        async with bot.manager(config=config) as manager:
            await until(lambda: bot.answerer.running == 2)
            for _ in range(50):  # whatever else was taken is begun, or handed back
                await bot.store.ping()
            gate.set()
            async with asyncio.timeout(10):
                await manager.idle()

    assert bot.answerer.most == 2
    assert len(bot.answerer.turns) == 40


async def test_an_owner_does_not_claim_what_a_sharer_of_the_former_server_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(App, "answerer", lambda app: Echo())
    folder, alone, claimed = tmp_path / "redis", list[bool](), list[int]()
    take_over = Tokens.take_over

    async def seen(tokens: Tokens, *args: Any) -> list[Token]:
        found = await take_over(tokens, *args)
        claimed.append(len(found))
        return found

    monkeypatch.setattr(Tokens, "take_over", seen)

    with EmbeddedRedis(folder) as owner:
        alone.append(owner.alone)
        sharer = EmbeddedRedis(folder).__enter__()
        async with Store(url=sharer.url, settings=CONFIG.conversation) as store:
            await store.accept(an_event())
            await begun(store)
    async with an_app(tmp_path).running({"memory": MemoryConnector()}):
        await until(lambda: len(claimed) >= 2)  # of lanes and of outboxes
    sharer.__exit__(None, None, None)
    with EmbeddedRedis(folder) as owner:
        alone.append(owner.alone)

    assert not any(claimed)
    assert alone == [True, True]


# Turns that fail, and what cannot be read


def fails(turn: Turn) -> Any:
    return a_record(turn, "Sorry", "failed")


async def test_merged_messages_that_fail_become_a_dead_letter_each(bot: Bot) -> None:
    config = a_config(
        conversation={"during_turn": "merge"}, workers={"attempts": 1, "shutdown_s": 0}
    )
    messages = [said(text) for text in ("my order", "is 4711", "where is it?")]
    bot.answerer.answer_with = fails
    for message in messages:
        await bot.store.accept(message)

    async with bot.manager(config=config) as manager:
        await manager.idle()
        letters = await overview.dead_letters(bot.store)
        bot.answerer.answer_with = Echo().answer_with
        for message in messages:
            await overview.retry(bot.store, turn_id(message))
            await until(lambda: not bot.answerer.running)
            await manager.idle()

    assert {one.id for one in letters} == {turn_id(message) for message in messages}
    assert [turn.question for turn in bot.answerer.turns] == [
        "my order\nis 4711\nwhere is it?",
        *(message.text for message in messages),
    ]
    assert await overview.dead_letters(bot.store) == []


async def test_a_command_whose_worker_died_is_not_run_again(bot: Bot) -> None:
    message = said("order 7", kind="command")
    await bot.store.accept(message)
    await begun(bot.store)  # by a worker that is not heard of again

    async with bot.manager() as manager:
        await manager.idle()

    (letter,) = await overview.dead_letters(bot.store)
    assert bot.connector.replies() == [CONFIG.replies.apology]
    assert not any(event[0] == "started" for event in bot.told.events)
    assert letter.id == turn_id(message)
    assert (await bot.store.load(message.address)).slots == {}


def spoil(client: redis.Redis, key: str, number: int) -> None:
    """Make an entry one of another version."""
    entry = cast("list[str]", client.lrange(key, number, number))[0]
    client.lset(key, number, f'{entry[:29]}{{"of": "another version"}}')


async def test_an_unreadable_message_is_set_aside_and_the_lane_goes_on(
    bot: Bot, client: redis.Redis
) -> None:
    for message in (said("one"), said("two")):
        await bot.store.accept(message)
    spoil(client, LANE, 0)

    async with bot.manager() as manager:
        async with asyncio.timeout(5):
            await manager.idle()

    (letter,) = await overview.dead_letters(bot.store)
    assert bot.connector.replies() == [CONFIG.replies.apology, "two!"]
    assert (letter.id, letter.attempts) == (turn_id(said("one")), 1)
    assert "another version" in letter.why


@pytest.mark.parametrize("spoilt", [0, 1])
async def test_an_unreadable_message_is_merged_with_no_other(
    bot: Bot, client: redis.Redis, spoilt: int
) -> None:
    for text in ("one", "two"):  # of nobody in particular, as an unreadable one is
        await bot.store.accept(an_event(text))
    spoil(client, LANE, spoilt)

    async with bot.manager(
        config=a_config(conversation={"during_turn": "merge"})
    ) as manager:
        await manager.idle()

    letters = await overview.dead_letters(bot.store)
    assert [one.id for one in letters] == [turn_id(an_event(("one", "two")[spoilt]))]
    assert {*bot.connector.replies()} == {
        CONFIG.replies.apology,
        ("two!", "one!")[spoilt],
    }


async def test_an_unreadable_message_overtakes_no_other(
    bot: Bot, client: redis.Redis
) -> None:
    for text in ("one", "two"):
        await bot.store.accept(an_event(text))
    spoil(client, LANE, 1)

    async with bot.manager(config=INTERRUPTING) as manager:
        await manager.idle()

    assert bot.connector.replies() == ["one!", CONFIG.replies.apology]


async def test_unreadable_history_and_slots_are_left_out(
    bot: Bot, client: redis.Redis
) -> None:
    await answered(bot, said("one"), said("order 7", kind="command"))
    client.rpush("chorus:{s0}:c:memory:a1:c1:log", '{"of": "another version"}')
    client.hset("chorus:{s0}:c:memory:a1:c1:slots", "other", "{of another version")

    async with bot.manager() as manager:
        await manager.accept(said("two"))
        async with asyncio.timeout(5):
            await manager.idle()

    turn = bot.answerer.turns[-1]
    assert bot.connector.replies()[-1] == "two!"
    assert turn.slots == {"order": "7"}
    assert [event.kind for event in turn.history] == ["slot", "slot", "reply"]


class Unwritable:
    """An action whose reply is not what a reply is."""

    name = "confide"
    description = "returns what cannot be written"

    async def run(self, turn: Turn, arguments: str) -> ActionResult:
        text: Any = ["Dear Ann, your card 4711"]
        return ActionResult(reply=Reply(text=text))


async def test_what_cannot_be_written_is_said_without_its_text(
    bot: Bot, caplog: pytest.LogCaptureFixture
) -> None:
    message = said("confide", kind="command")

    async with bot.manager(actions=[Unwritable()]) as manager:
        await manager.accept(message)
        await manager.idle()

    (letter,) = await overview.dead_letters(bot.store)
    assert "cannot be written as JSON" in letter.why
    assert "cannot be kept" in caplog.text
    assert "4711" not in letter.why + caplog.text + str(bot.told.events)


# Feedback, rates and what is turned away


async def test_feedback_whose_turn_cannot_be_looked_up_is_taken_when_it_comes_again(
    bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = said("bad", kind="feedback", data={"rating": -1})

    async def away(address: Address) -> None:
        raise StoreError("redis.url: away for a moment")

    async with bot.manager() as manager:
        with monkeypatch.context() as patched:
            patched.setattr(bot.store, "last_record", away)
            with pytest.raises(StoreError):
                await manager.accept(feedback)
        again = await manager.accept(feedback)

    assert again == "accepted"
    assert bot.told.events == [("feedback", "bad", None)]


async def test_feedback_counts_as_a_message_does(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    async with (
        settings_of(server, messages_per_minute=2) as bot,
        bot.manager() as manager,
    ):
        answers = [
            await manager.accept(
                said("good", kind="feedback", id=f"{number}", data={"rating": 1})
            )
            for number in range(3)
        ]
        answers.append(await manager.accept(said("hello")))

    assert answers == ["accepted", "accepted", "refused", "refused"]
    assert [event[0] for event in bot.told.events] == ["feedback", "feedback"]


async def test_what_is_turned_away_is_answered_no_more_often_than_messages_are(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    async with (
        settings_of(server, messages_per_minute=3) as bot,
        bot.manager() as manager,
    ):
        answers = {
            await manager.accept(said("", id=str(number))) for number in range(20)
        }
        await manager.idle()

    assert answers == {"refused"}
    assert bot.connector.replies() == [CONFIG.replies.empty] * 3


# Forgetting and expiring


async def test_what_waited_in_an_expired_conversation_is_in_no_backlog(
    store: Store, client: redis.Redis
) -> None:
    await answer(store, an_event("one"))
    await store.accept(an_event("two"))
    client.delete(LANE, OUTBOX, STATE)

    backlogs = await overview.backlogs(store)

    assert backlogs == ([], 0)
    for named in ("waiting", "owed"):
        assert client.zcard(f"chorus:{{s0}}:{named}") == 0


@pytest.mark.parametrize("turns", [1, 2])
async def test_who_spoke_is_found_as_long_as_there_are_records_to_forget(
    server: EmbeddedRedis, client: redis.Redis, turns: int
) -> None:
    messages = [said(f"secret {number}") for number in range(turns)]
    async with settings_of(server, ttl_days=1, record_ttl_days=7) as bot:
        for message in messages:
            await answer(bot.store, message)
        for key in cast("list[str]", client.keys("*")):
            if 0 < client.ttl(key) <= DAY_S:
                client.delete(key)  # a day later

        forgotten = await bot.store.forget("u1")

        assert forgotten == Forgotten(conversations=1, records=turns)
        assert await bot.store.record(turn_id(messages[0])) is None


async def test_those_who_spoke_are_renewed_once_an_hour_and_not_with_each_turn(
    store: Store, client: redis.Redis
) -> None:
    someone = "chorus:{s0}:person:someone"
    client.sadd(someone, "memory:a1:c1")
    client.sadd("chorus:{s0}:c:memory:a1:c1:people", someone)
    left_s = []

    for text in ("first", "second", "an hour later"):
        client.expire(someone, 100)
        if text == "an hour later":
            at = int(cast("str", client.hget(STATE, "people_at")))
            client.hset(STATE, "people_at", at - 3_600_001)
        await answer(store, an_event(text))
        left_s.append(client.ttl(someone) > 100)

    assert left_s == [True, False, True]


async def rewrites(client: redis.Redis) -> int:
    found: Any = client.info("commandstats")
    calls: int = found.get("cmdstat_bgrewriteaof", {}).get("calls", 0)
    return calls


async def test_those_who_ask_to_be_forgotten_together_share_a_rewrite(
    store: Store, client: redis.Redis
) -> None:
    addresses = [an_address(f"c{number}") for number in range(20)]
    for address in addresses:
        await answer(store, an_event(address=address))
    before = await rewrites(client)

    erased = await asyncio.gather(*map(store.forget_conversation, addresses))

    assert [one.events for one in erased] == [2] * 20
    assert 1 <= await rewrites(client) - before <= 3


# `chorus ask` and `chorus chat`


@dataclass
class AskedApp:
    """An app with a manager of its own, as `chorus ask` opens it."""

    bot: Bot

    @asynccontextmanager
    async def running(
        self, connectors: Mapping[str, Any], **more: Any
    ) -> AsyncIterator[ConversationManager]:
        async with self.bot.manager(connectors=connectors) as manager:
            yield manager

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        yield self.bot.store


def opened(bot: Bot) -> Opened:
    return Opened(app=cast("App", AskedApp(bot)), progress=StepProgress())


def work_of(client: redis.Redis, platform: str) -> list[str]:
    """Return the keys that make somebody do, or look for, something."""
    kinds = ("lane", "outbox", "meta", f"ready:{platform}", f"out:{platform}")
    keys = cast("list[str]", client.keys(f"*{platform}*"))
    return [key for key in keys if key.endswith(kinds)]


async def test_a_question_that_failed_leaves_nothing_to_do(
    bot: Bot, client: redis.Redis
) -> None:
    bot.answerer.answer_with = fails
    asking = OneQuestion("hello")
    asking.ask_as("u1")

    reply, record = await _asked(opened(bot), asking, None)

    assert reply.text == "Sorry"
    assert record is not None
    assert record.outcome == "failed"
    assert await overview.dead_letters(bot.store) == []
    assert await overview.backlogs(bot.store) == ([], 0)
    assert work_of(client, asking.name) == []


async def test_a_question_that_was_interrupted_leaves_nothing_to_do(
    bot: Bot, client: redis.Redis
) -> None:
    bot.answerer.gates["hello"] = asyncio.Event()
    asking = OneQuestion("hello")
    asking.ask_as("u1")

    running = asyncio.create_task(_asked(opened(bot), asking, None))
    await bot.answerer.begun["hello"].wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

    assert running.cancelled()
    assert await overview.backlogs(bot.store) == ([], 0)
    assert work_of(client, asking.name) == []


class Window:
    """A terminal at which lines are typed; `interrupt` is Ctrl-C."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.shown: list[str] = []
        self.interrupt: Callable[[], None] = lambda: None
        self._lines = lines

    async def lines(self) -> AsyncIterator[str]:
        for line in self._lines:
            yield line

    def working(self, text: str) -> None:
        """Nobody looks."""

    async def show(self, reply: Reply) -> None:
        self.shown.append(reply.text)

    @contextmanager
    def interrupts(self, interrupted: Callable[[], None]) -> Iterator[None]:
        self.interrupt = interrupted
        yield


async def test_a_stop_that_could_not_be_taken_leaves_the_answer_to_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    window = Window(["hello"])
    monkeypatch.setattr("connectors.terminal._Pipe", lambda echo: window)
    terminal = Terminal(Terminal.Settings(user="ada"), typed=False)
    stops: list[str] = []

    async def accept(event: Event) -> Accepted:
        if event.kind == "cancel":
            stops.append(event.id)
            raise StoreError("redis.url: away for a moment")
        window.interrupt()
        return "accepted"

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(terminal.run(accept))
        await until(lambda: stops)
        address = an_address("ada", platform="terminal", account="local")
        await terminal.send(address, Reply(text="Hello!"), "k")

    assert "Hello!" in window.shown
    assert not any("say it again" in shown for shown in window.shown)


async def test_a_line_that_could_not_be_taken_does_not_end_the_conversation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    window = Window(["hello", "hello again"])
    monkeypatch.setattr("connectors.terminal._Pipe", lambda echo: window)
    terminal = Terminal(Terminal.Settings(user="ada"), typed=False)
    replies = defaultdict[str, str](lambda: "?", {"hello again": "Hello!"})

    async def accept(event: Event) -> Accepted:
        if event.text not in replies:
            raise StoreError("redis.url: away for a moment")
        await terminal.send(event.address, Reply(text=replies[event.text]), event.id)
        return "accepted"

    await terminal.run(accept)

    assert window.shown == [
        "(not taken: redis.url: away for a moment; please say it again)",
        "Hello!",
    ]


async def test_a_command_that_a_shutdown_cut_off_is_not_run_again(bot: Bot) -> None:
    async with bot.manager() as manager:  # without any grace
        await manager.accept(said("order hang", kind="command"))
        await bot.action.begun.wait()
    bot.action.begun.clear()

    async with bot.manager() as manager:
        await manager.idle()

    assert not bot.action.begun.is_set()
    assert bot.connector.replies() == [CONFIG.replies.apology]
    assert len(await overview.dead_letters(bot.store)) == 1
