"""Conversations that people have: how they get and leave them, and who hears of it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import replace
from typing import Any

import pytest
import redis

from bot.conversation import handoff, overview
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.errors import StoreError
from bot.model import Record, Reply, Turn
from bot.testing.makers import an_address
from tests.conversation.test_manager import CONFIG, Bot, a_record, log_of, said
from tests.conversation.test_regressions import settings_of

pytestmark = pytest.mark.services

META = "chorus:{s0}:c:memory:a1:c1:meta"
HOUR_MS = 3_600_000
TOLD = Reply(text="told")
HANDED_OVER, RESUMED = CONFIG.replies.handed_over, CONFIG.replies.resumed
ASKED = "the customer asked for a person"


@pytest.fixture
def bot(store: Store) -> Bot:
    return Bot(store)


async def after(bot: Bot, *texts: str, **more: Any) -> list[str]:
    """Say each text, a command with its slash; return what the customer reads."""
    before = len(bot.connector.replies())
    async with bot.manager(**more) as manager:
        for text in texts:
            kind = "command" if text.startswith("/") else "message"
            event = said(text.removeprefix("/"), kind=kind, id=uuid.uuid4().hex)
            await manager.accept(event)
            await manager.idle()
    return bot.connector.replies()[before:]


def silent_for(client: redis.Redis, hours: float) -> None:
    """Let so much time pass in which nothing was heard of the conversation."""
    last = int(str(client.hget(META, "handed_last")))
    client.hset(META, "handed_last", last - round(hours * HOUR_MS))


async def test_a_customer_asks_for_a_person_and_the_bot_is_silent(bot: Bot) -> None:
    replies = await after(bot, "one", "/human my bike is broken", "two", "three")

    assert replies == ["one!", HANDED_OVER]
    assert [turn.question for turn in bot.answerer.turns] == ["one"]
    assert (await log_of(bot))[-4:] == [
        ("command", "human my bike is broken"),
        ("reply", HANDED_OVER),
        ("message", "two"),
        ("message", "three"),
    ]
    assert [text for _, text in bot.connector.statuses] == ["Thinking …", ""] * 4
    assert [event for event in bot.told.events if event[0] != "sent"] == [
        ("handed over", "human my bike is broken", f"{ASKED}: my bike is broken")
    ]


async def test_the_record_of_an_unanswered_message_says_why(bot: Bot) -> None:
    message = said("two")
    await after(bot, "/human slow")

    async with bot.manager() as manager:
        await manager.accept(message)
        await manager.idle()

    record = await bot.store.record(turn_id(message))
    assert record is not None
    assert (record.outcome, record.reply.text) == ("handed_over", "")
    assert record.why == f"people have this conversation: {ASKED}: slow"


async def test_commands_still_work_while_people_answer(bot: Bot) -> None:
    replies = await after(bot, "/human", "/order 7", "/human again", "/why")

    assert replies[1:] == ["Order 7, before: None", HANDED_OVER, "because of order 7"]
    assert [event[0] for event in bot.told.events].count("handed over") == 1


async def test_the_customer_gives_the_conversation_back(bot: Bot) -> None:
    replies = await after(bot, "/human", "unheard", "/bot", "heard")

    assert replies == [HANDED_OVER, RESUMED, "heard!"]
    assert [event.text for event in bot.answerer.turns[0].history][-1] == "unheard"
    assert ("resumed", "c1") in bot.told.events
    assert await handoff.handed_over(bot.store) == []


async def test_a_bot_that_has_the_conversation_tells_so_and_nobody_else(
    bot: Bot,
) -> None:
    replies = await after(bot, "/bot")

    assert replies == [RESUMED]
    assert ("resumed", "c1") not in bot.told.events


async def test_other_conversations_of_the_person_go_on(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(said("human", kind="command"))
        await manager.accept(said("hello", "c2"))
        await manager.idle()

    assert bot.connector.replies("c2") == ["hello!"]


async def test_an_answer_can_hand_over(bot: Bot) -> None:
    def handed_over(turn: Turn) -> Record:
        made = a_record(turn, HANDED_OVER, "handed_over")
        return replace(made, why="a plugin asked for a person: angry")

    bot.answerer.answer_with = handed_over

    replies = await after(bot, "grr", "hello?")

    (found,) = await handoff.handed_over(bot.store)
    assert replies == [HANDED_OVER]
    assert found.why == "a plugin asked for a person: angry"
    assert found.key == "memory:a1:c1"
    assert ("handed over", "grr", found.why) in bot.told.events


async def test_what_is_turned_away_is_not_answered_either(bot: Bot) -> None:
    replies = await after(bot, "/human", "x" * 1000, " ")

    assert replies == [HANDED_OVER]


async def test_after_silence_the_next_message_is_answered_and_told_once(
    bot: Bot, client: redis.Redis
) -> None:
    await after(bot, "/human", "unheard")
    silent_for(client, hours=24)

    replies = await after(bot, "hello", "again")

    assert replies == [f"{RESUMED}\n\nhello!", "again!"]
    assert (await log_of(bot))[-3] == ("reply", "hello!")
    assert [event[0] for event in bot.told.events].count("resumed") == 1
    assert await handoff.handed_over(bot.store) == []


async def test_each_message_keeps_people_in_the_conversation(
    bot: Bot, client: redis.Redis
) -> None:
    await after(bot, "/human")
    silent_for(client, hours=23)
    await after(bot, "unheard")
    silent_for(client, hours=23)

    assert await after(bot, "unheard too") == []


async def test_a_person_can_be_asked_for_again_after_the_silence(
    bot: Bot, client: redis.Redis
) -> None:
    await after(bot, "/human")
    silent_for(client, hours=24)

    replies = await after(bot, "/human again", "unheard")

    assert replies == [HANDED_OVER]
    assert [event[0] for event in bot.told.events].count("handed over") == 2


async def test_forgetting_ends_it(bot: Bot, client: redis.Redis) -> None:
    replies = await after(bot, "/human", "/forget", "hello")

    assert replies[-1] == "hello!"
    assert client.keys("chorus:*:handed") == []


async def test_no_reason_is_logged(bot: Bot, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await after(bot, "/human Wolpertinger", "hello")

    told = [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    assert any("customer asked for a person" in one for one in told)
    assert not any("Wolpertinger" in one for one in told)


# Operators


async def test_an_operator_takes_a_conversation_and_gives_it_back(bot: Bot) -> None:
    await after(bot, "one")

    taken = await handoff.hand_over(bot.store, an_address(), "mine", TOLD)
    again = await handoff.hand_over(bot.store, an_address(), "mine", TOLD)
    unheard = await after(bot, "two")
    (listed,) = await handoff.handed_over(bot.store)
    given = await handoff.give_back(bot.store, an_address(), TOLD)
    given_again = await handoff.give_back(bot.store, an_address(), TOLD)
    heard = await after(bot, "three")

    assert (taken, again, given, given_again) == (True, False, True, False)
    assert unheard == ["told"]
    assert (listed.why, listed.platform) == ("mine", "memory")
    assert heard == ["told", "three!"]


async def test_a_turn_that_runs_meanwhile_is_not_sent(bot: Bot) -> None:
    bot.answerer.gates["slow"] = asyncio.Event()

    async with bot.manager() as manager:
        await manager.accept(said("slow"))
        await bot.answerer.begun["slow"].wait()
        await handoff.hand_over(bot.store, an_address(), "mine", TOLD)
        bot.answerer.gates["slow"].set()
        await manager.idle()

    record = await bot.store.record(turn_id(said("slow")))
    assert bot.connector.replies() == ["told"]
    assert await log_of(bot) == [("message", "slow")]
    assert record is not None
    assert record.outcome == "handed_over"


async def test_an_operators_step_sent_again_is_told_once(
    bot: Bot, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await after(bot, "one")
    step = uuid.uuid4()
    monkeypatch.setattr("bot.conversation.handoff.uuid.uuid4", lambda: step)

    answers = [
        await handoff.hand_over(bot.store, an_address(), "mine", TOLD) for _ in range(2)
    ]

    assert answers == [True, True]
    assert client.llen("chorus:{s0}:c:memory:a1:c1:outbox") == 1


async def test_what_ended_in_silence_is_not_listed_and_can_be_taken_again(
    bot: Bot, client: redis.Redis
) -> None:
    await after(bot, "/human")
    silent_for(client, hours=24)

    listed = await handoff.handed_over(bot.store)
    (shown,) = await overview.conversations(bot.store, 9)
    taken = await handoff.hand_over(bot.store, an_address(), "mine", TOLD)

    assert (listed, shown.handed_s, taken) == ([], None, True)
    assert await after(bot, "hello") == ["told"]


async def test_the_overview_shows_what_people_have(bot: Bot) -> None:
    await after(bot, "/human")

    (shown,) = await overview.conversations(bot.store, 9)

    assert shown.handed_s is not None


async def test_a_conversation_is_found_by_key_and_by_digest(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    async with settings_of(server, shards=4) as bot:
        for chat in ("c1", "c2", "c:3"):
            await bot.store.accept(said("hello", chat))

        by_key = await handoff.find(bot.store, "memory:a1:c2")
        by_digest = await handoff.find(bot.store, an_address("c:3").digest)
        with pytest.raises(StoreError, match="no conversation 'c1'"):
            await handoff.find(bot.store, "c1")

    assert (by_key, by_digest) == (an_address("c2"), an_address("c:3"))


async def test_what_expired_with_its_conversation_is_taken_off_the_list(
    bot: Bot, client: redis.Redis
) -> None:
    await after(bot, "/human")
    client.delete(META)

    assert await handoff.handed_over(bot.store) == []
    assert client.keys("chorus:*:handed") == []
