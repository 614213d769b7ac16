"""
The Slack connector on the stand-in, and what it needs around it.

`MemoryShelf` stands in for Redis where a test is not about what is kept.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bot.channels import ChannelPlugins
from bot.config import Config, ConversationConfig, WorkersConfig
from bot.conversation.manager import ConversationManager
from bot.conversation.store import Store
from bot.errors import TurnCancelled
from bot.inference import InferenceThread
from bot.interfaces import Accepted, GenerationRequest
from bot.model import Candidate, Event, Selection, Turn
from bot.plugin_manager import Plugins
from bot.ranking import Ranking
from bot.testing.fakes import HashEmbedder, ScriptedLanguageModel
from bot.turn import Answerer, Pipeline
from bot.web import Web, routes
from connectors.slack import Slack
from tests.connectors.slack.service import SlackService

HURRY = 20.0  # times faster than Slack's limits and pauses are by the clock

Accept = Callable[[Event], Awaitable[Accepted]]


class MemoryShelf:
    """A shelf that forgets nothing, and with it everything when it is gone."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, name: str) -> bytes | None:
        return self.kept.get(name)

    async def put(
        self,
        name: str,
        value: bytes,
        *,
        ttl_s: float | None = None,
        absent: bool = False,
    ) -> bool:
        if absent and self.kept.get(name, value) != value:
            return False
        self.kept[name] = value
        return True

    async def take(self, name: str) -> bytes | None:
        return self.kept.pop(name, None)

    async def remove(self, name: str) -> None:
        self.kept.pop(name, None)

    @asynccontextmanager
    async def lock(self, name: str, ttl_s: float) -> AsyncIterator[None]:
        async with self._locks.setdefault(name, asyncio.Lock()):
            yield


class Hurried:
    """Time that runs faster, so that pauses of seconds do not take seconds."""

    def __init__(self, times: float) -> None:
        self._times = times

    def clock(self) -> float:
        return time.monotonic() * self._times

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._times)


def a_connector(
    slack: SlackService,
    *,
    pace: Hurried | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    **settings: Any,
) -> Slack:
    """Make a connector that is told by HTTP, or with `mode="socket"` by sockets."""
    pace = pace or Hurried(1)
    given: Mapping[str, Any] = {
        "mode": "http",
        "bot_token": slack.token,
        "api_url": slack.url,
        **settings,
    }
    if given["mode"] == "http":
        secret = {"signing_secret": slack.signing_secret}
    else:
        secret = {"app_token": slack.app_token}
    return Slack(
        Slack.Settings.model_validate({**secret, **given}),
        clock=pace.clock,
        sleep=pace.sleep,
        now=now,
    )


@asynccontextmanager
async def running(connector: Slack, accept: Accept) -> AsyncIterator[None]:
    """Run a connector; what it raises is raised here."""
    task = asyncio.create_task(connector.run(accept))
    # One round of the loop, so that it has its `accept`.
    await asyncio.sleep(0)
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Author(ScriptedLanguageModel):
    """
    A model that writes as its test wants. A question in `pens` waits for its pen
    before each sentence but the first.
    """

    def __init__(self, write: Callable[[str], str]) -> None:
        super().__init__(lambda turn: write(turn.question))
        self._pens: dict[str, threading.Semaphore] = {}
        self._noted: list[str] = []

    def hold(self, question: str) -> threading.Semaphore:
        """Return the pen of a question; each release of it is a sentence more."""
        return self._pens.setdefault(question, threading.Semaphore(0))

    async def written(self, question: str, sentences: int) -> None:
        """Wait until so many sentences of an answer are written."""
        await until(
            lambda: self._asked(question) > sentences,
            f"{sentences} sentences of the answer to {question!r} were not written",
        )

    def generate(self, request: GenerationRequest) -> list[Candidate]:
        self._noted.append(request.turn.question)
        pen = self._pens.get(request.turn.question)
        if pen is not None and request.begun is not None:
            _take(pen, request)
        return super().generate(request)

    def _asked(self, question: str) -> int:
        return self._noted.count(question)


def _take(pen: threading.Semaphore, request: GenerationRequest) -> None:
    # Two things cannot be awaited at once: look at the other one now and then.
    while not pen.acquire(timeout=0.01):
        if request.cancelled is not None and request.cancelled.is_set():
            raise TurnCancelled("the test: Stop was pressed; nothing to do")


class _Plain:
    def render(self, turn: Turn, parts: Sequence[str], instruction: str = "") -> Turn:
        return replace(turn, prompt=turn.question)


class _First:
    name = "first"

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        return Selection(index=0, why="there is only one")


def an_answerer(author: Author, mode: str) -> Answerer:
    """Make the real answerer: `blocks` shows a reply as it grows, `replies` whole."""
    inference = InferenceThread()
    generation = {
        "model": "m",
        "mode": mode,
        "candidates": 1,
        "max_new_tokens": 4096,
        "timeout_s": 600,
    }
    config = Config.model_validate(
        {
            "knowledge": {"model": "m", "minimum_relevance": 0},
            "generation": generation,
        }
    )
    pipeline = Pipeline(
        plugins=Plugins(),
        retrievers=(),
        prompt_parts=(),
        prompter=_Plain(),
        sampler=None,  # type: ignore[arg-type]  # the scripted model draws nothing
        logits_processors=(),
        ranking=Ranking(
            inference=inference,
            writers=(),
            filters=(),
            scorers=(),
            weights={},
            rerankers=(),
            selector=_First(),
            plugin_timeout_s=5,
        ),
    )
    return Answerer(
        config=config,
        pipeline=lambda address: pipeline,
        model=author,
        embedder=HashEmbedder(),
        inference=inference,
    )


@dataclass(slots=True, kw_only=True)
class Bot:
    """
    One process of Chorus on Slack, as `chorus run` builds it: connector, web, manager.
    """

    slack: SlackService
    url: str
    author: Author
    mode: str = "blocks"
    settings: Mapping[str, Any] = field(default_factory=dict)
    pace: Hurried = field(default_factory=lambda: Hurried(HURRY))
    alone: bool = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Run until the end of the block; what is unfinished then stays so."""
        settings = ConversationConfig(messages_per_minute=10_000)
        async with AsyncExitStack() as opened:
            store = await opened.enter_async_context(
                Store(url=self.url, settings=settings, embedded=True)
            )
            connector = a_connector(self.slack, pace=self.pace, **self.settings)
            connector.keep_on(store.shelf(connector.name))
            web = Web(host="127.0.0.1", port=0, routes=routes([connector]))
            await opened.enter_async_context(web)
            answerer = an_answerer(self.author, self.mode)
            manager = ConversationManager(
                store=store,
                answerer=answerer,
                connectors={connector.name: connector},
                observers=ChannelPlugins(everywhere=Plugins()),
                config=answerer.config.model_copy(
                    update={"workers": WorkersConfig(shutdown_s=0, lease_s=1)}
                ),
                explain=lambda record: f"because of {record.turn.question}",
                clock=lambda: datetime.now(UTC),
                seeds=lambda: 7,
                sleep=self.pace.sleep,
                alone=self.alone,
            )
            await opened.enter_async_context(manager)
            talking = asyncio.create_task(manager.run())
            opened.push_async_callback(_ended, talking)
            await opened.enter_async_context(web.answering())
            self.slack.events_url = f"{web.url}/slack/events"
            yield Running(manager=manager, connector=connector, url=web.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A bot at work."""

    manager: ConversationManager
    connector: Slack
    url: str


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(
    holds: Callable[[], bool], otherwise: str, timeout_s: float = 10.0
) -> None:
    """Look a few times a second whether it has come so far, and say what did not."""
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            while not holds():  # noqa: ASYNC110 (several processes have a hand in it)
                await asyncio.sleep(0.02)
    except TimeoutError as late:
        raise AssertionError(f"{otherwise} within {timeout_s:g} s") from late
