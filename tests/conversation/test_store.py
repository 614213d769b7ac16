from __future__ import annotations

import inspect
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis
from redis import exceptions

from bot.config import ConversationConfig
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import Forgotten, Waiting, turn_id
from bot.conversation.store import REDIS_ERRORS, Store, translated, without_password
from bot.errors import StoreError
from bot.interfaces import Accepted
from bot.model import Event, Record, Reply
from bot.testing.makers import a_turn, an_address, an_event

pytestmark = pytest.mark.services

SECRET = "Wolpertinger"  # noqa: S105 (what people wrote)


def a_record(message: Event, text: str = "five days") -> Record:
    return Record(
        turn=a_turn(id=turn_id(message), message=message),
        outcome="answered",
        reply=Reply(text=text),
        why="best",
        config="c",
    )


async def answer(store: Store, message: Event, text: str = "five days") -> Waiting:
    """Accept a message and commit a turn with one reply for it."""
    await store.accept(message, 100)
    waiting = Waiting(turn_id=turn_id(message), event=message)
    reply = an_event(text, "reply", id=f"{message.id}:reply", address=message.address)
    await store.commit(
        waiting,
        events=[message, reply],
        record=a_record(message, text),
        reply=Reply(text=text),
    )
    return waiting


async def test_an_event_is_accepted_once(store: Store) -> None:
    event = an_event()

    answers = [await store.accept(event, 100) for _ in range(3)]
    work = await store.next_work(event.address.key)

    assert answers == ["accepted", "duplicate", "duplicate"]
    assert work.waiting == Waiting(turn_id=turn_id(event), event=event)


async def test_a_command_sent_again_because_its_answer_was_lost_is_no_duplicate(
    store: Store, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = an_event()
    monkeypatch.setattr("bot.conversation.store._token", lambda: "the same command")

    answers = [await store.accept(event, 100) for _ in range(2)]

    assert answers == ["accepted", "accepted"]
    assert client.llen("chorus:{s0}:c:memory:a1:c1:lane") == 1


async def test_a_full_lane_refuses_and_does_not_claim(store: Store) -> None:
    await store.accept(an_event("first"), 1)

    refused: Accepted = await store.accept(an_event("second"), 1)
    later: Accepted = await store.accept(an_event("second"), 2)

    assert (refused, later) == ("refused", "accepted")


async def test_a_commit_keeps_everything_and_takes_the_message_off(
    store: Store,
) -> None:
    message = an_event("How long?")
    await store.accept(message, 100)

    committed = await store.commit(
        Waiting(turn_id=turn_id(message), event=message),
        events=[message],
        slots={"order": {"id": 7}, "name": "Ada"},
        record=a_record(message),
        reply=Reply(text="five days"),
    )
    state = await store.load(message.address)
    work = await store.next_work(message.address.key)

    assert committed == "committed"
    assert state.history == [message]
    assert state.slots == {"order": {"id": 7}, "name": "Ada"}
    assert work.waiting is None
    assert [one.reply.text for one in work.undelivered] == ["five days"]
    assert await store.last_record(message.address) == await store.record(
        turn_id(message)
    )


async def test_a_commit_sent_again_changes_nothing(
    store: Store, client: redis.Redis
) -> None:
    waiting = await answer(store, an_event())
    before = {key: client.dump(key) for key in client.keys("*:c:*")}

    again = await store.commit(waiting, events=[waiting.event], slots={"a": 1})

    assert again == "already"
    assert {key: client.dump(key) for key in client.keys("*:c:*")} == before


async def test_null_clears_a_slot(store: Store) -> None:
    first, second = an_event("one"), an_event("two")
    for message, slots in ((first, {"a": 1, "b": 2}), (second, {"a": None})):
        await store.accept(message, 100)
        waiting = Waiting(turn_id=turn_id(message), event=message)
        await store.commit(waiting, slots=slots)

    state = await store.load(first.address)

    assert state.slots == {"b": 2}


async def test_a_turn_whose_conversation_was_erased_commits_nothing(
    store: Store, client: redis.Redis
) -> None:
    message = an_event(address=an_address(user="u1"))
    await store.accept(message, 100)
    await store.forget("u1")

    committed = await store.commit(
        Waiting(turn_id=turn_id(message), event=message),
        events=[message],
        record=a_record(message),
        reply=Reply(text="x"),
    )

    assert committed == "gone"
    assert [key for key in client.keys("*") if ":seen:" not in str(key)] == []


async def test_a_delivered_reply_leaves_the_outbox_and_the_list_of_work(
    store: Store,
) -> None:
    message = an_event()
    await answer(store, message)
    assert await store.pending() == [message.address.key]
    (sent,) = (await store.next_work(message.address.key)).undelivered

    await store.delivered(sent)
    await store.delivered(sent)
    work = await store.next_work(message.address.key)

    assert not work.undelivered
    assert await store.pending() == []


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


async def test_everything_expires_but_the_list_of_work(
    store: Store, client: redis.Redis
) -> None:
    await answer(store, an_event(address=an_address(user="u1")))
    await store.accept(an_event("next"), 100)

    ttls = {str(key): client.ttl(key) for key in client.keys("*")}

    assert ttls.pop("chorus:{s0}:busy") == -1
    assert {name.rpartition(":")[2]: ttl for name, ttl in ttls.items()}["lane"] > 0
    assert all(0 < ttl <= 30 * 86_400 for ttl in ttls.values())
    seen = [ttl for name, ttl in ttls.items() if ":seen:" in name]
    assert max(seen) <= 86_400
    (record,) = (ttl for name, ttl in ttls.items() if ":record:" in name)
    assert 6 * 86_400 < record <= 7 * 86_400


async def test_the_cost_of_a_turn_does_not_grow_with_the_history(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    settings = ConversationConfig(window_events=12, max_events=5000)
    costs = []
    async with Store(url=server.url, settings=settings) as store:
        for number in range(1, 1001):
            await answer(store, an_event(f"question {number:04}"))
            (sent,) = (await store.next_work(an_address().key)).undelivered
            await store.delivered(sent)
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
    await store.accept(an_event(f"{SECRET}?", address=theirs.address), 100)
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


def test_every_exception_of_the_client_is_translated() -> None:
    raised = [
        kind
        for _, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == exceptions.__name__
    ]

    untranslated = [kind for kind in raised if not issubclass(kind, REDIS_ERRORS)]

    assert len(raised) > 25
    assert untranslated == []
    for kind in REDIS_ERRORS:
        assert "see its log" in str(translated(kind("broken"), "redis://r"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hush@r:7/0", "redis://r:7/0"),
        ("rediss://ada:hush@r", "rediss://r"),
        ("redis://r?password=hush", "redis://r"),
        ("redis://ada:hush@r:seven", "redis://…"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:hush@127.0.0.1:1/0", "127.0.0.1:1/0': cannot be reached"),
        ("http://hush@r", "not a Redis URL"),
        ("unix:///nowhere/redis.sock", "cannot be reached"),
    ],
)
async def test_a_redis_that_is_not_there_is_one_sentence(url: str, told: str) -> None:
    with pytest.raises(StoreError, match=told) as raised:
        async with Store(url=url, settings=ConversationConfig()):
            pass

    assert "\n" not in str(raised.value)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("login", "told"),
    [("", "wants a password"), (":wrong@", "refused the user or password")],
)
async def test_a_wrong_password_is_one_sentence(
    server: EmbeddedRedis, client: redis.Redis, login: str, told: str
) -> None:
    client.config_set("requirepass", "right")
    try:
        with pytest.raises(StoreError, match=told) as raised:
            async with Store(
                url=server.url.replace("unix://", f"unix://{login}"),
                settings=ConversationConfig(),
            ):
                pass
    finally:
        client.auth("right")
        client.config_set("requirepass", "")

    assert "wrong" not in str(raised.value)
