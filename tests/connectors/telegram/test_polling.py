"""Updates by polling: confirmed when they are durable, and never lost or stuck on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from bot.errors import ConfigError
from bot.interfaces import (
    AnswersRequests,
    Finds,
    Inspects,
    Keeps,
    ShowsFrames,
    TellsTrouble,
)
from connectors.telegram import Telegram, polling
from connectors.telegram.parsing import KINDS
from tests.connectors.telegram.chats import ANN, BEN
from tests.connectors.telegram.service import TOKEN, TelegramService
from tests.connectors.telegram.talking import (
    Core,
    FakeTime,
    a_telegram,
    listening,
)
from tests.connectors.telegram.wire import (
    Conflict,
    DropAfter,
    FloodWait,
    Garbage,
    Hang,
    Result,
    Status,
    Well,
)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def connector(service: TelegramService, time: FakeTime) -> Telegram:
    return a_telegram(service, clock=time)


@pytest.fixture
async def core(service: TelegramService, connector: Telegram) -> AsyncIterator[Core]:
    async with listening(connector) as heard:
        await service.until(lambda: service.called("getUpdates"))
        yield heard


async def test_what_is_wanted_is_named(service: TelegramService, core: Core) -> None:
    (call, *_) = service.called("getUpdates")

    assert call.args["allowed_updates"] == list(KINDS)
    assert "offset" not in call.args  # Telegram knows what is confirmed


async def test_an_update_is_confirmed_after_it_was_accepted(
    service: TelegramService, core: Core
) -> None:
    core.gate.clear()
    said = service.say("hello")
    await core.next()
    early = service.confirmed
    core.gate.set()
    await service.until(lambda: service.confirmed == said["update_id"])

    assert early == 0


async def test_only_what_came_before_a_failure_is_confirmed(
    service: TelegramService, connector: Telegram
) -> None:
    first, second, *_ = [service.say(text) for text in ("one", "two", "three")]
    core = Core()
    core.away_for = {"two"}

    async with listening(connector, core):
        await service.until(lambda: len(service.called("getUpdates")) >= 3)
        confirmed = service.confirmed
        core.away_for.clear()
        await service.until(lambda: not service.pending)

    assert confirmed == first["update_id"] < second["update_id"]
    assert [event.text for event in core.events] == ["one", "two", "three"]


async def test_a_store_that_is_away_is_waited_for_ever_longer(
    service: TelegramService, core: Core, time: FakeTime
) -> None:
    core.away = True
    service.say("hello")
    await service.until(lambda: len(time.slept) >= 7)
    core.away = False
    await service.until(lambda: not service.pending)

    assert time.slept[:7] == [1, 2, 4, 5, 5, 5, 5]
    assert {event.id for event in core.events} == {"telegram:77:1001"}


async def test_a_slow_chat_holds_up_no_other_and_keeps_its_order(
    service: TelegramService, connector: Telegram
) -> None:
    service.say("one", user=ANN)
    service.say("two", user=ANN)
    service.say("other", user=BEN)

    async with listening(connector) as core:
        core.gate.clear()
        first = {(await core.next()).text, (await core.next()).text}
        at_once = core.heard.empty()
        core.gate.set()
        last = await core.next()

    assert first == {"one", "other"}
    assert at_once
    assert last.text == "two"


async def test_what_makes_no_sense_is_skipped_and_confirmed(
    service: TelegramService, core: Core
) -> None:
    for content in ({}, {"chat": 1}, {"chat": {"id": "x"}, "text": 5}):
        service.other("message", content)
    service.updates.asked_for = ()
    service.other("something_new", {"chat": {"id": 1}})
    service.other("poll", "not even an object")
    service.say("hello")

    event = await core.next()
    await service.until(lambda: not service.pending)

    assert event.text == "hello"


@pytest.mark.parametrize(
    "strange",
    [
        {},
        "x",
        [1, None, "x"],
        [{"message": {}}],
        [{"update_id": "7"}],
        [{"update_id": -1}],
        [{"update_id": 2**62}],
    ],
)
async def test_an_answer_that_is_none_moves_nothing(
    service: TelegramService, connector: Telegram, strange: object, time: FakeTime
) -> None:
    service.fail("getUpdates", Result(strange))
    said = service.say("hello")

    async with listening(connector) as core:
        event = await core.next()
        await service.until(lambda: service.confirmed == said["update_id"])

    assert time.slept[:1] == [1]  # the same might come at once, for ever
    assert event.text == "hello"


@pytest.mark.parametrize(
    "fault", [Status(502), FloodWait(3), Garbage(), DropAfter(), Status(404)]
)
async def test_whatever_fails_is_tried_again_and_nothing_is_lost(
    service: TelegramService, connector: Telegram, fault: object
) -> None:
    service.fail("getUpdates", fault, Well(), fault)  # type: ignore[arg-type]  # a fault
    said = [service.say(text) for text in ("one", "two")]

    async with listening(connector) as core:
        await service.until(lambda: service.confirmed == said[-1]["update_id"])
        await service.until(lambda: connector.trouble() is None)

    assert [event.text for event in core.events] == ["one", "two"]


async def test_a_penalty_is_kept(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    service.fail("getUpdates", FloodWait(17))

    async with listening(connector):
        await service.until(lambda: len(service.called("getUpdates")) >= 2)

    assert time.slept == [17]


async def test_another_poller_is_told_once_and_got_over(
    service: TelegramService, connector: Telegram, caplog: pytest.LogCaptureFixture
) -> None:
    service.fail("getUpdates", Conflict(), Conflict(), Well(), Conflict(), Hang())

    async with listening(connector):
        await service.until(lambda: len(service.called("getUpdates")) == 5)
        trouble = connector.trouble()

    told = [
        one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING
    ]
    assert trouble == polling.ANOTHER
    assert told == [polling.ANOTHER]


async def test_a_webhook_that_is_set_is_told_and_left_alone(
    service: TelegramService, connector: Telegram, caplog: pytest.LogCaptureFixture
) -> None:
    service.webhook = {"url": "https://somebody.example"}

    async with listening(connector) as core:
        await service.until(lambda: connector.trouble() == polling.WEBHOOK_SET)
        await service.until(lambda: len(service.called("getUpdates")) >= 3)
        still = service.webhook
        service.webhook = {}
        service.say("hello")
        event = await core.next()
        await service.until(lambda: connector.trouble() is None)

    assert still == {"url": "https://somebody.example"}
    assert service.called("deleteWebhook") == []
    assert event.text == "hello"
    assert caplog.text.count(polling.WEBHOOK_SET) == 1


async def test_a_poll_that_is_never_answered_is_noticed_and_got_over(
    service: TelegramService,
    connector: Telegram,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling.Poller.__init__, "__defaults__", (0.0, 0.1))
    service.fail("getUpdates", Hang(), Hang())

    async with listening(connector) as core:
        await service.until(lambda: connector.trouble() == polling.SILENT)
        line = connector._service()._api._polls._open
        service.say("hello")
        event = await core.next()
        await service.until(lambda: connector.trouble() is None)
        fresh = connector._service()._api._polls._open

    assert event.text == "hello"
    assert fresh is not line
    assert caplog.text.count(polling.SILENT) == 1


async def test_a_network_that_stays_away_is_trouble_a_moment_of_it_is_not(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("getUpdates", Status(502), Well(), *[Status(502)] * 3, Hang())
    seen = []

    async with listening(connector):
        for calls in (2, 6):
            service.say("hello")
            await service.until(lambda n=calls: len(service.called("getUpdates")) >= n)  # type: ignore[misc]  # n is bound
            seen.append(connector.trouble())

    assert seen == [None, polling.AWAY]


async def test_a_token_that_telegram_does_not_know_ends_it_with_a_sentence(
    service: TelegramService,
) -> None:
    connector = a_telegram(service, token="77:no-such-bot")  # noqa: S106

    with pytest.raises(ConfigError, match=r"settings\.token.*BotFather") as error:
        await connector.run(Core().accept)

    assert "no-such-bot" not in str(error.value)


async def test_telegram_may_be_away_when_the_bot_starts(
    service: TelegramService, connector: Telegram, time: FakeTime
) -> None:
    service.fail("getMe", Status(502), Status(502), DropAfter())
    service.say("hello")

    async with listening(connector) as core:
        event = await core.next()
        await service.until(lambda: connector.trouble() is None)

    assert event.text == "hello"
    assert time.slept[:3] == [3, 3, 4]


async def test_commands_are_offered_and_need_not_be(
    service: TelegramService, connector: Telegram
) -> None:
    async with listening(connector):
        await service.until(lambda: service.commands)
    offered = {one["command"] for one in service.commands}
    service.fail("setMyCommands", Status(502))
    service.say("hello")
    async with listening(connector) as core:
        event = await core.next()

    assert {"help", "why", "stop", "forget", "human", "bot"} == offered
    assert event.text == "hello"


async def test_to_end_it_leaves_nothing_open(
    service: TelegramService, connector: Telegram
) -> None:
    async with listening(connector):
        await service.until(lambda: service.called("getUpdates"))
        polls = connector._service()._api._polls._open

    assert polls is not None
    assert polls.connections._client.is_closed


def test_it_is_all_that_the_core_may_ask_of_it(connector: Telegram) -> None:
    for protocol in (
        Finds,
        ShowsFrames,
        Keeps,
        AnswersRequests,
        Inspects,
        TellsTrouble,
    ):
        assert isinstance(connector, protocol)
    assert connector.paths == []  # nobody may push where the bot polls
    assert connector.trouble() is None


# Settings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"token": "nonsense"}, ["settings.token", "@BotFather"]),
        ({"token": "77:"}, ["settings.token"]),
        ({"token": "77:a b"}, ["settings.token"]),
        ({"token": "\N{SUPERSCRIPT TWO}:abc"}, ["settings.token"]),
        ({"api_url": "http://example.org"}, ["settings.api_url", "https"]),
        ({"url": "https://bot.example"}, ["settings.mode", "webhook"]),
        ({"secret_token": "abc"}, ["settings.mode", "webhook"]),
        (
            {"mode": "webhook"},
            ["settings.url", "settings.secret_token", "openssl rand"],
        ),
        (
            {"mode": "webhook", "url": "http://x", "secret_token": "a b"},
            ["settings.url", "settings.secret_token"],
        ),
        (
            {"mode": "webhook", "url": "https://x", "secret_token": "a" * 257},
            ["settings.secret_token"],
        ),
        (
            {
                "mode": "webhook",
                "url": "https://x",
                "secret_token": "a",
                "path": "hook",
            },
            ["settings.path", "slash"],
        ),
    ],
)
def test_settings_that_cannot_work_are_told_to_the_operator(
    settings: dict[str, str], told: list[str]
) -> None:
    given = Telegram.Settings.model_validate({"token": TOKEN, **settings})

    with pytest.raises(ConfigError) as error:
        Telegram(given)

    for each in ("plugin 'telegram'", *told):
        assert each in str(error.value)
    for secret in ("nonsense", "a b", "a" * 257):
        assert secret not in str(error.value)


def test_secrets_are_not_shown_with_the_settings() -> None:
    settings = Telegram.Settings.model_validate({"token": TOKEN, "secret_token": "abc"})

    assert TOKEN not in f"{settings!r} {settings.model_dump(mode='json')}"


# Whether it is set up right


async def test_a_bot_that_is_set_up_right_has_only_good_findings(
    service: TelegramService, connector: Telegram
) -> None:
    found = await connector.inspect()

    assert all(one.well for one in found)
    assert "@chorus_bot" in found[0].told
    assert "/setprivacy" in found[1].told


async def test_who_reads_everything_in_groups_is_told(
    service: TelegramService, connector: Telegram
) -> None:
    service.privacy = False

    found = await connector.inspect()

    assert "every message" in found[1].told


async def test_a_webhook_in_the_way_is_found(
    service: TelegramService, connector: Telegram
) -> None:
    service.webhook = {"url": "https://somebody.example"}

    found = await connector.inspect()

    assert [one.told for one in found if not one.well] != []
    assert "deleteWebhook" in found[-1].told


@pytest.mark.parametrize(
    ("token", "words"), [("77:no-such-bot", "BotFather"), (TOKEN, "network")]
)
async def test_what_cannot_be_asked_is_a_finding(
    service: TelegramService, token: str, words: str
) -> None:
    connector = a_telegram(service, token=token)
    service.fail("getMe", Status(502))

    if token != TOKEN:
        service._script.left.clear()
    (found,) = await connector.inspect()

    assert not found.well
    assert words in found.told
    assert token.partition(":")[2] not in found.told


async def test_to_inspect_needs_no_store(service: TelegramService) -> None:
    settings = {"token": TOKEN, "api_url": service.api_url}
    connector = Telegram(Telegram.Settings.model_validate(settings))

    assert len(await connector.inspect()) == 3


async def test_a_run_that_is_cancelled_while_it_starts_ends(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("getMe", Hang())
    running = asyncio.create_task(connector.run(Core().accept))
    await service.until(lambda: service.called("getMe"))

    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=5)

    assert done == {running}
