"""Updates by a webhook: who may bring them, and when they count as taken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import orjson
import pytest
import yaml

from bot.errors import StoreError
from bot.interfaces import WebRequest
from connectors.telegram import Telegram, webhook
from connectors.telegram.parsing import KINDS
from tests.connectors.telegram.chats import BOT
from tests.connectors.telegram.service import TelegramService
from tests.connectors.telegram.talking import (
    TURN,
    Core,
    FakeTime,
    a_telegram,
    listening,
)
from tests.connectors.telegram.wire import DropAfter, Hang, Status

SECRET = "Correct-Horse_9"  # noqa: S105 (of nothing)
SECRETS = {"secret_token"}
URL = "https://bot.example/below"
SET: dict[str, Any] = {"mode": "webhook", "url": URL, "secret_token": SECRET}


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def connector(service: TelegramService, time: FakeTime) -> Telegram:
    return a_telegram(service, clock=time, **SET)


@pytest.fixture
async def core(service: TelegramService, connector: Telegram) -> AsyncIterator[Core]:
    # Its first look would be at once: no time passes here.
    service.fail("getWebhookInfo", Hang())
    async with listening(connector) as heard:
        await service.until(lambda: service.webhook)
        yield heard


def a_request(update: Any, **more: Any) -> WebRequest:
    made = {
        "method": "POST",
        "path": "/telegram/webhook",
        "headers": {webhook.SECRET_HEADER: SECRET},
        "body": update if isinstance(update, bytes) else orjson.dumps(update),
    }
    return WebRequest(**{**made, **more})


async def test_telegram_is_told_where_to_bring_what(
    service: TelegramService, core: Core
) -> None:
    assert service.webhook == {
        "url": f"{URL}/telegram/webhook",
        "secret_token": SECRET,
        "allowed_updates": list(KINDS),
        "max_connections": webhook.CONNECTIONS,
    }


async def test_an_update_becomes_an_event_with_the_id_that_polling_gives_it(
    service: TelegramService, connector: Telegram, core: Core
) -> None:
    answer = await connector.respond(a_request(service.say("hello")))

    (event,) = core.events
    assert answer.status == 200
    assert (event.id, event.text) == ("telegram:77:1001", "hello")


async def test_it_is_answered_after_it_was_accepted(
    service: TelegramService, connector: Telegram, core: Core
) -> None:
    core.away = True
    said = service.say("hello")

    with pytest.raises(StoreError):
        await connector.respond(a_request(said))
    core.away = False
    answer = await connector.respond(a_request(said))

    assert answer.status == 200
    assert [event.text for event in core.events] == ["hello"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {webhook.SECRET_HEADER: ""},
        {webhook.SECRET_HEADER: SECRET.lower()},
        {webhook.SECRET_HEADER: SECRET[:-1]},
        {webhook.SECRET_HEADER: SECRET + "x"},
        {webhook.SECRET_HEADER: "é\udcff"},
        {"authorization": SECRET},
    ],
)
async def test_without_the_secret_nothing_is_read(
    service: TelegramService,
    connector: Telegram,
    core: Core,
    headers: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(_: bytes) -> None:
        raise AssertionError("it was read")

    said = a_request(service.say("hello"), headers=headers)
    monkeypatch.setattr("connectors.telegram.webhook.orjson.loads", read)
    answer = await connector.respond(said)
    monkeypatch.undo()

    assert answer.status == 403
    assert core.events == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (a_request(b"{"), 400),
        (a_request(b""), 400),
        (a_request(b"\xff\xfe"), 400),
        (a_request(b"[" * 100_000), 400),
        (a_request(b'{"update_id": NaN}'), 400),
        (a_request(b'{"update_id": 1, "message": {"text": "\\ud83d"}}'), 400),
        (a_request([]), 400),
        (a_request({"message": {}}), 400),
        (a_request({"update_id": "1"}), 400),
        (a_request({"update_id": 1}), 200),
        (a_request({"update_id": 1, "message": {"chat": []}}), 200),
        (a_request(b"x" * (1024 * 1024 + 1)), 413),
        (a_request({}, method="GET"), 405),
        (a_request({}, method="HEAD"), 405),
        (a_request({}, path="/"), 404),
        (a_request({}, path="/telegram/webhook/"), 404),
    ],
)
async def test_whatever_comes_gets_an_answer_and_is_no_event(
    connector: Telegram, core: Core, request_: WebRequest, status: int
) -> None:
    answer = await connector.respond(request_)

    assert answer.status == status
    assert core.events == []


async def test_before_it_runs_and_after_telegram_is_told_to_come_again(
    service: TelegramService, connector: Telegram
) -> None:
    said = a_request(service.say("hello"))
    before = await connector.respond(said)
    async with listening(connector):
        await service.until(lambda: service.webhook)
    after = await connector.respond(said)

    assert (before.status, after.status) == (503, 503)


async def test_on_the_way_out_the_webhook_stays(
    service: TelegramService, connector: Telegram
) -> None:
    async with listening(connector):
        await service.until(lambda: service.webhook)

    assert service.webhook["url"] == f"{URL}/telegram/webhook"


async def test_a_webhook_is_set_however_often_that_fails(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("setWebhook", Status(502), DropAfter(), Status(500))
    service.fail("getWebhookInfo", Hang())

    async with listening(connector):
        await service.until(lambda: len(service.called("setWebhook")) == 4)
        await service.until(lambda: connector.trouble() is None)

    assert service.webhook


async def test_a_press_is_answered_after_the_request_was(
    service: TelegramService, connector: Telegram, core: Core
) -> None:
    keyboard = {"inline_keyboard": [[{"text": "A", "callback_data": f"b:{TURN}:0"}]]}
    message = service.put(
        service.private(), BOT, {"text": "?", "reply_markup": keyboard}
    )

    answer = await connector.respond(a_request(service.press(message, "A")))
    await service.until(lambda: not service.unanswered)

    assert answer.status == 200
    assert core.events[0].kind == "button"


async def test_a_webhook_that_somebody_took_away_is_trouble(
    service: TelegramService, time: FakeTime
) -> None:
    connector = a_telegram(service, clock=time, **SET)

    async with listening(connector):
        await service.until(lambda: service.webhook)
        service.webhook = {**service.webhook, "url": "https://another.example"}
        await service.until(connector.trouble)
        taken = connector.trouble()
        service.webhook["url"] = f"{URL}/telegram/webhook"
        await service.until(lambda: connector.trouble() is None)

    assert taken is not None
    assert "another" in taken


def test_updates_that_wait_behind_errors_are_trouble_old_errors_are_not() -> None:
    there = {"url": URL, "last_error_message": "Wrong response: 502"}

    waiting = webhook.what_is_wrong({**there, "pending_update_count": 3}, URL)
    over = webhook.what_is_wrong({**there, "pending_update_count": 0}, URL)

    assert waiting is not None
    assert "502" in waiting
    assert over is None


async def test_what_is_set_up_wrong_is_found(
    service: TelegramService, connector: Telegram
) -> None:
    missing = (await connector.inspect())[-1]
    service.webhook = {"url": f"{URL}/telegram/webhook"}
    there = (await connector.inspect())[-1]

    assert (missing.well, there.well) == (False, True)
    assert connector.paths == ["/telegram/webhook"]


def test_the_settings_in_the_documentation_work() -> None:
    page = (Path(__file__).parents[3] / "docs" / "telegram.md").read_text()
    examples = [
        yaml.safe_load(dedent(block.partition("```")[0]))
        for block in page.split("```yaml\n")[1:]
    ]

    for example in examples:
        (connector,) = example["connectors"]
        given = {
            name: "77:abc" if name == "token" else "abc" if name in SECRETS else value
            for name, value in connector["settings"].items()
        }
        made = Telegram(Telegram.Settings.model_validate(given))
        assert connector["use"] == made.name
    assert len(examples) == 2
    for setting in Telegram.Settings.model_fields:
        assert f"`{setting}`" in page
