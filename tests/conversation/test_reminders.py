"""What the bot brings up by itself: set with a turn, answered as one when it is due."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from pydantic import JsonValue
from rasa_sdk.events import ReminderCancelled, ReminderScheduled

from bot.actions.calls import JsonObject
from bot.config import ConversationConfig
from bot.conversation.patience import Patience
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.reminders import Reminders
from bot.conversation.state import (
    EVENTS,
    MOST_REMINDERS,
    Cancel,
    Committed,
    Forgotten,
    Reminder,
    cancel_of,
    reminder_of,
)
from bot.conversation.store import Store
from bot.conversation.tokens import Tokens
from bot.model import Address, Event, Reply
from bot.testing.makers import an_address, an_event
from tests.conversation.test_manager import Bot
from tests.conversation.test_store import begun, left

pytestmark = pytest.mark.services

TURN = "0123456789abcdef"
PAST = datetime(2020, 1, 1, 9, 30, tzinfo=UTC)
DAY_S = 86_400
HERE = "chorus:{s0}:c:memory:a1:c1:"
ZSET = "chorus:{s0}:reminders:memory"


def a_reminder(name: str = "tea", **more: Any) -> Reminder:
    given: dict[str, Any] = {
        "intent": "EXTERNAL_tea",
        "entities": [],
        "due": PAST,
        "kill_on_user_message": False,
        "address": an_address(),
        "set_by": TURN,
        **more,
    }
    return Reminder(name=name, **given)


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


async def turn_with(
    store: Store, text: str = "hello", address: Address | None = None, **kept: Any
) -> Committed:
    """Accept a message and commit a turn that keeps these things."""
    message = an_event(text, address=address or an_address())
    platform, shard = message.address.platform, store.shards.of(message.address.key)
    tokens = Tokens(store.connection, store.shards, "ready", [platform])
    await store.accept(message)
    while not (found := await tokens.take(shard, 1)):
        pass
    work = await store.begin(found[0])
    assert work is not None
    return await store.commit(found[0], work.messages, **kept)


async def set_here(store: Store, *reminders: Reminder) -> None:
    text = " ".join(reminder.name for reminder in reminders)
    assert await turn_with(store, text[:50], reminders=reminders) == "committed"


async def until(happened: Callable[[], object], within_s: float = 10.0) -> None:
    """Look again and again at what nobody tells."""
    async with asyncio.timeout(within_s):
        while not happened():  # noqa: ASYNC110 (that is what it is for)
            await asyncio.sleep(0.005)


async def fire(store: Store) -> float | None:
    return await store.fire(store.shards.all[0], ["memory"])


def waiting(client: redis.Redis, lane: str = HERE + "lane") -> list[Event]:
    """Return what waits in a lane."""
    entries: Any = client.lrange(lane, 0, -1)
    return [EVENTS.read(entry[29:].encode()) for entry in entries]


def names_of(events: Sequence[Event]) -> list[JsonValue]:
    return [event.data.get("name") for event in events]


def kept(client: redis.Redis) -> set[str]:
    """Return the names of the reminders that are not due yet."""
    in_hash: Any = client.hkeys(HERE + "reminders")
    in_zset: Any = client.zrange(ZSET, 0, -1)
    assert sorted(f"memory:a1:c1 {name}" for name in in_hash) == sorted(in_zset)
    return set(in_hash)


# What rasa-sdk's events say


def test_a_reminder_of_rasa_sdk_is_read_with_everything_in_it() -> None:
    event = ReminderScheduled(
        "EXTERNAL_tea",
        trigger_date_time=PAST,
        entities=[{"value": "green", "entity": "tea"}],
        name="tea",
        kill_on_user_message=False,
    )

    reminder = reminder_of(event, TURN, an_address())

    assert reminder == a_reminder(entities=[{"entity": "tea", "value": "green"}])


def test_its_event_is_an_intent_at_the_time_when_it_is_due() -> None:
    reminder = a_reminder(entities=[{"entity": "tea", "value": "green"}])

    assert reminder.event == Event(
        id=f"reminder:tea:1577871000000:{TURN}",
        kind="intent",
        address=an_address(),
        time=PAST,
        data={
            "intent": "EXTERNAL_tea",
            "entities": [{"entity": "tea", "value": "green"}],
            "name": "tea",
            "reminder": True,
            "set_by": TURN,
            "kill_on_user_message": False,
            "scheduled_at": "2020-01-01T09:30:00+00:00",
        },
    )


@pytest.fixture
def in_tokyo() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_a_time_without_a_zone_is_this_machines_as_in_rasa() -> None:
    moment = datetime(2020, 1, 1, 18, 30)  # noqa: DTZ001 (as actions write it)
    event = ReminderScheduled("EXTERNAL_tea", trigger_date_time=moment)

    reminder = reminder_of(event, TURN, an_address())

    assert isinstance(reminder, Reminder)
    assert reminder.due == PAST
    assert reminder.due.tzinfo is UTC


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    event: JsonObject = {"intent": "tea", "date_time": "2020-01-01T17:30:00.000+08:00"}

    reminder = reminder_of(event, TURN, an_address())

    assert isinstance(reminder, Reminder)
    assert reminder.due == PAST


def test_reminders_without_a_name_are_different_ones_and_messages_drop_them() -> None:
    event: JsonObject = {"intent": "tea", "date_time": "2026-01-01T00:00:00Z"}

    one, other = (reminder_of(event, TURN, an_address()) for _ in range(2))

    assert isinstance(one, Reminder)
    assert isinstance(other, Reminder)
    assert one.name != other.name
    assert one.kill_on_user_message


def test_entities_as_an_object_are_those_of_a_list() -> None:
    event: JsonObject = {
        "intent": "tea",
        "date_time": "2026-01-01T00:00:00Z",
        "entities": {"tea": "绿茶 🍵"},
    }

    reminder = reminder_of(event, TURN, an_address())

    assert isinstance(reminder, Reminder)
    assert reminder.entities == [{"entity": "tea", "value": "绿茶 🍵"}]


def _deep(depth: int) -> JsonValue:
    value: JsonValue = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"intent": ""}, "its intent '' is not a short text"),
        ({"intent": None}, "its intent NoneType is not a short text"),
        ({"intent": "i" * 201}, "is not a short text"),
        ({"intent": "\ud83d"}, "is not a short text"),
        ({"name": 7}, "its name int is not a short text"),
        ({"name": "n" * 100_000}, "is not a short text"),
        ({"date_time": None}, "its date_time NoneType is no time"),
        ({"date_time": "soon"}, "its date_time 'soon' is no time; write it as in"),
        ({"date_time": 1_700_000_000}, "its date_time int is no time"),
        ({"date_time": "9999-12-31T23:59:59-12:00"}, "is no time"),
        ({"kill_on_user_msg": "yes"}, "kill_on_user_msg 'yes' is neither true nor"),
        ({"entities": "tea"}, "neither a list of objects nor an object"),
        ({"entities": ["tea"]}, "neither a list of objects nor an object"),
        ({"entities": {"a": object()}}, "neither a list of objects nor an object"),
        ({"entities": {"a": "\ud83d"}}, "neither a list of objects nor an object"),
        ({"entities": {"a": _deep(400)}}, "its entities cannot be kept as JSON"),
        ({"entities": {"a": _deep(100_000)}}, "neither a list of objects nor"),
        ({"entities": {"a": "x" * 20_000}}, "and may be 10000; keep what is long in"),
    ],
)
def test_what_is_no_reminder_is_told_in_one_short_sentence(
    given: dict[str, Any], told: str
) -> None:
    event: JsonObject = {"intent": "tea", "date_time": "2026-01-01T00:00:00Z", **given}

    problem = reminder_of(event, TURN, an_address())

    assert isinstance(problem, str)
    assert told in problem
    assert problem.startswith("reminder")
    assert len(problem) < 200


async def test_numbers_that_json_does_not_know_are_kept(
    store: Store, client: redis.Redis
) -> None:
    event: JsonObject = {
        "intent": "tea",
        "name": "tea",
        "date_time": PAST.isoformat(),
        "entities": {"a": float("inf"), "b": 10**30},
    }
    reminder = reminder_of(event, TURN, an_address())
    assert isinstance(reminder, Reminder)

    await set_here(store, reminder)
    await fire(store)

    assert waiting(client) == [reminder.event]


@pytest.mark.parametrize(
    ("event", "cancel"),
    [
        (ReminderCancelled(), Cancel()),
        (ReminderCancelled(name="", entities=[]), Cancel()),
        (ReminderCancelled(name="tea"), Cancel(name="tea")),
        (
            ReminderCancelled(intent_name="EXTERNAL_tea", entities={"tea": "green"}),
            Cancel(
                intent="EXTERNAL_tea", entities=[{"entity": "tea", "value": "green"}]
            ),
        ),
    ],
)
def test_a_cancel_of_rasa_sdk_is_read_with_what_is_given(
    event: dict[str, Any], cancel: Cancel
) -> None:
    assert cancel_of(event) == cancel


@pytest.mark.parametrize(
    "given", [{"name": 7}, {"intent": ["tea"]}, {"name": "\ud83d"}, {"entities": "tea"}]
)
def test_what_is_no_cancel_never_cancels_everything(given: dict[str, Any]) -> None:
    assert isinstance(cancel_of(given), str)


# When it is due


async def test_what_is_due_becomes_a_turn_and_is_kept_no_more(
    store: Store, client: redis.Redis
) -> None:
    reminder = a_reminder(entities=[{"entity": "tea", "value": "绿茶\n🍵"}])
    await set_here(store, reminder)

    next_s = await fire(store)
    _, work = await begun(store)

    assert next_s is None
    assert [one.event for one in work.messages] == [reminder.event]
    assert kept(client) == set()
    assert not client.exists(HERE + "reminders", ZSET)


async def test_what_is_not_due_yet_waits_for_its_time(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder("soon", due=in_days(1)), a_reminder("now"))

    next_s = await fire(store)

    assert next_s is not None
    assert DAY_S - 60 < next_s <= DAY_S
    assert kept(client) == {"soon"}
    assert names_of(waiting(client)) == ["now"]


async def test_what_was_due_before_1970_is_due(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder(due=datetime(1492, 10, 12, tzinfo=UTC)))

    await fire(store)

    assert names_of(waiting(client)) == ["tea"]


async def test_firing_again_because_the_answer_was_lost_moves_nothing_twice(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder())

    for _ in range(3):
        await fire(store)

    assert names_of(waiting(client)) == ["tea"]
    assert client.xlen("chorus:{s0}:ready:memory") == 1


async def test_what_is_due_goes_behind_what_waits_and_needs_no_second_token(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder())
    await store.accept(an_event("first"))

    await fire(store)

    assert [event.kind for event in waiting(client)] == ["message", "intent"]
    assert client.xlen("chorus:{s0}:ready:memory") == 1


async def test_what_finds_its_lane_full_waits_and_keeps_nobody_else_waiting(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    settings = ConversationConfig(lane_limit=1)
    other = an_address("c2")
    async with Store(url=server.url, settings=settings) as store:
        await set_here(store, a_reminder())
        await turn_with(store, address=other, reminders=[a_reminder(address=other)])
        await store.accept(an_event("first"))

        full_s = await fire(store)
        there = waiting(client)
        token, work = await begun(store)
        await store.commit(token, work.messages)
        client.zadd(ZSET, {"memory:a1:c1 tea": 1})  # some seconds later
        await fire(store)

    assert full_s is not None
    assert 4 < full_s <= 5
    assert [event.kind for event in there] == ["message"]
    assert names_of(waiting(client, "chorus:{s0}:c:memory:a1:c2:lane")) == ["tea"]
    assert names_of(waiting(client)) == ["tea"]


async def test_only_the_reminders_of_the_platforms_that_are_served_are_fired(
    store: Store, client: redis.Redis
) -> None:
    elsewhere = an_address(platform="other")
    await turn_with(store, address=elsewhere, reminders=[a_reminder(address=elsewhere)])

    await fire(store)
    before = waiting(client, "chorus:{s0}:c:other:a1:c1:lane")
    await store.fire(store.shards.all[0], ["memory", "other"])

    assert before == []
    assert names_of(waiting(client, "chorus:{s0}:c:other:a1:c1:lane")) == ["tea"]


async def test_what_expired_is_not_looked_at_for_ever(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder())
    client.delete(HERE + "reminders")

    next_s = await fire(store)

    assert next_s is None
    assert not client.exists(ZSET)
    assert waiting(client) == []


# Setting, with a turn


async def test_a_commit_that_is_sent_again_sets_a_reminder_once(
    store: Store, client: redis.Redis
) -> None:
    await store.accept(an_event())
    token, work = await begun(store)

    answers = [
        await store.commit(token, work.messages, reminders=[a_reminder()])
        for _ in range(2)
    ]
    await fire(store)
    answers.append(await store.commit(token, work.messages, reminders=[a_reminder()]))

    assert answers == ["committed", "already", "already"]
    assert names_of(waiting(client)) == ["tea"]
    assert kept(client) == set()


async def test_a_turn_that_is_not_kept_neither_sets_nor_cancels(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder("before", due=in_days(1)))
    await store.accept(an_event("more"))
    token, work = await begun(store)

    committed = await store.commit(
        token,
        work.messages,
        handed="12345",
        reminders=[a_reminder("new", due=in_days(1))],
        cancels=[Cancel()],
    )

    assert committed == "changed"
    assert kept(client) == {"before"}


async def test_the_same_name_again_replaces_the_reminder(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder(due=in_days(1)), a_reminder("other"))

    await set_here(store, a_reminder(intent="EXTERNAL_again"))
    await fire(store)

    fired = [event.data["intent"] for event in waiting(client)]
    assert sorted(map(str, fired)) == ["EXTERNAL_again", "EXTERNAL_tea"]
    assert kept(client) == set()


async def test_the_same_reminder_set_anew_is_another_turn(
    store: Store, client: redis.Redis
) -> None:
    turns = []
    for text in ("first", "second"):
        await turn_with(store, text, reminders=[a_reminder(set_by=text)])
        await fire(store)
        token, work = await begun(store)
        turns.append(work.messages[0].turn_id)
        await store.commit(token, work.messages)

    assert len(set(turns)) == 2


GREEN: list[JsonValue] = [{"entity": "tea", "value": "green"}]


@pytest.mark.parametrize(
    ("cancels", "remaining"),
    [
        ([Cancel()], set()),
        ([Cancel(name="a")], {"b", "c", "a b"}),
        ([Cancel(name="a b")], {"a", "b", "c"}),
        ([Cancel(name="nobody")], {"a", "b", "c", "a b"}),
        ([Cancel(intent="drink")], {"c", "a b"}),
        ([Cancel(entities=GREEN)], {"b", "a b"}),
        ([Cancel(intent="drink", entities=GREEN)], {"b", "c", "a b"}),
        ([Cancel(name="b", intent="drink", entities=GREEN)], {"a", "b", "c", "a b"}),
        ([Cancel(name="a"), Cancel(name="c")], {"b", "a b"}),
        ([Cancel(name="a"), Cancel()], set()),
        ([Cancel(name=str(number)) for number in range(5000)], {"a", "b", "c", "a b"}),
    ],
)
async def test_a_cancel_takes_what_has_all_of_what_is_given(
    store: Store, client: redis.Redis, cancels: list[Cancel], remaining: set[str]
) -> None:
    there = [
        a_reminder("a", intent="drink", entities=GREEN, due=in_days(1)),
        a_reminder("b", intent="drink", due=in_days(1)),
        a_reminder("c", intent='ea"t\n', entities=GREEN, due=in_days(1)),
        a_reminder("a b", intent="rest", due=in_days(1)),
    ]
    await set_here(store, *there)

    await turn_with(store, "cancel", cancels=cancels)

    assert kept(client) == remaining
    assert {
        one.name for one in there if not any(cancel.covers(one) for cancel in cancels)
    } == remaining


async def test_a_turn_may_set_again_what_it_cancels(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, *[a_reminder(name, due=in_days(1)) for name in "abc"])

    await turn_with(
        store,
        "anew",
        cancels=[Cancel()],
        reminders=[a_reminder("b", due=in_days(2))],
        user_wrote=True,
    )

    assert kept(client) == {"b"}


async def test_a_message_drops_what_was_set_before_it_and_not_what_it_sets(
    store: Store, client: redis.Redis
) -> None:
    dropped = {"kill_on_user_message": True, "due": in_days(1)}
    await set_here(
        store, a_reminder("dropped", **dropped), a_reminder("kept", due=in_days(1))
    )
    await turn_with(store, "help", user_wrote=False)
    before = kept(client)

    await turn_with(
        store, "more", reminders=[a_reminder("new", **dropped)], user_wrote=True
    )

    assert before == {"dropped", "kept"}
    assert kept(client) == {"kept", "new"}


async def test_a_message_drops_what_has_come_due_behind_it(
    store: Store, client: redis.Redis
) -> None:
    await set_here(
        store,
        a_reminder("dropped", kill_on_user_message=True),
        a_reminder("kept"),
        a_reminder("as well", kill_on_user_message=True),
    )
    await store.accept(an_event('it is "reminder":true, you know'))
    token, work = await begun(store)
    await fire(store)
    await store.accept(an_event("more", data={"reminder": True}))

    await store.commit(token, work.messages, user_wrote=True)

    assert [event.text or event.data["name"] for event in waiting(client)] == [
        "kept",
        "more",
    ]


async def test_a_lane_that_held_only_what_a_message_drops_is_done(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder(kill_on_user_message=True))
    await store.accept(an_event("in the meantime"))
    token, work = await begun(store)
    await fire(store)

    await store.commit(token, work.messages, user_wrote=True)

    assert client.xlen("chorus:{s0}:ready:memory") == 0
    assert not client.hexists(HERE + "meta", "token")
    assert not client.exists(HERE + "lane", "chorus:{s0}:waiting")


async def test_of_too_many_the_sooner_ones_are_kept_and_the_operator_is_told(
    store: Store, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def due(day: int) -> Reminder:
        return a_reminder(f"day {day}", due=in_days(1 + day))

    await set_here(store, *map(due, range(90, 90 + MOST_REMINDERS)))
    with caplog.at_level(logging.WARNING):
        await set_here(store, *map(due, range(60)))

    assert kept(client) == {f"day {day}" for day in (*range(60), *range(90, 130))}
    assert "60 reminders were dropped, the latest ones" in caplog.text


async def test_of_too_many_in_one_turn_the_sooner_ones_are_kept(
    store: Store, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    far = [a_reminder(f"{day}", due=in_days(day)) for day in range(1, 1001)]

    with caplog.at_level(logging.WARNING):
        await turn_with(store, reminders=far[::-1])

    assert kept(client) == {f"{day}" for day in range(1, 1 + MOST_REMINDERS)}
    assert "900 reminders were dropped" in caplog.text


# How long it is kept, and how it is forgotten


async def test_what_is_due_long_after_the_conversation_expires_lives_until_then(
    store: Store, client: redis.Redis
) -> None:
    user = an_address(user="u1")
    soon = a_reminder("soon", due=in_days(1), address=user)
    far = a_reminder("far", due=in_days(60), address=user)

    await turn_with(store, address=user, reminders=[soon])
    before: Any = client.ttl(HERE + "reminders")
    await turn_with(store, "later", address=user, reminders=[far])
    await turn_with(store, "the day after", address=user)
    await store.turn_away(an_event("too long", address=user), Reply(text="too long"))

    assert 29 * DAY_S < before <= 30 * DAY_S
    for key in (
        HERE + "reminders",
        ZSET,
        HERE + "people",
        "chorus:{s0}:person:u1",
    ):
        ttl: Any = client.ttl(key)
        assert 60 * DAY_S < ttl <= 61 * DAY_S, key
    ttl = client.ttl(HERE + "log")
    assert ttl <= 30 * DAY_S


async def test_who_is_forgotten_is_reminded_of_nothing(
    store: Store, client: redis.Redis
) -> None:
    user = an_address(user="u1")
    await turn_with(
        store,
        address=user,
        reminders=[
            a_reminder("far", due=in_days(60), address=user),
            a_reminder("due", address=user),
        ],
    )
    client.delete(HERE + "log", HERE + "meta")  # expired long ago

    forgotten = await store.forget("u1")

    assert forgotten == Forgotten(conversations=1)
    assert left(client) == []
    assert not client.exists(ZSET)


async def test_a_customer_who_asks_to_be_forgotten_is_reminded_of_nothing(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder("far", due=in_days(60)), a_reminder("due"))
    await store.accept(an_event("forget", "command"))
    token, work = await begun(store)
    await fire(store)
    await store.accept(an_event("and what about tea?"))

    await store.forget_conversation(an_address())
    await store.commit(token, work.messages)

    assert kept(client) == set()
    assert [event.text for event in waiting(client)] == ["and what about tea?"]


async def test_a_reminder_that_asks_to_be_forgotten_is_answered(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder())
    await fire(store)
    token, work = await begun(store)

    await store.forget_conversation(an_address())

    assert await store.commit(token, work.messages) == "committed"


async def test_a_conversation_that_is_abandoned_keeps_its_reminders(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder(due=in_days(1)))

    await store.abandon(an_address())

    assert kept(client) == {"tea"}


async def test_what_is_left_of_others_is_kept_when_one_is_forgotten(
    store: Store, client: redis.Redis
) -> None:
    other = an_address("c10", user="u2")
    far = in_days(1)
    await turn_with(
        store,
        address=an_address(user="u1"),
        reminders=[a_reminder(due=far, address=an_address(user="u1"))],
    )
    await turn_with(
        store, address=other, reminders=[a_reminder(due=far, address=other)]
    )

    await store.forget("u1")

    assert client.zrange(ZSET, 0, -1) == ["memory:a1:c10 tea"]


# The process that looks


async def test_the_bot_answers_a_reminder_that_is_set_while_it_runs(
    store: Store,
) -> None:
    bot = Bot(store)
    reminder = a_reminder(due=datetime.now(UTC) + timedelta(seconds=0.2))

    async with bot.manager() as manager:
        await manager.idle()
        bot.answerer.gates["set"] = asyncio.Event()
        await manager.accept(an_event("set"))
        await bot.answerer.begun["set"].wait()
        commit = store.commit

        async def setting(*args: Any, **more: Any) -> Committed:
            return await commit(*args, **{**more, "reminders": [reminder]})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "commit", setting)
            bot.answerer.gates["set"].set()
            await bot.connector.next_reply("c1")
        await until(lambda: len(bot.answerer.turns) == 2)
        await manager.idle()

    assert bot.answerer.turns[1].message == reminder.event


async def test_many_that_are_due_at_once_are_each_fired_once_by_two_processes(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    settings = ConversationConfig(messages_per_minute=10_000)
    chats = [an_address(f"chat {number}") for number in range(50)]
    async with (
        Store(url=server.url, settings=settings, shards=4) as one,
        Store(url=server.url, settings=settings, shards=4) as other,
    ):
        for chat in chats:
            await turn_with(
                one,
                address=chat,
                reminders=[
                    a_reminder(f"{number}", address=chat, due=in_days(-number))
                    for number in range(20)
                ],
            )
        looking = [
            asyncio.create_task(
                Reminders(
                    store, ["memory"], Patience(asyncio.sleep, patient=True)
                ).run()
            )
            for store in (one, other)
        ]

        await until(lambda: not client.keys("chorus:*:reminders:*"))
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)

    lanes: Any = client.keys("*:lane")
    assert len(lanes) == len(chats)
    for lane in lanes:
        assert names_of(waiting(client, lane)) == [f"{n}" for n in range(19, -1, -1)]


async def test_one_that_is_set_for_sooner_wakes_whoever_waits_for_a_later_one(
    store: Store, client: redis.Redis
) -> None:
    await set_here(store, a_reminder("later", due=in_days(1)))
    looking = asyncio.create_task(
        Reminders(store, ["memory"], Patience(asyncio.sleep, patient=True)).run()
    )
    await until(lambda: not store.scheduled[store.shards.all[0]].is_set())

    await set_here(store, a_reminder("now"))
    await until(lambda: waiting(client), within_s=4)  # before the next look
    looking.cancel()

    assert names_of(waiting(client)) == ["now"]
    assert kept(client) == {"later"}
