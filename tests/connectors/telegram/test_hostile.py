"""
What anybody may send to the webhook, and what no Telegram would answer to a poll.

Nothing gets in without the secret, nothing but an update that means something becomes
an event, and whatever comes is answered with a status that Telegram understands. No
line of the log says a word of a body, or the token.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import string
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from bot.errors import ConfigError, StoreError
from bot.interfaces import Accepted, WebRequest
from bot.model import Event
from connectors.telegram import Telegram
from tests.connectors.telegram import corpus, wire
from tests.connectors.telegram.chats import ANN, BOT
from tests.connectors.telegram.service import TOKEN, TelegramService
from tests.connectors.telegram.shelf import DictShelf
from tests.connectors.telegram.whole_bot import a_connector

pytestmark = pytest.mark.slow  # test-fast does without

SECRET = "Correct-Horse_9"  # noqa: S105 (of nothing)
HEADER = "x-telegram-bot-api-secret-token"
PATH = "/telegram/webhook"
FINE = {200, 400, 401, 403, 404, 405, 413}
KINDS = {"message", "command", "button", "cancel", "feedback"}
EVENT = TypeAdapter(Event)


@dataclass
class Door:
    """A connector at its webhook, and what it took."""

    connector: Telegram
    events: list[Event] = field(default_factory=list)
    fails: bool = False

    async def accept(self, event: Event) -> Accepted:
        if self.fails:
            raise StoreError("redis: away; wait")
        self.events.append(event)
        return "accepted"

    async def respond(
        self, body: bytes, secret: str | None = SECRET, **more: Any
    ) -> int:
        headers = {"content-type": "application/json"}
        if secret is not None:
            headers[HEADER] = secret
        request = WebRequest(
            **{
                "method": "POST",
                "path": PATH,
                "headers": headers,
                "body": body,
                **more,
            }
        )
        return (await self.connector.respond(request)).status


@asynccontextmanager
async def a_door(service: TelegramService) -> AsyncIterator[Door]:
    connector = a_connector(
        service, mode="webhook", url="https://bot.example", secret_token=SECRET
    )
    connector.keep_on(DictShelf())
    door = Door(connector)
    before = len(service.called("setWebhook"))
    running = asyncio.create_task(connector.run(door.accept))
    try:
        await service.until(lambda: len(service.called("setWebhook")) > before)
        yield door
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await connector.bot_stopped()


@pytest.fixture
async def door(service: TelegramService) -> AsyncIterator[Door]:
    async with a_door(service) as opened:
        yield opened


def an_update(text: str = "hello", update_id: int = 1) -> bytes:
    service_side = corpus.real_updates()[0]
    message = {**service_side["message"], "text": text, "chat": CHAT}
    message.pop("is_topic_message", None)
    message.pop("message_thread_id", None)
    message.pop("forum_topic_created", None)
    return orjson.dumps({"update_id": update_id, "message": message})


CHAT = {"id": ANN.id, "type": "private", "first_name": "Ann"}


# Who may come in


async def test_with_the_secret_an_update_comes_in(door: Door) -> None:
    status = await door.respond(an_update())

    assert status == 200
    assert [(event.kind, event.text) for event in door.events] == [("message", "hello")]


@pytest.mark.parametrize(
    "secret",
    [
        None,
        "",
        "another",
        SECRET.lower(),
        SECRET.upper(),
        SECRET.swapcase(),
        SECRET[:-1],
        SECRET[1:],
        SECRET + "9",
        SECRET + " ",
        " " + SECRET,
        SECRET + "\x00",
        SECRET + "\n",
        SECRET * 1000,
        "Corréct-Horse_9",
        "\udcff" + SECRET[1:],
        f"Bearer {SECRET}",
    ],
)
@pytest.mark.parametrize("body", [an_update(), b"<<<", b"[" * 100_000])
async def test_without_the_secret_nothing_comes_in(
    door: Door, secret: str | None, body: bytes
) -> None:
    status = await door.respond(body, secret)

    assert status in {401, 403}
    assert door.events == []


async def test_the_secret_counts_in_its_header_alone(door: Door) -> None:
    for more in (
        {"query": {"secret_token": SECRET}},
        {"headers": {"authorization": SECRET}},
        {"headers": {"x-telegram-bot-api-secret-token-2": SECRET}},
        {"query": {HEADER: SECRET}},
    ):
        assert await door.respond(an_update(), None, **more) in {401, 403}

    assert door.events == []


async def test_other_methods_and_paths_take_nothing(door: Door) -> None:
    assert list(door.connector.paths) == [PATH]
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", "BREW"):
        assert await door.respond(an_update(), method=method) in FINE - {200}
    assert await door.respond(an_update(), path=f"{PATH}/more") in FINE - {200}

    assert door.events == []


async def test_what_could_not_be_kept_is_not_taken(door: Door) -> None:
    door.fails = True

    with pytest.raises(StoreError):
        await door.respond(an_update())


@pytest.mark.parametrize("missing", ["secret_token", "url"])
def test_a_webhook_is_not_opened_to_everybody(
    service: TelegramService, missing: str
) -> None:
    whole: dict[str, Any] = {"url": "https://bot.example", "secret_token": SECRET}

    with pytest.raises(ConfigError, match=missing):
        a_connector(service, mode="webhook", **{**whole, missing: None})


@pytest.mark.parametrize("secret", ["", "a b", "é", "x" * 257, "a\n"])
def test_a_secret_that_telegram_would_refuse_is_refused(
    service: TelegramService, secret: str
) -> None:
    with pytest.raises((ConfigError, ValueError)):
        a_connector(
            service, mode="webhook", url="https://bot.example", secret_token=secret
        )


# What may come in


@pytest.mark.parametrize("body", corpus.NO_UPDATES, ids=lambda body: repr(body[:24]))
async def test_what_is_no_update_becomes_no_event(door: Door, body: bytes) -> None:
    assert await door.respond(body) in {200, 400}

    assert door.events == []


async def test_ten_megabytes_are_answered_soon(door: Door) -> None:
    loop = asyncio.get_running_loop()

    for body in (
        an_update("x" * 10_000_000),
        b" " * 10_000_000,
        b"[" + b"1," * 5_000_000 + b"1]",
        b'{"update_id": 1, "message": {"entities": [' + b"{}," * 3_000_000 + b"{}]}}",
    ):
        begun = loop.time()
        assert await door.respond(body) in {200, 400, 413}
        assert loop.time() - begun < 5


async def test_wrong_values_at_every_key_are_answered(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    # Every seventh of them: the whole takes longer and is marked slow.
    bodies = itertools.islice(corpus.wrong_everywhere(), 0, None, 7)

    await all_are_answered(door, bodies, caplog)

    assert len(door.events) > 500


async def test_5_000_hostile_bodies_are_answered(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = itertools.islice(corpus.mutated(seed=1), 5_000)

    await all_are_answered(door, bodies, caplog)

    assert len(door.events) > 500


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_100_000_hostile_bodies_are_answered(
    service: TelegramService, caplog: pytest.LogCaptureFixture
) -> None:
    every = itertools.chain(corpus.wrong_everywhere(), corpus.mutated(seed=2))
    taken = 0
    for _ in range(20):
        # A new door now and then: each pressed button leaves a task behind.
        async with a_door(service) as door:
            await all_are_answered(door, itertools.islice(every, 5_000), caplog)
            taken += len(door.events)

    assert taken > 10_000


async def all_are_answered(
    door: Door, bodies: Iterable[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Send them all, with the secret, and look at statuses, events and log."""
    caplog.set_level(logging.INFO)
    statuses: Counter[int] = Counter()
    for body in bodies:
        try:
            async with asyncio.timeout(10):
                statuses[await door.respond(body)] += 1
        except Exception as error:
            raise AssertionError(f"{error!r} for {body[:2000]!r}") from error
    assert set(statuses) <= FINE
    for event in door.events:
        check(event)
    check_log(caplog)


def check(event: Event) -> None:
    """What comes in is what the model says: the store can write it and read it."""
    assert event.kind in KINDS
    address = event.address
    assert (address.platform, address.account.split("/")[0][:2]) == ("telegram", "77")
    assert address.chat.removeprefix("-").isdigit()
    assert event.id.startswith(f"telegram:{BOT.id}:")
    assert EVENT.validate_json(EVENT.dump_json(event)) == event
    if event.kind == "command":
        assert event.text.strip()
        assert not event.text.startswith("/")
    if event.kind in {"button", "feedback"}:
        assert isinstance(event.data["turn"], str)
    if event.kind == "button":
        assert type(event.data["button"]) is int
    if event.kind == "feedback":
        assert event.data["rating"] in (1, -1, 0)


def check_log(caplog: pytest.LogCaptureFixture) -> None:
    for record in caplog.records:
        line = f"{record.getMessage()} {record.exc_text or ''} {record.exc_info or ''}"
        assert corpus.CANARY not in line
        assert TOKEN not in line
        assert SECRET not in line


@pytest.fixture
def lasting_door() -> Iterator[tuple[asyncio.Runner, Door]]:
    """Give a door and the loop that it lives in, for a test that is no coroutine."""
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        service = runner.run(opened.enter_async_context(TelegramService()))
        yield runner, runner.run(opened.enter_async_context(a_door(service)))
        runner.run(opened.aclose())


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([CHAT, ANN.wire, "private", "/why", "bot_command", "mention"]),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "update_id",
                    "message",
                    "callback_query",
                    "message_reaction",
                    "my_chat_member",
                    "stopped_message_generation",
                    "chat",
                    "from",
                    "user",
                    "text",
                    "caption",
                    "entities",
                    "type",
                    "offset",
                    "length",
                    "id",
                    "data",
                    "message_id",
                    "message_thread_id",
                    "is_topic_message",
                    "new_reaction",
                    "emoji",
                    "reply_to_message",
                    "new_chat_member",
                    "status",
                    "draft_id",
                ]
            ),
            inside,
            max_size=8,
        )
    ),
    max_leaves=30,
)


@given(made=JSON_LIKE, update_id=st.integers() | st.none())
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_hypothesis_makes_up_is_answered(
    lasting_door: tuple[asyncio.Runner, Door], made: Any, update_id: Any
) -> None:
    if isinstance(made, dict) and update_id is not None:
        made = {**made, "update_id": update_id}
    runner, door = lasting_door
    bodies = [corpus.body(made), orjson.dumps({"update_id": 5, "message": _safe(made)})]

    statuses = {runner.run(door.respond(body)) for body in bodies}

    assert statuses <= {200, 400}
    for event in door.events:
        check(event)
    door.events.clear()


def _safe(made: Any) -> Any:
    """What orjson writes: no numbers beyond 64 bits, no half characters."""
    written = corpus.body(made)
    try:
        return orjson.loads(written)
    except orjson.JSONDecodeError:
        return None


async def test_a_replayed_update_has_the_id_that_it_had(door: Door) -> None:
    for _ in range(3):
        assert await door.respond(an_update(update_id=9)) == 200
    assert await door.respond(an_update("another", update_id=10)) == 200

    ids = [event.id for event in door.events]
    assert len(set(ids[:3])) == 1
    assert ids[3] != ids[0]


# What a poll may bring

NO_RESULTS: list[Any] = [
    None,
    True,
    0,
    "text",
    {},
    {"update_id": 1},
    [None],
    [1, "two", [3]],
    [{}],
    [{"update_id": None}],
    [{"update_id": "7"}],
    [{"update_id": 1.5}],
    [{"update_id": True}],
    [{"update_id": -1, "message": {}}],
    [{"update_id": 2**70, "message": {}}],
    [[[[]]]],
]


async def at_once(seconds: float) -> None:
    """Wait for no pause between two polls."""
    await asyncio.sleep(0)


async def heard_by_polling(service: TelegramService, *, wanted: int) -> list[Event]:
    """Poll until so many events were taken and confirmed."""
    connector = a_connector(service, sleep=at_once)
    connector.keep_on(DictShelf())
    door = Door(connector)
    running = asyncio.create_task(connector.run(door.accept))
    try:
        await service.until(
            lambda: (
                (len(door.events) >= wanted and not service.pending) or running.done()
            ),
            timeout_s=30,
        )
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await connector.bot_stopped()
    return door.events


@pytest.mark.parametrize("result", NO_RESULTS, ids=repr)
async def test_a_nonsense_result_does_not_stop_the_polling(
    service: TelegramService, result: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service.fail("getUpdates", wire.Result(result), wire.Garbage(), wire.Status(502))
    service.say("after it")

    events = await heard_by_polling(service, wanted=1)

    assert [event.text for event in events] == ["after it"]
    check_log(caplog)


async def test_no_update_is_stuck_on_for_ever(
    service: TelegramService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    values = itertools.cycle(filter(_is_json, corpus.HOSTILE))
    hostile = 0
    for update in corpus.real_updates():
        kind = next(name for name in update if name != "update_id")
        for path in list(corpus.paths(update[kind]))[:12]:
            told = corpus.replaced(update[kind], path, next(values))
            hostile += "update_id" in service.other(kind, told)
    service.say("the last one")

    events = await heard_by_polling(service, wanted=1)

    assert hostile > 150
    assert events[-1].text == "the last one"
    for event in events:
        check(event)
    check_log(caplog)


def _is_json(value: Any) -> bool:
    """Whether Telegram could write it: no half characters, no NaN, not endless."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True


# What a log may say


async def test_no_line_of_the_log_and_no_error_says_the_token(
    service: TelegramService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service.fail("setMyCommands", wire.Status(500))
    service.fail("getUpdates", wire.DropAfter(), wire.Garbage(), wire.Status(500))
    service.say(f"hello {corpus.CANARY}")

    await heard_by_polling(service, wanted=1)

    assert service.called("getUpdates")
    check_log(caplog)


async def test_a_wrong_token_is_told_without_saying_it(
    service: TelegramService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wrong = f"{BOT.id}:{string.ascii_letters[:35]}"
    connector = a_connector(service, token=wrong)
    connector.keep_on(DictShelf())

    with pytest.raises(ConfigError, match="token") as told:
        async with asyncio.timeout(10):
            await connector.run(Door(connector).accept)

    said = f"{told.value} {told.value!r} {caplog.text} {connector!r}"
    assert wrong not in said
