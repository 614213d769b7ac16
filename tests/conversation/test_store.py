from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from bot.config import ConversationConfig
from bot.conversation import overview
from bot.conversation.keys import Queue
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import Begun, Forgotten, Waiting, turn_id
from bot.conversation.store import Store
from bot.conversation.tokens import Token, Tokens
from bot.errors import StoreError
from bot.interfaces import Accepted
from bot.model import Event, Record, Reply
from bot.testing.makers import a_turn, an_address, an_event

pytestmark = pytest.mark.services

MONTH_S = 30 * 86_400

SECRET = "Wolpertinger"  # noqa: S105 (what people wrote)


def a_record(message: Event, text: str = "five days") -> Record:
    return Record(
        turn=a_turn(id=turn_id(message), message=message),
        outcome="answered",
        reply=Reply(text=text),
        why="best",
        config="c",
    )


async def taken(store: Store, queue: Queue = "ready") -> Token:
    """Take the next token, as a worker (or a connector's process) does."""
    tokens = Tokens(store.connection, store.shards, queue, ["memory", "other"])
    while True:
        for shard in tokens.shards:
            if found := await tokens.take(shard, 1):
                return found[0]


async def begun(store: Store) -> tuple[Token, Begun]:
    token = await taken(store)
    work = await store.begin(token)
    assert work is not None
    return token, work


async def answer(store: Store, message: Event, text: str = "five days") -> Waiting:
    """Accept a message and commit a turn with one reply for it."""
    await store.accept(message)
    token, work = await begun(store)
    reply = an_event(text, "reply", id=f"{message.id}:reply", address=message.address)
    committed = await store.commit(
        token,
        work.messages,
        events=[message, reply],
        record=a_record(message, text),
        reply=Reply(text=text),
    )
    assert committed == "committed"
    return work.messages[0]


async def delivered(store: Store) -> list[str]:
    """Take everything out of the next outbox."""
    token = await taken(store, "out")
    texts = []
    outgoing = await store.open_outbox(token)
    while outgoing is not None:
        texts.append(outgoing.undelivered.reply.text)
        outgoing = await store.sent(token, outgoing.undelivered.turn_id)
    return texts


async def test_an_event_is_accepted_once(store: Store) -> None:
    event = an_event()

    answers = [await store.accept(event) for _ in range(3)]
    _, work = await begun(store)

    assert answers == ["accepted", "duplicate", "duplicate"]
    assert work.messages == [Waiting(turn_id=turn_id(event), event=event)]


async def test_a_command_sent_again_because_its_answer_was_lost_is_no_duplicate(
    store: Store, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = an_event()
    monkeypatch.setattr("bot.conversation.store._claim", lambda: "the same command")

    answers = [await store.accept(event) for _ in range(2)]

    assert answers == ["accepted", "accepted"]
    assert client.llen("chorus:{s0}:c:memory:a1:c1:lane") == 1


async def test_a_full_lane_refuses_and_does_not_claim(
    server: EmbeddedRedis, store: Store
) -> None:
    settings = ConversationConfig(lane_limit=1)
    async with Store(url=server.url, settings=settings) as narrow:
        await narrow.accept(an_event("first"))
        refused: Accepted = await narrow.accept(an_event("second"))
    later: Accepted = await store.accept(an_event("second"))

    assert (refused, later) == ("refused", "accepted")


async def test_a_commit_keeps_everything_and_takes_the_message_off(
    store: Store,
) -> None:
    message = an_event("How long?")
    await store.accept(message)
    token, work = await begun(store)

    committed = await store.commit(
        token,
        work.messages,
        events=[message],
        slots={"order": {"id": 7}, "name": "Ada"},
        record=a_record(message),
        reply=Reply(text="five days"),
    )
    state = await store.load(message.address)

    assert committed == "committed"
    assert state.history == [message]
    assert state.slots == {"order": {"id": 7}, "name": "Ada"}
    assert await delivered(store) == ["five days"]
    assert await overview.backlogs(store) == ([], 0)
    assert await store.last_record(message.address) == await store.record(
        turn_id(message)
    )


async def test_a_commit_sent_again_changes_nothing(
    store: Store, client: redis.Redis
) -> None:
    message = an_event()
    await store.accept(message)
    token, work = await begun(store)
    await store.commit(token, work.messages, events=[message], slots={"a": 1})
    before = {key: client.dump(key) for key in client.keys("*")}

    again = await store.commit(token, work.messages, events=[message], slots={"a": 2})

    assert again == "already"
    assert {key: client.dump(key) for key in client.keys("*")} == before


async def test_a_lane_that_another_one_has_begun_on_is_committed_by_that_one_only(
    store: Store,
) -> None:
    message = an_event()
    await store.accept(message)
    slow, work = await begun(store)
    others = Tokens(store.connection, store.shards, "ready", ["memory"])
    (quick,) = await others.take_over(others.shards[0], 1, idle_ms=0)

    before = await store.commit(slow, work.messages, slots={"by": "the slow one"})

    assert before == "committed"  # the other one had not begun yet
    await store.accept(an_event("second"))
    slow, work = await begun(store)
    (quick,) = await others.take_over(others.shards[0], 1, idle_ms=0)
    taken_up = await store.begin(quick)
    refused = await store.commit(slow, work.messages, slots={"by": "the slow one"})
    assert taken_up is not None
    kept = await store.commit(quick, taken_up.messages, slots={"by": "the quick one"})
    assert (taken_up.attempt, refused, kept) == (2, "lost", "committed")
    assert (await store.load(message.address)).slots == {"by": "the quick one"}
    assert await store.begin(slow) is None


async def test_what_is_held_stays_held_while_it_is_renewed(store: Store) -> None:
    await store.accept(an_event())
    mine = Tokens(store.connection, store.shards, "ready", ["memory"])
    others = Tokens(store.connection, store.shards, "ready", ["memory"])
    (shard,) = mine.shards
    (token,) = await mine.take(shard, 1) or await mine.take(shard, 1)
    await asyncio.sleep(0.05)

    kept, _ = await mine.renew([token])
    early = await others.take_over(shard, 1, idle_ms=40)
    await asyncio.sleep(0.05)
    late = await others.take_over(shard, 1, idle_ms=40)
    lost, _ = await mine.renew([token])

    assert (kept, early) == (set(), [])
    assert [one.id for one in late] == [token.id]
    assert lost == {token}


async def test_what_was_handed_back_is_there_at_once_and_was_no_attempt(
    store: Store,
) -> None:
    await store.accept(an_event())
    token, _ = await begun(store)

    await store.hand_back(token, "ready")
    again, second = await begun(store)
    await store.hand_back(again, "ready", failed=True)
    _, third = await begun(store)

    assert await store.begin(token) is None
    assert (second.attempt, third.attempt) == (1, 2)


async def test_an_orphan_counts_when_it_is_tried_and_not_when_it_is_handed_back(
    store: Store,
) -> None:
    await store.accept(an_event())
    others = Tokens(store.connection, store.shards, "ready", ["memory"])
    (shard,) = others.shards
    await begun(store)  # and dies

    (waiting,) = await others.take_over(shard, 1, idle_ms=0)
    orphan = await store.begin(waiting)
    await store.hand_back(waiting, "ready")  # before its turn had come
    handed, again = await begun(store)
    (tried,) = await others.take_over(shard, 1, idle_ms=0)
    second = await store.begin(tried)
    await store.count_attempt(tried)
    await store.count_attempt(tried)  # as when its answer was lost
    await store.count_attempt(handed)  # whose lease is gone
    (last,) = await others.take_over(shard, 1, idle_ms=0)
    third = await store.begin(last)

    found = [orphan, again, second, third]
    assert [one and one.attempt for one in found] == [2, 2, 3, 4]
    assert [one and one.orphaned for one in found] == [True, False, True, True]


async def test_a_reply_whose_sender_died_is_doubtful(store: Store) -> None:
    await answer(store, an_event())
    others = Tokens(store.connection, store.shards, "out", ["memory"])
    shard = others.shards[0]
    turn = turn_id(an_event())

    token = await taken(store, "out")
    unsent = await store.open_outbox(token)
    (token,) = await others.take_over(shard, 1, idle_ms=0)
    still_unsent = await store.open_outbox(token)
    marked = await store.mark(token, turn)
    (token,) = await others.take_over(shard, 1, idle_ms=0)
    doubtful = await store.open_outbox(token)
    await store.later(token, 1)
    (token,) = await others.take_over(shard, 1, idle_ms=0)
    to_be_sent_again = await store.open_outbox(token)

    found = (unsent, still_unsent, doubtful, to_be_sent_again)
    assert marked
    assert [one and one.doubtful for one in found] == [False, False, True, False]
    assert [one and one.tries for one in found] == [0, 0, 0, 1]


async def test_an_outbox_that_another_one_has_opened_is_not_marked(
    store: Store,
) -> None:
    await answer(store, an_event())
    slow = await taken(store, "out")
    await store.open_outbox(slow)
    others = Tokens(store.connection, store.shards, "out", ["memory"])
    (quick,) = await others.take_over(others.shards[0], 1, idle_ms=0)
    await store.open_outbox(quick)

    assert not await store.mark(slow, turn_id(an_event()))
    assert await store.open_outbox(slow) is None


async def test_a_group_that_is_gone_is_made_again_and_nothing_is_lost(
    store: Store, client: redis.Redis
) -> None:
    await store.accept(an_event("one"))
    client.xgroup_destroy("chorus:{s0}:ready:memory", "chorus")

    _, work = await begun(store)

    assert work.messages[0].event.text == "one"


async def test_another_number_of_shards_is_refused(
    store: Store, server: EmbeddedRedis
) -> None:
    with pytest.raises(StoreError, match="4, but the conversations") as told:
        async with Store(url=server.url, settings=ConversationConfig(), shards=4):
            pass

    assert "write 1" in str(told.value)


async def test_null_clears_a_slot(store: Store) -> None:
    first, second = an_event("one"), an_event("two")
    for message, slots in ((first, {"a": 1, "b": 2}), (second, {"a": None})):
        await store.accept(message)
        token, work = await begun(store)
        await store.commit(token, work.messages, slots=slots)

    state = await store.load(first.address)

    assert state.slots == {"b": 2}


async def test_a_turn_whose_conversation_was_erased_commits_nothing(
    store: Store, client: redis.Redis
) -> None:
    message = an_event(address=an_address(user="u1"))
    await store.accept(message)
    token, work = await begun(store)
    await store.forget("u1")

    committed = await store.commit(
        token,
        work.messages,
        events=[message],
        record=a_record(message),
        reply=Reply(text="x"),
    )

    assert committed == "gone"
    assert left(client) == []


def left(client: redis.Redis) -> list[str]:
    """Return the keys that say something about a conversation or a person."""
    known = ("chorus:meta", ":memory", ":other", ":stops")
    return [
        str(key)
        for key in client.keys("*")
        if not str(key).endswith(known) and ":seen:" not in str(key)
    ]


async def test_delivered_replies_leave_the_outbox_in_order(store: Store) -> None:
    for number in range(3):
        await answer(store, an_event(str(number)), f"reply {number}")

    texts = await delivered(store)

    assert texts == ["reply 0", "reply 1", "reply 2"]
    assert await overview.backlogs(store) == ([], 0)


async def test_the_log_keeps_the_last_events_and_a_turn_reads_fewer(
    store: Store, client: redis.Redis
) -> None:
    messages = [an_event(f"question {number}") for number in range(12)]
    for message in messages:
        await answer(store, message)

    state = await store.load(messages[0].address)

    assert client.llen("chorus:{s0}:c:memory:a1:c1:log") == 10
    assert [event.text for event in state.history] == [
        "question 10",
        "five days",
        "question 11",
        "five days",
    ]
    # Records that nothing points at any more are gone with their pointers.
    assert await store.record(turn_id(messages[1])) is None
    assert await store.record(turn_id(messages[2])) is not None


async def test_everything_expires(store: Store, client: redis.Redis) -> None:
    await answer(store, an_event(address=an_address(user="u1")))
    await store.accept(an_event("next"))

    ttls = {str(key): client.ttl(key) for key in client.keys("*")}

    assert ttls.pop("chorus:meta") == -1
    for stream in ("ready", "out"):
        assert ttls.pop(f"chorus:{{s0}}:{stream}:memory") > 29 * 86_400
    for zset in ("waiting", "owed", "active"):  # they lose their members instead
        assert ttls.pop(f"chorus:{{s0}}:{zset}") == -1
    assert {name.rpartition(":")[2]: ttl for name, ttl in ttls.items()}["lane"] > 0
    assert not {name: ttl for name, ttl in ttls.items() if not 0 < ttl <= MONTH_S}
    seen = [ttl for name, ttl in ttls.items() if ":seen:" in name]
    assert max(seen) <= 86_400
    (record,) = (ttl for name, ttl in ttls.items() if ":record:" in name)
    assert 6 * 86_400 < record <= 7 * 86_400


async def test_the_cost_of_a_turn_does_not_grow_with_the_history(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    settings = ConversationConfig(
        window_events=12, max_events=5000, messages_per_minute=10_000
    )
    costs = []
    async with Store(url=server.url, settings=settings) as store:
        for number in range(1, 1001):
            await answer(store, an_event(f"question {number:04}"))
            await delivered(store)
            if number in (10, 1000):
                before = _traffic(client)
                await store.load(an_address())
                costs.append(
                    [b - a for a, b in zip(before, _traffic(client), strict=True)]
                )

    assert client.llen("chorus:{s0}:c:memory:a1:c1:log") == 2000
    at_10, at_1000 = costs
    assert at_1000[0] == at_10[0]
    assert at_1000[1] == pytest.approx(at_10[1], rel=0.02)


def _traffic(client: redis.Redis) -> Sequence[int]:
    """Return the commands and the bytes the server has answered, this look aside."""
    found = client.info("stats")
    assert isinstance(found, dict)
    return found["total_commands_processed"], found["total_net_output_bytes"]


async def test_forgetting_leaves_nothing_of_a_person_not_even_in_the_file(
    store: Store, server: EmbeddedRedis, client: redis.Redis
) -> None:
    theirs = an_event(SECRET, address=an_address("private", user=f"{SECRET}-id"))
    shared = an_event(f"{SECRET} too", address=an_address("c9", user=f"{SECRET}-id"))
    others = an_event("mine", address=an_address("other", user="u2"))
    for message in (theirs, shared, others):
        await answer(store, message, f"about {message.text}")
    await store.accept(an_event(f"{SECRET}?", address=theirs.address))
    assert SECRET.encode() in _written(server.folder)

    forgotten = await store.forget(f"{SECRET}-id")

    assert forgotten == Forgotten(
        conversations=2, events=4, slots=0, records=2, messages=1, replies=2
    )
    assert SECRET.encode() not in _written(server.folder)
    assert b"about mine" in _written(server.folder)
    assert (await store.load(others.address)).history
    assert not [key for key in client.keys("*") if "private" in str(key)]


def _written(folder: Path) -> bytes:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return b"".join(file.read_bytes() for file in files)


@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
async def test_forgetting_says_so_when_the_file_could_not_be_written_anew(
    tmp_path: Path,
) -> None:
    with (
        EmbeddedRedis(tmp_path) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        # Short in the old file, long in the new one, which may not grow so long.
        client.config_set("rdbcompression", "no")
        client.setrange("long", 1_000_000, "x")
        pid = client.info("server")["process_id"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (500_000, 500_000))
        settings = ConversationConfig()
        async with Store(url=server.url, settings=settings, embedded=True) as store:
            await answer(store, an_event(address=an_address(user="u1")))
            with pytest.raises(StoreError, match="rewriting failed"):
                await store.forget("u1")


async def test_a_person_is_forgotten_on_the_platform_that_was_named(
    store: Store,
) -> None:
    here = an_event(address=an_address(user="42"))
    there = an_event(address=an_address(user="42", platform="other"))
    for message in (here, there):
        await answer(store, message)

    forgotten = await store.forget("42", platform="other")

    assert forgotten.conversations == 1
    assert (await store.load(here.address)).history


async def test_forgetting_nobody_counts_nothing(store: Store) -> None:
    assert await store.forget("nobody \n{}") == Forgotten()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (an_address("a", thread="b"), an_address("a:b")),
        (an_address("a\n"), an_address("a")),
        (an_address("{x}:lane"), an_address("{x}")),
        (an_address("x" * 10_000), an_address("x" * 10_001)),
        (an_address("%7B"), an_address("{")),
    ],
)
async def test_hostile_addresses_never_share_a_conversation(
    store: Store, one: object, other: object
) -> None:
    first, second = (
        an_event("first", address=one),
        an_event("second", address=other),
    )
    await answer(store, first)
    await answer(store, second)

    histories = [
        [event.text for event in (await store.load(message.address)).history]
        for message in (first, second)
    ]

    assert histories == [["first", "five days"], ["second", "five days"]]


async def test_an_unknown_turn_has_no_record(store: Store) -> None:
    assert await store.record("no such \ud800 turn") is None
    assert await store.last_record(an_address()) is None
