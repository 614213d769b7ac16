"""The stand-in answers python-telegram-bot's client as Telegram does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import telegram
from aiohttp import ClientSession, web
from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    MessageEntity,
    ReplyParameters,
)
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
    TimedOut,
)

from bot.testing.fakes import FixedClock
from tests.connectors.telegram import wire
from tests.connectors.telegram.chats import ANN, BEN, BOT, ROBOT
from tests.connectors.telegram.limits import text_mention
from tests.connectors.telegram.service import TOKEN, TelegramService

# PTB 22.8 warns whenever it makes a RetryAfter.
pytestmark = pytest.mark.filterwarnings("ignore:.*retry_after.*timedelta")

SECRET = "s3cret"  # noqa: S105 (of nothing)
YES_NO = InlineKeyboardMarkup(
    [
        [
            InlineKeyboardButton("Yes", callback_data="b:1:0"),
            InlineKeyboardButton("No", callback_data="b:1:1"),
        ]
    ]
)
KEYBOARD = YES_NO.to_dict()


def ids(updates: tuple[telegram.Update, ...]) -> list[int]:
    return [update.update_id for update in updates]


async def test_who_the_bot_is(bot: telegram.Bot) -> None:
    assert (bot.id, bot.username) == (BOT.id, BOT.username)
    assert bot.can_read_all_group_messages is False


@pytest.mark.parametrize(
    ("token", "error"), [("77:wrong", InvalidToken), ("nonsense", InvalidToken)]
)
async def test_another_token_is_refused(
    service: TelegramService, token: str, error: type[TelegramError]
) -> None:
    with pytest.raises(error):
        async with telegram.Bot(token, base_url=service.url):
            pass

    assert not service.calls


async def test_json_form_and_query_arguments_are_the_same(
    service: TelegramService,
) -> None:
    service.private()
    url = f"{service.url}{TOKEN}/sendmessage"
    args: dict[str, str | int] = {"chat_id": ANN.id, "text": "hello"}

    async with ClientSession() as client:
        for asked in (
            client.post(url, json=args),
            client.post(url, data=args),
            client.get(url, params=args),
        ):
            async with asked as answered:
                assert (await answered.json())["ok"]

    assert service.shown() == ["hello"] * 3


# Updates


async def test_updates_come_again_until_a_higher_offset_confirms_them(
    service: TelegramService, bot: telegram.Bot
) -> None:
    first, second = service.say("one"), service.say("two")

    got = await bot.get_updates()
    again = await bot.get_updates(limit=1)
    rest = await bot.get_updates(offset=first["update_id"] + 1)

    assert ids(got) == [first["update_id"], second["update_id"]]
    assert ids(again) == [first["update_id"]]
    assert ids(rest) == [second["update_id"]]
    assert service.confirmed == first["update_id"]
    assert (got[0].message, rest[0].message) != (None, None)


async def test_a_negative_offset_counts_from_the_end(
    service: TelegramService, bot: telegram.Bot
) -> None:
    *_, last = [service.say(word) for word in ("one", "two", "three")]

    got = await bot.get_updates(offset=-1)

    assert ids(got) == [last["update_id"]]
    assert len(service.pending) == 1


async def test_a_long_poll_wakes_when_something_arrives(
    service: TelegramService, bot: telegram.Bot
) -> None:
    poll = asyncio.create_task(bot.get_updates(timeout=50))
    await service.until(lambda: service.called("getUpdates"))

    said = service.say("hello")

    async with asyncio.timeout(5):
        assert ids(await poll) == [said["update_id"]]


async def test_a_long_poll_ends_empty_after_its_time(
    service: TelegramService, bot: telegram.Bot
) -> None:
    assert await bot.get_updates(timeout=1) == ()


async def test_of_two_polls_the_older_one_is_ended(
    service: TelegramService, bot: telegram.Bot
) -> None:
    async with telegram.Bot(TOKEN, base_url=service.url) as other:
        older = asyncio.create_task(bot.get_updates(timeout=50))
        await service.until(lambda: service.called("getUpdates"))
        newer = asyncio.create_task(other.get_updates(timeout=50))

        with pytest.raises(Conflict, match="other getUpdates request"):
            await older
        said = service.say("hello")
        got = await newer

    assert ids(got) == [said["update_id"]]


async def test_nothing_is_polled_while_a_webhook_is_set(
    service: TelegramService, bot: telegram.Bot
) -> None:
    poll = asyncio.create_task(bot.get_updates(timeout=50))
    await service.until(lambda: service.called("getUpdates"))
    await bot.set_webhook("https://bot.example/hook")

    with pytest.raises(Conflict, match="terminated by setWebhook"):
        await poll
    with pytest.raises(Conflict, match="webhook is active"):
        await bot.get_updates()
    await bot.delete_webhook()

    assert await bot.get_updates() == ()


async def test_only_the_kinds_asked_for_are_kept(
    service: TelegramService, bot: telegram.Bot
) -> None:
    sent = service.put(service.private(), BOT, {"text": "answer"})
    unasked = service.react(sent, "👍")
    await bot.get_updates(allowed_updates=["message_reaction"])

    unwanted, wanted = service.say("hello"), service.react(sent, "👎")
    await bot.get_updates()  # the former choice stays

    assert "update_id" not in unasked
    assert "update_id" not in unwanted
    (got,) = await bot.get_updates()
    assert got.update_id == wanted["update_id"]
    assert got.message_reaction is not None
    (reaction,) = got.message_reaction.new_reaction
    assert isinstance(reaction, telegram.ReactionTypeEmoji)
    assert reaction.emoji == "👎"


async def test_every_kind_of_update_is_read_by_the_library(
    service: TelegramService, bot: telegram.Bot
) -> None:
    forum = service.supergroup(forum=True)
    sent = service.put(service.private(), BOT, {"text": "x", "reply_markup": KEYBOARD})
    said = service.say("hello")
    service.edit(said, "hello there")
    service.picture("look", chat=None)
    service.album("one", "")
    service.press(sent, "No")
    service.post("news", chat=service.channel())
    service.business("hi", connection="biz", user=BEN)
    service.topic(forum)
    service.block()
    service.unblock()
    service.other("something_new", {"a": 1})
    await bot.send_message_draft(ANN.id, 5, "so far", api_kwargs={"can_stop": True})
    service.stop()

    got = await bot.get_updates()

    assert [next(iter(set(one.to_dict()) - {"update_id"})) for one in got] == [
        "message",
        "edited_message",
        "message",
        "message",
        "message",
        "callback_query",
        "channel_post",
        "business_message",
        "message",
        "my_chat_member",
        "my_chat_member",
        "something_new",
        "stopped_message_generation",
    ]
    assert got[5].callback_query is not None
    assert got[5].callback_query.data == "b:1:1"
    stopped = got[-1].api_kwargs["stopped_message_generation"]
    assert (stopped["chat"]["id"], stopped["draft_id"]) == (ANN.id, 5)


async def test_words_are_marked_in_utf_16_units(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.say("🚲 /help@chorus_bot, @ann_k: https://a.example/x")

    (got,) = await bot.get_updates()

    assert got.message is not None
    assert list(got.message.parse_entities().values()) == [
        "/help@chorus_bot",
        "@ann_k",
        "https://a.example/x",
    ]


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("good morning", False),
        ("/help", True),
        ("/help@chorus_bot", True),
        ("/help@Chorus_Bot", True),
        ("/help@robot_bot", False),
        ("what does @chorus_bot say?", True),
        ("what does @robot_bot say?", False),
        ("mail me: a@chorus_bot", False),
    ],
)
async def test_in_a_group_the_bot_hears_only_what_is_meant_for_it(
    service: TelegramService, text: str, *, heard: bool
) -> None:
    said = service.say(text, chat=service.supergroup(), user=BEN)

    assert ("update_id" in said) is heard


async def test_privacy_ends_for_administrators_and_when_it_is_off(
    service: TelegramService,
) -> None:
    group = service.supergroup()
    theirs = service.say("talk", chat=service.supergroup(admin=True))
    service.privacy = False
    open_talk = service.say("talk", chat=group)

    assert "update_id" in theirs
    assert "update_id" in open_talk


async def test_replies_to_the_bot_and_names_that_mean_it_are_heard(
    service: TelegramService, bot: telegram.Bot
) -> None:
    group = service.supergroup()
    sent = await bot.send_message(group, "hello all")
    ours = service.message(group, sent.message_id)
    other = service.put(service.chats[group], ROBOT, {"text": "beep"})

    answer = service.reply("and then?", ours, user=BEN)
    aside = service.reply("quiet", other)
    entity = text_mention("so, Chorus?", "Chorus", BOT.wire)
    named = service.say("so, Chorus?", chat=group, entities=[entity])

    assert "update_id" in answer
    assert "update_id" not in aside
    assert "update_id" in named
    message = answer["message"]
    # A thread of replies is no topic.
    assert message["message_thread_id"] == sent.message_id
    assert "is_topic_message" not in message


async def test_what_is_said_in_a_topic_answers_its_opening(
    service: TelegramService, bot: telegram.Bot
) -> None:
    forum = service.supergroup(forum=True)
    topic = service.topic(forum)

    said = service.say("/help", chat=forum, thread=topic)["message"]
    await bot.send_message(forum, "yes", message_thread_id=topic)
    await bot.send_message(forum, "to all")

    assert said["is_topic_message"] is True
    assert said["message_thread_id"] == topic
    assert said["reply_to_message"]["forum_topic_created"]
    assert service.shown(forum, topic) == ["yes"]
    assert service.shown(forum) == ["yes", "to all"]
    with pytest.raises(BadRequest, match="Message thread not found"):
        await bot.send_message(forum, "in General", message_thread_id=1)


# Sending


@pytest.mark.parametrize(
    ("text", "entities", "why"),
    [
        ("", [], "message text is empty"),
        (" \n", [], "message text is empty"),
        ("x" * 4097, [], "message is too long"),
        ("🚲" * 2049, [], "message is too long"),
        ("abc", [("bold", 1, 3)], "ends after the end of the text"),
        ("🚲", [("bold", 1, 1)], "begins in a middle of a UTF-16 symbol"),
        ("a🚲", [("bold", 0, 2)], "ends in a middle of a UTF-16 symbol"),
        ("abc", [("bold", -1, 1)], "can't parse entities"),
        ("abc", [("loud", 0, 1)], "can't parse entities"),
        ("abc", [("text_link", 0, 1)], "can't parse entities"),
    ],
)
async def test_what_telegram_cannot_show_is_refused(
    service: TelegramService,
    bot: telegram.Bot,
    text: str,
    entities: list[tuple[str, int, int]],
    why: str,
) -> None:
    service.private()
    marked = [MessageEntity(kind, at, length) for kind, at, length in entities]

    with pytest.raises(BadRequest, match=f"(?i){why}"):
        await bot.send_message(ANN.id, text, entities=marked)

    assert service.shown() == []


async def test_the_longest_text_and_fitting_entities_are_shown(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.private()
    bold = MessageEntity("bold", 2, 4094)

    sent = await bot.send_message(ANN.id, "🚲" * 2048, entities=[bold])

    assert sent.text == "🚲" * 2048
    assert sent.entities == (bold,)
    assert service.shown() == ["🚲" * 2048]


@pytest.mark.parametrize("pressed", ["x" * 65, "é" * 33])
async def test_a_buttons_payload_has_64_bytes(
    service: TelegramService, bot: telegram.Bot, pressed: str
) -> None:
    service.private()
    button = InlineKeyboardButton("Go", callback_data=pressed)

    with pytest.raises(BadRequest, match="Button_data_invalid"):
        await bot.send_message(
            ANN.id, "?", reply_markup=InlineKeyboardMarkup([[button]])
        )


async def test_a_reply_quotes_what_is_there(
    service: TelegramService, bot: telegram.Bot
) -> None:
    said = service.say("hello")["message"]["message_id"]

    sent = await bot.send_message(
        ANN.id, "hi", reply_parameters=ReplyParameters(message_id=said)
    )
    with pytest.raises(BadRequest, match="Message to be replied not found"):
        await bot.send_message(
            ANN.id, "hi", reply_parameters=ReplyParameters(message_id=999)
        )
    await bot.send_message(
        ANN.id,
        "hi again",
        reply_parameters=ReplyParameters(999, allow_sending_without_reply=True),
    )

    assert sent.reply_to_message is not None
    assert sent.reply_to_message.text == "hello"
    assert service.shown() == ["hi", "hi again"]


async def test_edits_change_what_is_there_and_take_the_keyboard_with_them(
    service: TelegramService, bot: telegram.Bot
) -> None:
    said = service.say("mine")["message"]["message_id"]
    sent = await bot.send_message(ANN.id, "one", reply_markup=YES_NO)

    await bot.edit_message_text("two", ANN.id, sent.message_id)

    assert service.shown() == ["two"]
    assert "reply_markup" not in service.last()
    for text, message_id, why in (
        ("two", sent.message_id, "message is not modified"),
        ("three", 999, "message to edit not found"),
        ("three", said, "message can't be edited"),
    ):
        with pytest.raises(BadRequest, match=f"(?i){why}"):
            await bot.edit_message_text(text, ANN.id, message_id)
    await bot.edit_message_reply_markup(ANN.id, sent.message_id, reply_markup=YES_NO)
    assert service.last()["reply_markup"] == KEYBOARD
    await bot.delete_message(ANN.id, sent.message_id)
    assert service.shown() == []


async def test_a_draft_stands_until_a_message_comes_and_only_in_private_chats(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.private()
    await bot.send_message_draft(ANN.id, 7, "")
    await bot.send_message_draft(ANN.id, 7, "so")
    await bot.send_message_draft(ANN.id, 7, "so far")

    assert service.draft() == "so far"
    await bot.send_message(ANN.id, "so far so good")

    assert service.draft() is None
    assert service.drafts() == ["", "so", "so far"]
    with pytest.raises(BadRequest):
        await bot.send_message_draft(ANN.id, 0, "x")
    with pytest.raises(BadRequest):
        await bot.send_message_draft(service.supergroup(), 1, "x")


async def test_a_pressed_button_is_answered_once(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.private()
    await bot.send_message(ANN.id, "?", reply_markup=YES_NO)
    query = service.press(service.last(), "Yes")["callback_query"]

    await bot.answer_callback_query(query["id"])

    assert not service.unanswered
    with pytest.raises(BadRequest, match="too old"):
        await bot.answer_callback_query(query["id"])


async def test_typing_commands_and_chats(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.private()

    await bot.send_chat_action(ANN.id, "typing")
    await bot.set_my_commands([("help", "what I can do")])
    chat = await bot.get_chat(ANN.id)

    assert service.typing == [ANN.id]
    assert service.commands == [{"command": "help", "description": "what I can do"}]
    assert (chat.type, chat.first_name) == ("private", "Ann")
    with pytest.raises(BadRequest, match="command_invalid"):
        await bot.set_my_commands([("Help me", "x")])


@pytest.mark.parametrize("method", ["sendRichMessage", "sendRichMessageDraft"])
async def test_newer_methods_are_not_found(bot: telegram.Bot, method: str) -> None:
    with pytest.raises(EndPointNotFound):
        await bot.do_api_request(method, {"chat_id": ANN.id})


# Chats that are shut


async def test_a_chat_that_nobody_opened_is_not_found(bot: telegram.Bot) -> None:
    with pytest.raises(BadRequest, match="Chat not found"):
        await bot.send_message(ANN.id, "hello")


async def test_a_blocked_bot_may_do_nothing_until_it_is_let_in_again(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.private()
    blocked = service.block()

    for call in (
        bot.send_message(ANN.id, "hello"),
        bot.send_chat_action(ANN.id, "typing"),
        bot.send_message_draft(ANN.id, 1, "x"),
    ):
        with pytest.raises(Forbidden, match="blocked by the user"):
            await call
    service.unblock()
    await bot.send_message(ANN.id, "hello again")

    assert blocked["my_chat_member"]["new_chat_member"]["status"] == "kicked"
    assert service.shown() == ["hello again"]


async def test_a_bot_is_kicked_from_a_group(
    service: TelegramService, bot: telegram.Bot
) -> None:
    group = service.group()
    service.kick(group)

    with pytest.raises(Forbidden, match="kicked from the group chat"):
        await bot.send_message(group, "hello")


async def test_a_group_that_moved_says_where_to(
    service: TelegramService, bot: telegram.Bot
) -> None:
    group = service.group()
    new = service.migrate(group)

    with pytest.raises(ChatMigrated) as moved:
        await bot.send_message(group, "hello")
    await bot.send_message(moved.value.new_chat_id, "hello")

    assert moved.value.new_chat_id == new
    assert service.shown(new) == ["hello"]
    old, there = [update.message for update in await bot.get_updates()]
    assert old is not None
    assert there is not None
    assert (old.chat.id, old.migrate_to_chat_id) == (group, new)
    assert (there.chat.id, there.migrate_from_chat_id) == (new, group)


async def test_a_business_message_is_answered_over_its_connection(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.business("hi", connection="biz", user=BEN)

    with pytest.raises(BadRequest, match="Chat not found"):
        await bot.send_message(BEN.id, "hello")
    await bot.send_message(BEN.id, "hello", business_connection_id="biz")

    assert service.shown(BEN.id) == ["hello"]


# What goes wrong


async def test_faults_are_taken_in_order(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.private()
    service.fail(
        "sendMessage",
        wire.Well(),
        wire.FloodWait(7),
        wire.Status(502),
        wire.BadRequest("can't parse entities: no"),
        wire.Forbidden("user is deactivated"),
        wire.Garbage(),
    )

    await bot.send_message(ANN.id, "at first")
    for error in (RetryAfter, NetworkError, BadRequest, Forbidden, TelegramError):
        with pytest.raises(error):
            await bot.send_message(ANN.id, "hello")
    await bot.send_message(ANN.id, "at last")

    assert service.shown() == ["at first", "at last"]
    assert len(service.called("sendMessage", chat=ANN.id)) == 7


@pytest.mark.parametrize(
    ("fault", "shown"), [(wire.DropBefore(), []), (wire.DropAfter(), ["hello"])]
)
async def test_a_cut_connection_leaves_open_whether_it_was_done(
    service: TelegramService, bot: telegram.Bot, fault: wire.Fault, shown: list[str]
) -> None:
    service.private()
    service.fail("sendMessage", fault)

    with pytest.raises(NetworkError):
        await bot.send_message(ANN.id, "hello")

    assert service.shown() == shown


@pytest.mark.parametrize(
    ("fault", "shown"), [(wire.Slow(30), ["hello"]), (wire.Hang(), [])]
)
async def test_a_slow_answer_runs_out_of_time(
    service: TelegramService, bot: telegram.Bot, fault: wire.Fault, shown: list[str]
) -> None:
    service.private()
    service.fail("sendMessage", fault)

    with pytest.raises(TimedOut):
        await bot.send_message(ANN.id, "hello", read_timeout=0.05)

    assert service.shown() == shown


async def test_a_fault_can_wait_for_one_chat(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.private(), service.private(BEN)
    service.fail("sendMessage", wire.FloodWait(60), chat=BEN.id)

    await bot.send_message(ANN.id, "hello")
    with pytest.raises(RetryAfter):
        await bot.send_message(BEN.id, "hello")


async def test_a_penalty_lasts_as_long_as_it_says() -> None:
    clock = FixedClock()
    async with (
        TelegramService(lambda: clock().timestamp()) as service,
        telegram.Bot(TOKEN, base_url=service.url) as bot,
    ):
        service.private()
        service.penalise(ANN.id, 7)

        with pytest.raises(RetryAfter, match="7"):
            await bot.send_message(ANN.id, "too early")
        clock.advance(7)
        await bot.send_message(ANN.id, "hello")
        clock.advance(59)
        await bot.send_chat_action(ANN.id, "typing")

        assert service.shown() == ["hello"]
        assert service.busiest_minute(ANN.id) == 2


async def test_polls_can_be_refused_and_results_be_nonsense(
    service: TelegramService, bot: telegram.Bot
) -> None:
    service.fail("getUpdates", wire.Conflict(), wire.Result([{"update_id": 3}]))

    with pytest.raises(Conflict):
        await bot.get_updates()

    assert ids(await bot.get_updates()) == [3]


# The webhook


@asynccontextmanager
async def listening(
    answer: Callable[[web.Request], Awaitable[web.Response]],
) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/hook", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


async def test_updates_are_pushed_with_the_secret_until_they_are_taken(
    service: TelegramService, bot: telegram.Bot
) -> None:
    seen: list[tuple[str | None, bytes]] = []

    async def take_the_third(request: web.Request) -> web.Response:
        secret = request.headers.get("X-Telegram-Bot-Api-Secret-Token")
        seen.append((secret, await request.read()))
        return web.Response(status=200 if len(seen) == 3 else 503)

    async with listening(take_the_third) as url:
        await bot.set_webhook("https://bot.example/hook", secret_token=SECRET)
        assert service.webhook_url == "https://bot.example/hook"
        service.webhook_url = url
        update = service.say("hello")

        first, *_ = await service.push(update, secret=BOT.username)
        troubled = await bot.get_webhook_info()
        status, _, seconds = await service.push(update, retry=True)
        well = await bot.get_webhook_info()
        await service.push(raw=b"not JSON", secret=None)

    assert (first, status) == (503, 200)
    assert 0 < seconds < 60
    assert [secret for secret, _ in seen] == [BOT.username, SECRET, SECRET, None]
    assert json.loads(seen[2][1]) == update
    assert seen[3][1] == b"not JSON"
    assert (troubled.pending_update_count, well.pending_update_count) == (1, 0)
    assert troubled.last_error_message is not None
    assert service.confirmed == update["update_id"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://bot.example"},
        {"secret_token": "no spaces"},
        {"max_connections": 101},
    ],
)
async def test_an_impossible_webhook_is_refused(
    service: TelegramService, bot: telegram.Bot, wrong: dict[str, Any]
) -> None:
    with pytest.raises(BadRequest):
        await bot.set_webhook(**{"url": "https://bot.example", **wrong})

    assert not service.webhook
