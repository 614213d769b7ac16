"""What goes out, through the real library: once, in order, as far as can be known."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
import telegram.error

from bot.errors import DeliveryError, StoreError
from bot.model import Button, Reply
from connectors.telegram import Telegram, bot_api, outcomes, sending
from connectors.telegram.outcomes import FloodWait as TooMany
from connectors.telegram.outcomes import Unavailable, failure
from tests.connectors.telegram.chats import ANN, BEN
from tests.connectors.telegram.service import TOKEN, TelegramService
from tests.connectors.telegram.shelf import DictShelf
from tests.connectors.telegram.talking import (
    OTHER,
    TURN,
    FakeTime,
    a_telegram,
    address,
    listening,
)
from tests.connectors.telegram.wire import (
    BadRequest,
    DropAfter,
    DropBefore,
    Fault,
    FloodWait,
    Forbidden,
    Garbage,
    Hang,
    Result,
    Status,
    Well,
)

THREE = "\n\n".join(f"part {number} " + "word " * 700 for number in (1, 2, 3))


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def shelf() -> DictShelf:
    return DictShelf()


@pytest.fixture
async def connector(
    service: TelegramService, shelf: DictShelf, time: FakeTime
) -> AsyncIterator[Telegram]:
    made = a_telegram(service, shelf=shelf, clock=time)
    service.private()
    yield made
    await made.bot_stopped()


def opened(shown: list[str]) -> list[str]:
    return [text[:6] for text in shown]


WHOLE = ["part 1", "part 2", "part 3"]
HERE = address(ANN.id, ANN.id)


async def test_a_reply_arrives_with_its_formats_and_without_a_preview(
    service: TelegramService, connector: Telegram
) -> None:
    sent = await connector.send(HERE, Reply(text="**Five** days."), TURN)

    (call,) = service.called("sendMessage")
    assert service.shown() == ["Five days."]
    assert service.last()["entities"] == [{"type": "bold", "offset": 0, "length": 4}]
    assert call.args["link_preview_options"] == {"is_disabled": True}
    assert sent.ids == (str(service.last()["message_id"]),)


async def test_a_long_reply_is_several_messages_in_order(
    service: TelegramService, connector: Telegram
) -> None:
    sent = await connector.send(HERE, Reply(text=THREE), TURN)

    assert opened(service.shown()) == WHOLE
    assert len(sent.ids) == 3


async def test_the_same_key_sends_nothing_again_also_in_another_process(
    service: TelegramService, connector: Telegram, shelf: DictShelf
) -> None:
    first = await connector.send(HERE, Reply(text=THREE), TURN)
    again = await connector.send(HERE, Reply(text=THREE), TURN)
    other = a_telegram(service, shelf=shelf)
    elsewhere = await other.send(HERE, Reply(text=THREE), TURN)
    await other.bot_stopped()

    assert first == again == elsewhere
    assert len(service.called("sendMessage")) == 3


async def test_a_penalty_lets_the_rest_wait_and_closes_this_chat_only(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    service.private(BEN)
    service.fail("sendMessage", Well(), FloodWait(126))

    with pytest.raises(DeliveryError) as error:
        await connector.send(HERE, Reply(text=THREE), TURN)
    with pytest.raises(DeliveryError) as again:
        await connector.send(HERE, Reply(text="another"), OTHER)
    await connector.send(address(BEN.id), Reply(text="hello"), "e" * 16)
    time.now += 126
    await connector.send(HERE, Reply(text=THREE), TURN)

    assert (error.value.retryable, error.value.retry_after_s) == (True, 126)
    assert again.value.retry_after_s == pytest.approx(126, abs=1)
    assert service.shown(BEN.id) == ["hello"]
    assert opened(service.shown()) == WHOLE
    # Nothing was asked of the closed chat meanwhile.
    assert len(service.called("sendMessage", chat=ANN.id)) == 4


@pytest.mark.parametrize("code", [500, 502, 503, 429, 418, 302])
async def test_what_certainly_was_not_done_is_tried_again(
    service: TelegramService, connector: Telegram, code: int, time: FakeTime
) -> None:
    service.fail("sendMessage", Status(code))

    with pytest.raises(DeliveryError) as error:
        await connector.send(HERE, Reply(text="Five."), TURN)
    time.now += error.value.retry_after_s or 0
    found = await connector.find(HERE, TURN)
    await connector.send(HERE, Reply(text="Five."), TURN)

    assert error.value.retryable
    assert found is None
    assert service.shown() == ["Five."]


async def test_who_cannot_be_reached_was_sent_nothing(shelf: DictShelf) -> None:
    settings = {"token": TOKEN, "api_url": "http://127.0.0.1:9"}
    connector = Telegram(Telegram.Settings.model_validate(settings))
    connector.keep_on(shelf)

    with pytest.raises(DeliveryError) as error:
        await connector.send(HERE, Reply(text="Five."), TURN)
    found = await connector.find(HERE, TURN)
    await connector.bot_stopped()

    assert error.value.retryable
    assert found is None


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("fault", "arrived"),
    [
        (DropBefore(), False),
        (DropAfter(), True),
        (Status(504), False),
        (Garbage(), False),
        (Result(value=True), False),
        (Result(value={"message_id": "x"}), False),
    ],
)
async def test_a_part_of_which_nobody_knows_is_not_sent_again_but_the_rest_is(
    service: TelegramService,
    connector: Telegram,
    fault: Fault,
    place: int,
    *,
    arrived: bool,
) -> None:
    service.fail("sendMessage", *[Well()] * place, fault)

    sent = await connector.send(HERE, Reply(text=THREE), TURN)
    with pytest.raises(DeliveryError) as unknown:
        await connector.find(HERE, TURN)
    again = await connector.send(HERE, Reply(text=THREE), TURN)

    assert sent.status == again.status == "unknown"
    assert not unknown.value.retryable
    assert opened(service.shown()) == [
        part for part in WHOLE if arrived or part != WHOLE[place]
    ]
    assert len(service.called("sendMessage")) == 3


async def test_a_service_that_does_not_answer_is_not_waited_for_for_ever(
    service: TelegramService, connector: Telegram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector._service()._api, "_call_s", 0.05)
    service.fail("sendMessage", Hang())

    sent = await connector.send(HERE, Reply(text=THREE), TURN)

    assert sent.status == "unknown"
    assert opened(service.shown()) == WHOLE[1:]


async def test_after_a_crash_in_mid_reply_the_rest_is_sent_and_no_part_twice(
    service: TelegramService, connector: Telegram, shelf: DictShelf
) -> None:
    service.fail("sendMessage", Well(), Hang())
    sending_it = asyncio.create_task(connector.send(HERE, Reply(text=THREE), TURN))
    await service.until(lambda: len(service.called("sendMessage")) == 2)
    sending_it.cancel()
    await asyncio.wait({sending_it})
    other = a_telegram(service, shelf=shelf)

    found = await other.find(HERE, TURN)
    sent = await other.send(HERE, Reply(text=THREE), TURN)
    await other.bot_stopped()

    assert found is None  # there is more to send, and nothing is sent twice
    assert sent.status == "unknown"
    assert opened(service.shown()) == ["part 1", "part 3"]


async def test_what_was_sent_is_found_and_what_was_not_is_not(
    connector: Telegram,
) -> None:
    sent = await connector.send(HERE, Reply(text="Five."), TURN)

    assert await connector.find(HERE, TURN) == sent
    assert await connector.find(HERE, OTHER) is None


async def test_what_another_process_has_sent_meanwhile_is_not_sent_again(
    service: TelegramService, connector: Telegram, shelf: DictShelf
) -> None:
    service.fail("sendMessage", Well(), Status(502))
    with pytest.raises(DeliveryError):
        await connector.send(HERE, Reply(text=THREE), TURN)
    other = a_telegram(service, shelf=shelf)
    await other.send(HERE, Reply(text=THREE), TURN)
    await other.bot_stopped()

    sent = await connector.send(HERE, Reply(text=THREE), TURN)

    assert len(sent.ids) == 3
    assert opened(service.shown()) == WHOLE


async def test_what_was_sent_while_it_could_not_be_noted_is_not_sent_again(
    service: TelegramService,
    connector: Telegram,
    shelf: DictShelf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = 0
    put = shelf.put

    async def goes_away(name: str, value: bytes, *, ttl_s: float | None = None) -> bool:
        nonlocal kept
        kept += 1
        if kept > 1:
            raise StoreError("redis: cannot be reached; start it")
        return await put(name, value, ttl_s=ttl_s)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(shelf, "put", goes_away)
        with pytest.raises(DeliveryError):
            await connector.send(HERE, Reply(text=THREE), TURN)
    sent = await connector.send(HERE, Reply(text=THREE), TURN)

    assert sent.status == "ok"
    assert opened(service.shown()) == WHOLE


async def test_what_cannot_be_noted_is_not_sent(
    service: TelegramService,
    connector: Telegram,
    shelf: DictShelf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: object, **__: object) -> bool:
        raise StoreError("redis: cannot be reached; start it")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(shelf, "put", away)
        with pytest.raises(DeliveryError) as error:
            await connector.send(HERE, Reply(text="Five."), TURN)
    before = service.shown()
    await connector.send(HERE, Reply(text="Five."), TURN)

    assert error.value.retryable
    assert before == []
    assert service.shown() == ["Five."]


@pytest.mark.parametrize(
    "why",
    [
        "can't parse entities: unsupported type",
        "entity begins in a middle of a UTF-16 symbol at byte offset 4",
        "ENTITY_BOUNDS_INVALID",
    ],
)
async def test_entities_that_are_refused_cost_the_formats_only(
    service: TelegramService, connector: Telegram, why: str
) -> None:
    service.fail("sendMessage", BadRequest(why))

    sent = await connector.send(HERE, Reply(text="**Five** days."), TURN)

    assert sent.status == "ok"
    assert service.shown() == ["Five days."]
    assert "entities" not in service.last()


async def test_a_reply_that_is_refused_is_not_tried_again(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("sendMessage", BadRequest("not enough rights to send text messages"))

    with pytest.raises(DeliveryError, match="rights") as error:
        await connector.send(HERE, Reply(text="Five."), TURN)

    assert not error.value.retryable


async def test_who_blocked_the_bot_is_called_no_more_until_they_come_back(
    service: TelegramService, connector: Telegram
) -> None:
    service.chats[ANN.id].shut = "bot was blocked by the user"
    outcomes_: list[DeliveryError] = []
    for turn in (TURN, OTHER):
        with pytest.raises(DeliveryError) as error:
            await connector.send(HERE, Reply(text="Five."), turn)
        outcomes_.append(error.value)
    calls = len(service.called("sendMessage"))

    async with listening(connector) as core:
        service.unblock()
        service.say("hello")
        await core.next()
    await connector.send(HERE, Reply(text="Welcome back."), "f" * 16)

    assert [one.retryable for one in outcomes_] == [False, False]
    assert calls == 1
    assert service.shown() == ["Welcome back."]


async def test_who_writes_again_is_answered_again_whatever_was_missed(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("sendMessage", Forbidden("bot was blocked by the user"))
    with pytest.raises(DeliveryError):
        await connector.send(HERE, Reply(text="Five."), TURN)

    async with listening(connector) as core:
        service.say("hello")
        asked = await core.next()
        await connector.send(asked.address, Reply(text="Hello."), OTHER)

    assert service.shown() == ["Hello."]


async def test_a_block_that_was_told_saves_the_call(
    service: TelegramService, connector: Telegram
) -> None:
    async with listening(connector):
        service.block()
        await service.until(lambda: not service.pending)

    with pytest.raises(DeliveryError):
        await connector.send(HERE, Reply(text="Five."), TURN)

    assert service.called("sendMessage") == []


async def test_a_wall_on_the_way_says_nothing_about_the_chat(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    service.fail("sendMessage", Status(403))

    with pytest.raises(DeliveryError) as error:
        await connector.send(HERE, Reply(text="Five."), TURN)
    time.now += error.value.retry_after_s or 0
    await connector.send(HERE, Reply(text="Five."), TURN)

    assert error.value.retryable
    assert service.shown() == ["Five."]


async def test_a_group_that_moved_is_followed_and_its_conversation_goes_on(
    service: TelegramService, connector: Telegram
) -> None:
    group = service.group()
    old = address(group, ANN.id)
    service.updates.asked_for = ["callback_query"]  # nobody hears that it moves
    new = service.migrate(group)

    await connector.send(old, Reply(text="Five."), TURN)
    async with listening(connector) as core:
        service.updates.asked_for = ["message"]
        service.say("@chorus_bot and?", chat=new)
        told = await core.next()
    await connector.send(told.address, Reply(text="Six."), OTHER)

    assert service.shown(new) == ["Five.", "Six."]
    assert told.address.key == old.key
    assert len(service.called("sendMessage", chat=group)) == 1


async def test_a_reply_in_a_group_quotes_the_question_and_stays_in_its_topic(
    service: TelegramService, connector: Telegram
) -> None:
    forum = service.supergroup(forum=True)
    topic = service.topic(forum)
    async with listening(connector) as core:
        first = service.say("@chorus_bot one?", chat=forum, thread=topic)
        asked = await core.next()
        service.say("@chorus_bot two?", chat=forum, thread=topic, user=BEN)
        await core.next()

    await connector.send(asked.address, Reply(text=THREE), TURN)

    (one, *more) = [
        service.message(forum, int(one))
        for one in (await connector.send(asked.address, Reply(text=THREE), TURN)).ids
    ]
    assert (
        one["reply_to_message"]["message_id"],
        *(message.get("reply_to_message") for message in more),
    ) == (first["message"]["message_id"], None, None)
    assert opened(service.shown(forum, topic)) == WHOLE


async def test_a_question_that_was_deleted_is_answered_all_the_same(
    service: TelegramService, connector: Telegram
) -> None:
    group = service.supergroup()
    async with listening(connector) as core:
        first = service.say("@chorus_bot one?", chat=group)
        asked = await core.next()
        await service.until(lambda: not service.pending)
    del service.chats[group].messages[first["message"]["message_id"]]

    await connector.send(asked.address, Reply(text="Five."), TURN)

    assert service.shown(group) == ["Five."]


async def test_no_more_than_twenty_calls_a_minute_reach_a_group(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    service.clock = time
    group = service.supergroup()
    here = address(group, ANN.id)

    for number in range(60):
        await connector.status(here, "Thinking …")
        await connector.frame(here, f"frame {number}")
        sent = False
        while not sent:
            try:
                await connector.send(here, Reply(text=f"{number}"), f"{number:016x}")
                sent = True
            except DeliveryError as later:
                time.now += later.retry_after_s or 0

    assert service.shown(group) == [f"{number}" for number in range(60)]
    assert service.busiest_minute(group) <= 20


async def test_a_reply_that_would_wait_long_gives_its_place_to_others(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    group = service.supergroup()
    many = "\n\n".join("word " * 700 for _ in range(20))
    begun = time.now

    with pytest.raises(DeliveryError) as error:
        await connector.send(address(group), Reply(text=many), TURN)

    assert error.value.retryable
    assert time.now - begun < sending.ROUND_S + 10


async def test_buttons_and_feedback_come_back_as_events_and_their_spinner_ends(
    service: TelegramService, connector: Telegram
) -> None:
    reply = Reply(
        text="Which?", buttons=[Button(text="By card", payload="card")], feedback=True
    )
    await connector.send(HERE, reply, TURN)

    async with listening(connector) as core:
        service.press(service.last(), "By card")
        button = await core.next()
        service.press(service.last(), "👍")
        feedback = await core.next()
        await service.until(lambda: not service.unanswered)
        await service.until(lambda: service.called("editMessageReplyMarkup"))
        rows = service.last()["reply_markup"]["inline_keyboard"]

    assert (button.kind, button.data) == ("button", {"turn": TURN, "button": 0})
    assert (feedback.kind, feedback.data) == ("feedback", {"turn": TURN, "rating": 1})
    assert [one["text"] for row in rows for one in row] == ["By card", "👍 ✓", "👎"]


async def test_a_spinner_ends_after_the_press_is_durable(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.send(HERE, Reply(text="Five.", feedback=True), TURN)

    async with listening(connector) as core:
        core.gate.clear()
        service.press(service.last(), "👎")
        await core.next()
        early = service.called("answerCallbackQuery")
        core.gate.set()
        await service.until(lambda: not service.unanswered)

    assert early == []


async def test_a_press_that_cannot_be_answered_any_more_still_counts(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.send(HERE, Reply(text="Five.", feedback=True), TURN)
    service.fail("answerCallbackQuery", BadRequest("query is too old"))

    async with listening(connector) as core:
        service.press(service.last(), "👎")
        await core.next()
        service.say("hello")
        await core.next()
        await service.until(lambda: not service.pending)

    assert [event.kind for event in core.events] == ["feedback", "message"]


async def test_without_the_setting_there_are_no_feedback_buttons(
    service: TelegramService,
) -> None:
    connector = a_telegram(service, feedback=False)
    service.private()

    await connector.send(HERE, Reply(text="Five.", feedback=True), TURN)
    await connector.bot_stopped()

    assert "reply_markup" not in service.last()


async def test_a_reaction_to_any_part_of_a_reply_judges_its_turn(
    service: TelegramService, connector: Telegram
) -> None:
    forum = service.supergroup(forum=True, admin=True)
    topic = service.topic(forum)
    here = address(forum, ANN.id, topic)
    sent = await connector.send(here, Reply(text=THREE), TURN)

    async with listening(connector) as core:
        # Before that nobody has asked for reactions.
        await service.until(lambda: service.updates.asked_for)
        service.react(service.message(forum, int(sent.ids[1])), "👍", user=BEN)
        judged = await core.next()
        other = service.say("not the bot's", chat=forum)["message"]
        service.react(other, "👎")
        service.say("@chorus_bot hello", chat=forum)
        after = await core.next()

    assert (judged.kind, judged.data) == ("feedback", {"turn": TURN, "rating": 1})
    assert judged.address == address(forum, BEN.id, topic)
    assert after.kind == "message"


async def test_typing_is_said_again_until_it_is_over(
    service: TelegramService, shelf: DictShelf
) -> None:
    service.private()
    ticks: asyncio.Queue[None] = asyncio.Queue()
    slept: list[float] = []

    async def tick(seconds: float) -> None:
        slept.append(seconds)
        await ticks.get()

    settings = {"token": TOKEN, "api_url": service.api_url}
    connector = Telegram(Telegram.Settings.model_validate(settings), sleep=tick)
    connector.keep_on(shelf)

    await connector.status(HERE, "Thinking …")
    at_first = len(service.typing)
    ticks.put_nowait(None)
    await service.until(lambda: len(service.typing) == 2)
    await connector.status(HERE, "")
    ticks.put_nowait(None)
    await connector.send(HERE, Reply(text="Five."), TURN)
    await connector.bot_stopped()

    assert at_first == 1
    assert set(slept) == {4.0}
    assert len(service.typing) == 2


async def test_a_reply_ends_typing(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.status(HERE, "Thinking …")

    await connector.send(HERE, Reply(text="Five."), TURN)

    assert connector._service()._presence._typing == {}


async def test_a_status_that_fails_is_no_error(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("sendChatAction", Forbidden("bot was blocked by the user"))

    await connector.status(HERE, "Thinking …")
    await connector.status(HERE, "")


async def test_a_business_chat_is_answered_over_its_connection(
    service: TelegramService, connector: Telegram
) -> None:
    async with listening(connector) as core:
        service.business("hello", connection="c1", user=BEN)
        asked = await core.next()
        await connector.status(asked.address, "Thinking …")
        await connector.frame(asked.address, "Fi")
        await connector.send(asked.address, Reply(text="Five."), TURN)

    assert service.shown(BEN.id) == ["Five."]
    assert service.drafts(BEN.id) == []


# What an error of the library means


def test_every_error_of_the_library_has_its_meaning() -> None:
    classes = {
        one
        for _, one in inspect.getmembers(telegram.error, inspect.isclass)
        if issubclass(one, Exception)
    }

    assert classes <= set(outcomes._KINDS)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (httpx.ConnectTimeout("x"), "later"),
        (httpx.PoolTimeout("x"), "later"),
        (httpx.ConnectError("x"), "later"),
        (httpx.ReadTimeout("x"), "unknown"),
        (httpx.WriteTimeout("x"), "unknown"),
        (httpx.ReadError("x"), "unknown"),
        (httpx.RemoteProtocolError("x"), "unknown"),
        (None, "unknown"),
    ],
)
@pytest.mark.parametrize("made", [telegram.error.TimedOut, telegram.error.NetworkError])
def test_only_what_was_not_written_is_safe_to_send_again(
    made: type[telegram.error.NetworkError], cause: Exception | None, kind: str
) -> None:
    error = made("Timed out")
    error.__cause__ = cause

    assert failure(error).kind == kind


def test_who_has_to_wait_is_told_how_long() -> None:
    assert failure(TooMany(7)).after_s == 7
    assert failure(Unavailable("Status 502")).after_s == outcomes.AWAY_S
    assert failure(telegram.error.InvalidToken()).after_s == outcomes.TOKEN_S


async def test_a_token_that_was_taken_back_waits_for_the_operator(
    service: TelegramService, shelf: DictShelf
) -> None:
    connector = a_telegram(service, shelf=shelf, token="77:another-one")  # noqa: S106

    with pytest.raises(DeliveryError) as error:
        await connector.send(HERE, Reply(text="Five."), TURN)
    await connector.bot_stopped()

    assert error.value.retryable
    assert "another-one" not in str(error.value)


async def test_the_token_and_the_words_are_in_no_line_and_no_error(
    service: TelegramService,
    connector: Telegram,
    time: FakeTime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = TOKEN.partition(":")[2]
    service.fail(
        "sendMessage",
        Status(502),
        BadRequest(f"no idea what /bot{TOKEN}/ is"),
        DropAfter(),
        Garbage(f"no JSON, {TOKEN}".encode()),
    )

    told = []
    for number in range(6):
        time.now += 60
        try:
            await connector.send(HERE, Reply(text="canary"), f"{number:016x}")
        except DeliveryError as error:
            told.append(str(error))

    lines = [(one.levelno, one.getMessage(), one.exc_text) for one in caplog.records]
    assert len(told) == 2
    assert secret not in "".join(told)
    assert not [one for one in lines if secret in f"{one}"]
    assert not [one for one in lines if one[0] >= logging.INFO and "canary" in f"{one}"]


async def test_a_reply_on_its_way_keeps_its_connection_when_the_bot_stops_listening(
    service: TelegramService, connector: Telegram
) -> None:
    api = connector._service()._api
    calling = asyncio.create_task(api.call("getMe"))
    service.fail("getMe", Hang())
    await service.until(lambda: service.called("getMe"))
    assert api._calls._open is not None
    connections = api._calls._open.connections._client

    await api.let_go()
    closed = [connections.is_closed]
    calling.cancel()
    await asyncio.wait({calling})
    closed.append(connections.is_closed)

    assert closed == [False, True]


def test_calls_that_hide_the_token_do() -> None:
    api = bot_api.BotApi(token=TOKEN, api_url="https://api.telegram.org")

    assert TOKEN not in api.hide_token(f"a {TOKEN} b")
