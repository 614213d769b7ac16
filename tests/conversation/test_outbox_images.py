"""Replies without a word: pictures and JSON go out, and nothing does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.conversation import overview
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.model import Button, Record, Reply, Turn
from tests.conversation.test_manager import Bot, a_record, said

pytestmark = pytest.mark.services

PICTURE = Reply(text="", images=("https://shop.example/a.png",))
CUSTOM = Reply(text="", custom=({"blocks": [{"type": "divider"}]},))
BUTTONS = Reply(text="", buttons=(Button(text="Yes", payload="yes"),))


@pytest.fixture
def bot(store: Store) -> Bot:
    return Bot(store)


async def answered_with(bot: Bot, reply: Reply) -> None:
    """Let the bot answer one message with this reply, to the end."""

    def answer(turn: Turn) -> Record:
        return replace(a_record(turn, "", "acted"), reply=reply)

    bot.answerer.answer_with = answer
    async with bot.manager() as manager:
        await manager.accept(said("show me"))
        await manager.idle()


@pytest.mark.parametrize("reply", [PICTURE, CUSTOM])
async def test_a_reply_without_a_text_that_shows_something_is_sent_once(
    bot: Bot, reply: Reply
) -> None:
    await answered_with(bot, reply)

    (delivery,) = bot.connector.deliveries
    sent = delivery.reply
    assert delivery.key == turn_id(said("show me"))
    assert (sent.text, list(sent.images)) == ("", list(reply.images))
    assert list(sent.custom) == list(reply.custom)
    assert ("sent", "show me", "") in bot.told.events


@pytest.mark.parametrize("reply", [Reply(text=""), BUTTONS])
async def test_a_reply_with_nothing_to_show_is_not_sent_and_the_turn_is_over(
    bot: Bot, reply: Reply
) -> None:
    await answered_with(bot, reply)

    record = await bot.store.record(turn_id(said("show me")))
    backlogs, dead = await overview.backlogs(bot.store)
    assert bot.connector.deliveries == []
    assert record is not None
    assert (record.outcome, record.problems) == ("acted", [])
    assert (list(backlogs), dead) == ([], 0)
    assert [text for _, text in bot.connector.statuses] == ["Thinking …", ""]
