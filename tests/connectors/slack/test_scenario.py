"""The connector with the real core: web, store, manager. Only Slack is a stand-in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from bot.conversation.redis_server import EmbeddedRedis
from bot.interfaces import Connector, WebRequest
from bot.testing.contracts import ConnectorContract
from connectors.slack import Slack
from tests.connectors.slack.bot_on_slack import Author, Bot, MemoryShelf, until
from tests.connectors.slack.connected import Hurried, made
from tests.connectors.slack.faults import DropAfter, RateLimited
from tests.connectors.slack.payloads import Retry, request_of
from tests.connectors.slack.service import SlackService


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as started:
        yield started


def a_bot(slack: SlackService, server: EmbeddedRedis) -> Bot:
    return Bot(slack=slack, url=server.url, author=Author(lambda asked: f"{asked}!"))


@pytest.mark.services
async def test_a_mention_is_answered_once_in_its_thread_whatever_slack_repeats(
    slack: SlackService, server: EmbeddedRedis
) -> None:
    async with a_bot(slack, server).running():
        mention = slack.customer.mention("Five days?")
        for retry in (None, Retry(1), Retry(2)):
            for told in mention:
                assert (await slack.deliver(told, retry=retry)).status == 200
        await until(lambda: bool(slack.shown("C1")), "no reply")
        again = slack.customer.message("Six?", channel="C1", thread_ts=mention[0].ts)
        await slack.deliver(again)
        await until(lambda: len(slack.shown("C1")) == 2, "no second reply")

    assert slack.shown("C1", mention[0].ts) == ["Five days?!", "Six?!"]


@pytest.mark.services
async def test_feedback_finds_its_turn(
    slack: SlackService, server: EmbeddedRedis
) -> None:
    async with a_bot(slack, server).running() as bot:
        told = slack.customer.message("Five days?")
        await slack.deliver(told)
        await until(lambda: bool(slack.shown("D1")), "no reply")
        stamp = slack.said("D1")[0].ts
        reaction = slack.customer.reaction("+1", stamp)

        assert (await slack.deliver(reaction)).status == 200
        assert bot.connector.trouble() is None


@pytest.mark.services
async def test_a_lost_answer_and_a_limit_leave_one_copy(
    slack: SlackService, server: EmbeddedRedis
) -> None:
    slack.fail("chat.postMessage", RateLimited(1), DropAfter())

    async with a_bot(slack, server).running() as bot:
        await slack.deliver(slack.customer.slash("Five days?", channel="D2"))
        await until(lambda: bool(slack.shown("D2")), "no reply")
        await bot.manager.idle()

    assert slack.shown("D2") == ["Five days?!"]


@pytest.mark.services
async def test_a_command_where_the_bot_is_not_is_answered(
    slack: SlackService, server: EmbeddedRedis
) -> None:
    async with a_bot(slack, server).running():
        assert (
            await slack.deliver(slack.customer.slash("Hm?", channel="C2"))
        ).status == 200
        await until(lambda: bool(slack.responses), "no answer")

    assert slack.responses[0][1]["blocks"][0]["text"] == "Hm?!"


def test_the_plugin_is_light() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, connectors.slack; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    for heavy in ("slack_sdk", "slack_bolt", "aiohttp", "cryptography", "redis"):
        assert heavy not in loaded


class TestSlackKeepsTheContract(ConnectorContract):
    """Over HTTP; the contract's customer is at home in a workspace of its own."""

    @pytest.fixture
    async def subject(self) -> AsyncIterator[Slack]:
        async with SlackService() as slack:
            slack.install("a1", "xoxb-a1")
            slack.channel("c1", "im", team="a1")
            # A second between frames would be a second in which the test waits.
            time = Hurried()
            connector = made(slack, time, bot_token="xoxb-a1")  # noqa: S106 (of a stand-in)
            connector.keep_on(MemoryShelf())
            self._slack = slack
            self._answers: list[int] = []
            self._told: dict[str, WebRequest] = {}
            yield connector

    async def speak(self, subject: Connector, text: str, id: str) -> None:  # noqa: A002
        assert isinstance(subject, Slack)
        if id not in self._told:
            said = self._slack.customer.message(text, channel="c1")
            self._told[id] = request_of(said)
        while True:
            response = await subject.respond(self._told[id])
            if response.status != 503:
                break
            await asyncio.sleep(0)
        self._answers.append(response.status)

    def acknowledged(self, subject: Connector) -> int | None:
        return self._answers.count(200)

    def shown(self, subject: Connector) -> list[str]:
        return self._slack.shown("c1")

    def break_service(self, subject: Connector) -> None:
        self._slack.fail("chat.postMessage", RateLimited(1))

    async def finish(self, subject: Connector) -> None:
        assert isinstance(subject, Slack)
        subject.close()
