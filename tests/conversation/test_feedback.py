"""What customers think of replies: what is kept of it, for how long, and who asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from bot.conversation import judgements, store
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.state import Judged, turn_id
from bot.conversation.store import Store
from bot.model import Candidate, Event, Record, Reply, Turn
from bot.testing.makers import an_address, an_event
from tests.conversation.test_manager import Bot, log_of, said
from tests.conversation.test_regressions import settings_of

pytestmark = pytest.mark.services

DAY_S = 86_400
ASKED = said("hello")
TURN = turn_id(ASKED)


@pytest.fixture
def bot(store: Store) -> Bot:
    return with_candidates(Bot(store))


def with_candidates(bot: Bot) -> Bot:
    bot.answerer.answer_with = chosen
    return bot


def chosen(turn: Turn) -> Record:
    return Record(
        turn=turn,
        outcome="answered",
        reply=Reply(text="five"),
        why="",
        config="",
        candidates=[Candidate(text="six"), Candidate(text="five", origin="quotation")],
        chosen=1,
    )


def judging(rating: Any, user: str = "u1", chat: str = "c1", **data: Any) -> Event:
    return an_event(
        "",
        "feedback",
        id=f"{user} {rating} {data}",
        address=an_address(chat, user=user),
        data={"turn": TURN, "rating": rating, **data},
    )


async def judged(bot: Bot, *feedback: Event, asked: Event = ASKED) -> list[str]:
    """Have a question answered, then judge."""
    async with bot.manager() as manager:
        await manager.accept(asked)
        await manager.idle()
        return [await manager.accept(one) for one in feedback]


async def test_feedback_is_logged_and_told_with_turn_and_candidate(bot: Bot) -> None:
    answers = await judged(bot, judging(1), judging(1))

    history = (await bot.store.load(an_address())).history
    assert answers == ["accepted", "duplicate"]
    assert bot.told.events[1:] == [("feedback", "", "hello")]
    assert history[-1].kind == "feedback"
    assert history[-1].data == {"turn": TURN, "rating": 1, "candidate": 1}


async def test_feedback_without_a_turn_is_about_the_last_one(bot: Bot) -> None:
    answers = await judged(bot, said("nice", kind="feedback", data={"rating": 1}))

    history = (await bot.store.load(an_address())).history
    assert answers == ["accepted"]
    assert history[-1].data == {"turn": TURN, "rating": 1, "candidate": 1}
    assert await bot.store.ratings(TURN) == [1]


async def test_feedback_about_a_turn_that_nobody_knows_is_kept_in_the_log_only(
    bot: Bot,
) -> None:
    answers = await judged(bot, judging(1, turn="0" * 16))

    assert answers == ["accepted"]
    assert bot.told.events[-1] == ("feedback", "", None)
    assert (await log_of(bot))[-1] == ("feedback", "")
    assert await judgements.judged(bot.store) == []


@pytest.mark.parametrize("rating", [2, -2, 0.5, 1.0, True, "1", None, [1]])
async def test_a_rating_that_is_none_is_refused(bot: Bot, rating: Any) -> None:
    answers = await judged(bot, judging(rating))

    assert answers == ["refused"]
    assert len(await log_of(bot)) == 2


async def test_nobody_judges_a_turn_of_another_conversation(bot: Bot) -> None:
    answers = await judged(bot, judging(-1, chat="c2"), judging(-1, turn=7))

    assert answers == ["refused", "refused"]
    assert await bot.store.ratings(TURN) == []
    assert [event[0] for event in bot.told.events] == ["sent"]


async def test_the_last_word_of_each_person_counts(bot: Bot) -> None:
    await judged(bot, judging(1, "u1"), judging(-1, "u2"), judging(-1, "u1"))

    (found,) = await judgements.judged(bot.store)
    assert await bot.store.ratings(TURN) == [-1, -1]
    assert found == Judged(
        turn=TURN,
        digest=an_address().digest,
        platform="memory",
        time=found.time,
        good=0,
        bad=2,
        candidate=1,
        origin="quotation",
        recorded=True,
    )
    assert found.rating == -1
    assert abs(found.time - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_judgement_can_be_taken_back_and_leaves_nothing(
    bot: Bot, client: redis.Redis
) -> None:
    await judged(bot, judging(1, "u1"), judging(1, "u2"), judging(0, "u1"))
    one_left = await bot.store.ratings(TURN)

    async with bot.manager() as manager:
        await manager.accept(judging(0, "u2"))

    assert one_left == [1]
    assert await judgements.judged(bot.store) == []
    assert client.keys("*judge*") == []


async def test_a_turn_without_candidates_can_be_judged(bot: Bot) -> None:
    bot.answerer.answer_with = lambda turn: Record(
        turn=turn, outcome="direct", reply=Reply(text="hi"), why="", config=""
    )

    await judged(bot, judging(1))

    (found,) = await judgements.judged(bot.store)
    assert (found.candidate, found.origin) == (None, "")


async def test_a_judged_turn_is_listed_and_judged_again_after_its_record_is_gone(
    bot: Bot, client: redis.Redis
) -> None:
    await judged(bot, judging(1))
    client.delete(f"chorus:{{s0}}:record:{TURN}")

    async with bot.manager() as manager:
        answers = [
            await manager.accept(judging(-1)),
            await manager.accept(judging(-1, chat="c2")),
        ]

    (found,) = await judgements.judged(bot.store)
    assert answers == ["accepted", "accepted"]
    assert (found.recorded, found.good, found.bad) == (False, 0, 1)
    assert (found.candidate, found.origin) == (1, "quotation")


async def test_what_was_judged_before_a_day_is_not_listed_with_since(bot: Bot) -> None:
    await judged(bot, judging(1))
    now = datetime.now(UTC)

    within = await judgements.judged(bot.store, now - timedelta(hours=1))
    later = await judgements.judged(bot.store, now + timedelta(hours=1))

    assert [one.turn for one in within] == [TURN]
    assert later == []


async def test_judgements_live_as_long_as_records(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    async with settings_of(server, record_ttl_days=2) as bot:
        await judged(with_candidates(bot), judging(1))

    ttls = [client.ttl(str(key)) for key in client.keys("*judge*")]
    assert len(ttls) == 3
    assert all(2 * DAY_S - 60 < ttl <= 2 * DAY_S for ttl in ttls)


async def test_there_is_a_most_of_judgements_and_the_oldest_go(
    bot: Bot, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_JUDGED", 2)
    asked = [said(f"question {number}") for number in range(3)]

    async with bot.manager() as manager:
        for one in asked:
            await manager.accept(one)
        await manager.idle()
        for one in asked:
            await manager.accept(judging(1, turn=turn_id(one)))

    listed = {one.turn for one in await judgements.judged(bot.store)}
    assert listed == {turn_id(one) for one in asked[1:]}
    assert not client.exists(f"chorus:{{s0}}:judged:{turn_id(asked[0])}")


@pytest.mark.parametrize("how", ["customer", "operator"])
async def test_judgements_are_forgotten_with_their_conversation(
    bot: Bot, client: redis.Redis, how: str
) -> None:
    elsewhere = said("elsewhere", "c2")
    await judged(bot, judging(1))
    await judged(bot, judging(1, chat="c2", turn=turn_id(elsewhere)), asked=elsewhere)

    if how == "customer":
        await bot.store.forget_conversation(an_address())
    else:
        await bot.store.forget("u1")

    left = [one.turn for one in await judgements.judged(bot.store)]
    assert left == ([turn_id(elsewhere)] if how == "customer" else [])
    assert not client.exists(f"chorus:{{s0}}:judged:{TURN}")


async def test_a_judgement_sent_again_because_its_answer_was_lost_counts_once(
    bot: Bot, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await judged(bot)
    record = await bot.store.record(TURN)
    monkeypatch.setattr("bot.conversation.store._claim", lambda: "the same command")

    answers = [await bot.store.judge(judging(1), record) for _ in range(2)]

    assert answers == ["accepted", "accepted"]
    assert [kind for kind, _ in await log_of(bot)].count("feedback") == 1
    assert await bot.store.ratings(TURN) == [1]


async def test_judgements_are_found_on_every_shard(
    server: EmbeddedRedis, client: redis.Redis
) -> None:
    asked = [said("hello", f"chat {number}") for number in range(8)]

    async with settings_of(server, shards=4) as bot:
        async with with_candidates(bot).manager() as manager:
            for one in asked:
                await manager.accept(one)
            await manager.idle()
            for one in asked:
                chat = one.address.chat
                await manager.accept(judging(1, chat=chat, turn=turn_id(one)))
        found = await judgements.judged(bot.store)
        ratings = [await bot.store.ratings(turn_id(one)) for one in asked]

    assert {one.turn for one in found} == {turn_id(one) for one in asked}
    assert ratings == [[1]] * 8
