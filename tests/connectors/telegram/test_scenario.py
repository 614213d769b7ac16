"""Whole conversations: Telegram's stand-in outside, everything else real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest

from bot.conversation.redis_server import EmbeddedRedis
from bot.interfaces import Connector
from bot.model import Address, Button, Citation, Record, Reply, Turn
from bot.testing import contracts, makers
from bot.testing.contracts import ConnectorContract
from connectors.telegram import Telegram
from tests.connectors.telegram.chats import ANN, BEN
from tests.connectors.telegram.service import TelegramService
from tests.connectors.telegram.talking import FastTime, a_telegram
from tests.connectors.telegram.whole_bot import a_bot
from tests.connectors.telegram.wire import Status

pytestmark = [pytest.mark.services, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as started:
        yield started


class Answers:
    """Answers as it is told to, shows what it is told to, and keeps its turns."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.reply = reply
        self.turns: list[Turn] = []
        self.growing = ""
        self.go = asyncio.Event()
        self.go.set()

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        self.turns.append(turn)
        growing = self.growing
        while not (self.go.is_set() or cancelled.is_set()):
            if growing:
                show(growing)
                growing += "."
            await asyncio.sleep(0.02)
        stopped = cancelled.is_set()
        reply = self.reply or Reply(text=f"**{turn.question}**, yes")
        return Record(
            turn=turn,
            outcome="cancelled" if stopped else "answered",
            reply=Reply(text="Stopped.") if stopped else reply,
            why="because",
            config="",
        )


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
async def connector(
    service: TelegramService, server: EmbeddedRedis, answers: Answers
) -> AsyncIterator[Telegram]:
    made = a_telegram(service, clock=FastTime())
    async with a_bot(server.url, made, answers):
        await service.until(lambda: service.called("getUpdates"))
        yield made
    await made.bot_stopped()


@pytest.fixture(autouse=True)
def empty(server: EmbeddedRedis) -> None:
    import redis  # noqa: PLC0415 (looks past the store)

    with redis.Redis.from_url(server.url) as client:
        client.flushall()


async def test_a_question_is_answered(
    service: TelegramService, connector: Telegram
) -> None:
    service.say("How long?")
    await service.until(service.shown)

    assert service.shown() == ["How long?, yes"]
    assert ANN.id in service.typing


async def test_a_conversation_has_a_history(
    service: TelegramService, connector: Telegram, answers: Answers
) -> None:
    service.say("one")
    await service.until(service.shown)
    service.say("two")
    await service.until(lambda: len(service.shown()) == 2)

    assert [event.text for event in answers.turns[1].history] == ["one", "**one**, yes"]


async def test_a_topic_keeps_its_talk_to_itself(
    service: TelegramService, connector: Telegram, answers: Answers
) -> None:
    forum = service.supergroup(forum=True)
    first, second = service.topic(forum), service.topic(forum)

    service.say("@chorus_bot one", chat=forum, thread=first)
    await service.until(lambda: service.shown(forum))
    service.say("@chorus_bot two", chat=forum, thread=second, user=BEN)
    await service.until(lambda: len(service.shown(forum)) == 2)

    assert service.shown(forum, first) == ["one, yes"]
    assert service.shown(forum, second) == ["two, yes"]
    assert not answers.turns[1].history


async def test_commands_reach_the_core(
    service: TelegramService, connector: Telegram
) -> None:
    service.say("/help")
    await service.until(service.shown)

    assert "/why" in service.shown()[0]


async def test_stop_stops_what_is_being_written(
    service: TelegramService, connector: Telegram, answers: Answers
) -> None:
    answers.go.clear()
    answers.growing = "How"
    service.say("How long?")
    await service.until(service.draft)
    service.stop()
    await service.until(service.shown)
    service.say("Again?")
    await service.until(lambda: len(answers.turns) == 2)
    service.say("/stop")
    await service.until(lambda: len(service.shown()) == 2)

    assert service.shown() == ["Stopped.", "Stopped."]


async def test_a_reply_is_shown_as_it_is_written(
    service: TelegramService, connector: Telegram, answers: Answers
) -> None:
    answers.go.clear()
    answers.growing = "**How** long"
    group = service.supergroup()
    service.say("How long?")
    service.say("@chorus_bot how?", chat=group, user=BEN)
    await service.until(service.draft)
    await service.until(lambda: service.shown(group))
    so_far = [service.draft() or "", *service.shown(group)]
    answers.go.set()
    await service.until(service.shown)
    await service.until(lambda: service.shown(group) == ["how?, yes"])

    assert {text.strip(".") for text in so_far} == {"How long"}
    assert service.shown() == ["How long?, yes"]
    assert len(service.called("sendMessage", chat=group)) == 1


async def test_a_button_says_its_payload(
    service: TelegramService, connector: Telegram, answers: Answers
) -> None:
    answers.reply = Reply(
        text="Which?",
        buttons=[Button(text="By card", payload="by card, please")],
        citations=[Citation(source="refunds.md", passage="p1", title="Refunds")],
        feedback=True,
    )
    service.say("How?")
    await service.until(service.shown)
    answers.reply = None
    service.press(service.last(), "By card")
    await service.until(lambda: len(service.shown()) == 2)
    await service.until(lambda: not service.unanswered)

    assert service.shown() == [
        "Which?\n\n[1] Refunds",
        "by card, please, yes",
    ]


async def test_an_update_that_comes_again_is_answered_once(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("getUpdates", Status(502))
    said = service.say("How long?")
    await service.until(service.shown)
    service.updates.pending[said["update_id"]] = said
    service.say("And?")
    await service.until(lambda: "And?, yes" in service.shown())

    assert service.shown() == ["How long?, yes", "And?, yes"]


class Ends(Telegram):
    """One that can be ended, which Telegram never is."""

    def __init__(self, settings: Telegram.Settings) -> None:
        super().__init__(settings)
        self.running: asyncio.Task[None] | None = None

    async def run(self, accept: object) -> None:
        self.running = asyncio.current_task()
        await super().run(accept)  # type: ignore[arg-type]  # as it was given


class TestTelegramKeepsTheContract(ConnectorContract):
    @pytest.fixture(autouse=True)
    def numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Chats of Telegram have numbers."""

        def an_address(chat: str = str(ANN.id), **more: object) -> Address:
            made = makers.an_address(chat, account="77")
            return replace(made, **more)  # type: ignore[arg-type]  # as in makers

        monkeypatch.setattr(contracts, "an_address", an_address)

    @pytest.fixture
    async def subject(self, service: TelegramService) -> AsyncIterator[Connector]:
        self.service = service
        service.private()
        base = a_telegram(service)
        made = Ends(base._settings)
        made.keep_on(base._shelf)  # type: ignore[arg-type]  # it was given one
        yield made
        await made.bot_stopped()

    async def speak(self, subject: Connector, text: str, id: str) -> None:  # noqa: A002
        if id not in getattr(self, "said", {}):
            self.said = {**getattr(self, "said", {}), id: self.service.say(text)}
            return
        # Not confirmed yet as far as Telegram knows: it comes again.
        update = self.said[id]
        await self.service.until(lambda: update["update_id"] <= self.service.confirmed)
        self.service.updates.pending[update["update_id"]] = update
        self.service._arrived()

    def acknowledged(self, subject: Connector) -> int | None:
        return self.service.confirmed

    def shown(self, subject: Connector) -> list[str]:
        return self.service.shown()

    def break_service(self, subject: Connector) -> None:
        self.service.fail("sendMessage", Status(502))

    async def finish(self, subject: Connector) -> None:
        assert isinstance(subject, Ends)
        assert subject.running is not None
        subject.running.cancel()
