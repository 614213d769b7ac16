"""What becomes of a pressed button: what it says, and whose it has to be."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.interfaces import Accepted
from bot.model import Button, Event, Record, Reply, Turn
from bot.testing.makers import an_address, an_event
from tests.conversation.test_manager import CONFIG, Bot, a_config, log_of, said

pytestmark = pytest.mark.services

BUTTONS = (
    Button(text="Opening hours", payload="When are you open?"),
    Button(text="Order 7", payload="/order 7"),
    Button(text="Stop", payload="/stop"),
    Button(text="Nothing", payload=" \u200b"),
)
ASKED = said("hello")


@pytest.fixture
def bot(store: Store) -> Bot:
    made = Bot(store)
    made.answerer.answer_with = with_buttons
    return made


def with_buttons(turn: Turn) -> Record:
    reply = Reply(text=f"{turn.question}!", buttons=BUTTONS)
    return Record(turn=turn, outcome="answered", reply=reply, why="", config="")


def pressed(place: Any, id_: str = "p", turn: Any = None, chat: str = "c1") -> Event:
    """Press a button of the first reply, unless another turn is named."""
    return an_event(
        "",
        "button",
        id=id_,
        address=an_address(chat, user="u2"),
        data={"turn": turn_id(ASKED) if turn is None else turn, "button": place},
    )


async def answered(bot: Bot, *pressings: Event, **more: Any) -> list[Accepted]:
    """Ask for a reply with buttons, then press some."""
    async with bot.manager(**more) as manager:
        await manager.accept(ASKED)
        await manager.idle()
        answers = [await manager.accept(pressing) for pressing in pressings]
        await manager.idle()
    return answers


async def test_a_button_says_its_payload_for_the_one_who_pressed_it(bot: Bot) -> None:
    answers = await answered(bot, pressed(0))

    message = bot.answerer.turns[1].message
    assert answers == ["accepted"]
    assert bot.connector.replies() == ["hello!", "When are you open?!"]
    assert (message.kind, message.text) == ("message", "When are you open?")
    assert (message.id, message.address.user) == ("p", "u2")
    assert message.data == {
        "turn": turn_id(ASKED),
        "button": 0,
        "pressed": "Opening hours",
    }
    assert (await log_of(bot))[2] == ("message", "When are you open?")


async def test_a_button_shows_that_the_bot_is_working(bot: Bot) -> None:
    await answered(bot, pressed(0))

    assert [text for _, text in bot.connector.statuses] == ["Thinking …", ""] * 2


async def test_a_payload_with_a_slash_is_a_command(bot: Bot) -> None:
    answers = await answered(bot, pressed(1))

    assert answers == ["accepted"]
    assert bot.connector.replies()[1] == "Order 7, before: None"
    assert (await bot.store.load(an_address())).slots == {"order": "7"}


async def test_a_stop_button_stops_the_turn_that_is_running(bot: Bot) -> None:
    async with bot.manager() as manager:
        await manager.accept(ASKED)
        await manager.idle()
        bot.answerer.gates["long"] = bot.answerer.stopped["long"]
        await manager.accept(said("long"))
        await bot.answerer.begun["long"].wait()
        accepted = await manager.accept(pressed(2))
        await manager.idle()

    assert accepted == "accepted"
    assert bot.connector.replies() == ["hello!", CONFIG.replies.cancelled]


async def test_a_button_pressed_twice_by_one_delivery_says_it_once(bot: Bot) -> None:
    answers = await answered(bot, pressed(0), pressed(0), pressed(0, "p2"))

    assert answers == ["accepted", "duplicate", "accepted"]
    assert len(bot.answerer.turns) == 3


@pytest.mark.parametrize(
    ("place", "turn"),
    [(4, None), (-1, None), (True, None), ("0", None), (0, "0" * 16), (0, 7)],
)
async def test_a_button_that_nobody_knows_is_turned_away_with_a_sentence(
    bot: Bot, place: Any, turn: Any
) -> None:
    answers = await answered(bot, pressed(place, turn=turn), pressed(place, turn=turn))

    assert answers == ["refused", "duplicate"]
    assert bot.connector.replies() == ["hello!", CONFIG.replies.expired]
    assert len(bot.answerer.turns) == 1


async def test_nobody_presses_a_button_of_another_conversation(bot: Bot) -> None:
    answers = await answered(bot, pressed(0, chat="c2"))

    assert answers == ["refused"]
    assert bot.connector.replies("c2") == [CONFIG.replies.expired]


async def test_a_button_whose_record_cannot_be_read_is_turned_away(
    bot: Bot, client: redis.Redis
) -> None:
    async with bot.manager() as manager:
        await manager.accept(ASKED)
        await manager.idle()
        client.set(f"chorus:{{s0}}:record:{turn_id(ASKED)}", "of another version")
        answer = await manager.accept(pressed(0))
        await manager.idle()

    assert answer == "refused"
    assert bot.connector.replies()[-1] == CONFIG.replies.expired


async def test_what_a_button_says_has_the_limits_of_messages(bot: Bot) -> None:
    answers = await answered(bot, pressed(3))

    assert answers == ["refused"]
    assert bot.connector.replies()[1] == CONFIG.replies.empty


async def test_buttons_count_as_messages_do(bot: Bot) -> None:
    narrow = a_config(conversation={"max_message_characters": 5})

    answers = await answered(bot, pressed(0), config=narrow)

    assert answers == ["refused"]
    assert "has 18 characters" in bot.connector.replies()[1]
