"""
The shipped bot on Slack and on Telegram: the documented commands, the small model.

Only the services are stand-ins. `chorus run` is a process of its own with the shipped
configuration, told of nothing but a data folder and a connector; a customer asks and
judges the answer, and `chorus feedback` and `chorus explain` tell the operator of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.connectors.slack.service import SlackService
from tests.connectors.telegram.service import TOKEN, TelegramService

pytestmark = [
    pytest.mark.model,
    pytest.mark.services,
    pytest.mark.processes,
    pytest.mark.timeout(600),
]

SHIPPED = Path(__file__).parents[2] / "config" / "bot.yaml"
QUESTION = "How long does a refund take?"
ANSWER, SOURCE = "5 working days", "Returns and refunds"


async def test_slack_gets_a_cited_answer_in_its_thread_and_its_judgement_is_kept(
    tmp_path: Path,
) -> None:
    async with SlackService() as slack:
        port = free_port()
        slack.events_url = f"http://127.0.0.1:{port}/slack/events"
        settings = {
            "mode": "http",
            "bot_token": {"env": "SLACK_BOT_TOKEN"},
            "signing_secret": {"env": "SLACK_SIGNING_SECRET"},
            "api_url": slack.url,
        }
        secrets = {
            "SLACK_BOT_TOKEN": slack.token,
            "SLACK_SIGNING_SECRET": slack.signing_secret,
        }
        bot = Bot(tmp_path, "slack", settings, secrets, port)
        async with bot.running():
            told = slack.customer.mention(QUESTION)
            answers = await slack.deliver_all(told)
            await until(lambda: slack.shown("C1"))
            [message] = slack.said("C1")
            judged = await slack.deliver(slack.customer.feedback(message.ts, good=True))
        shown = slack.shown("C1")

    assert [answer.status for answer in [*answers, judged]] == [200, 200, 200]
    assert len(shown) == 1
    assert ANSWER in shown[0]
    assert SOURCE in json.dumps(message.blocks)
    assert message.thread_ts == told[0].ts
    await bot.judged_once(rating=1, secrets=secrets)


async def test_telegram_gets_a_cited_answer_and_its_judgement_is_kept(
    tmp_path: Path,
) -> None:
    async with TelegramService() as telegram:
        settings = {
            "mode": "polling",
            "token": {"env": "TELEGRAM_TOKEN"},
            "api_url": telegram.api_url,
        }
        secrets = {"TELEGRAM_TOKEN": TOKEN}
        bot = Bot(tmp_path, "telegram", settings, secrets, free_port())
        async with bot.running():
            telegram.say(QUESTION)
            await until(telegram.shown)
            telegram.press(telegram.last(), 1)
            await until(lambda: not telegram.unanswered)
        shown = telegram.shown()

    assert len(shown) == 1
    assert ANSWER in shown[0]
    assert SOURCE in shown[0]
    await bot.judged_once(rating=-1, secrets=secrets)


class Bot:
    """The shipped bot on one service, as its operator runs it."""

    def __init__(
        self,
        folder: Path,
        connector: str,
        settings: Mapping[str, Any],
        secrets: Mapping[str, str],
        port: int,
    ) -> None:
        self._env = {**os.environ, **secrets}
        written = {
            **yaml.safe_load(SHIPPED.read_text()),
            "data": str(folder / "data"),
            "web": {"port": port},
            "operations": {"port": None},
            "connectors": [{"use": connector, "settings": dict(settings)}],
        }
        knowledge = written["knowledge"]
        knowledge["paths"] = [str(SHIPPED.parent / one) for one in knowledge["paths"]]
        self._path = folder / "bot.yaml"
        self._path.write_text(yaml.safe_dump(written))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.command("ingest")
        process = await self._started("run")
        try:
            assert process.stderr is not None
            async with asyncio.timeout(120):
                while b"stop with Ctrl-C" not in (
                    line := await process.stderr.readline()
                ):
                    assert line, "chorus run ended before it had begun"
            reading = asyncio.create_task(process.stderr.read())
            yield
            process.send_signal(signal.SIGTERM)
            await reading
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def judged_once(self, rating: int, secrets: Mapping[str, str]) -> None:
        """Check what the operator is told of the one judgement."""
        [judged] = (await self.command("feedback", "--json")).splitlines()
        turn = json.loads(judged)
        told = await self.command("explain", turn["turn"])

        assert turn["rating"] == rating
        assert turn["recorded"]
        assert QUESTION in told
        assert "groundedness" in told
        assert not [secret for secret in secrets.values() if secret in told]

    async def command(self, *arguments: str) -> str:
        process = await self._started(*arguments)
        out, told = await process.communicate()
        assert process.returncode == 0, told.decode()
        return out.decode()

    async def _started(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bot",
            *arguments,
            "--config",
            str(self._path),
            env=self._env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(180):
        while not true():  # noqa: ASYNC110 (the stand-in tells nobody)
            await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port
