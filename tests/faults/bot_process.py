"""
Processes of a whole bot: the real turn with a scripted model, plugins that misbehave,
/metrics over HTTP, and the log at its most talkative in a file.

`Bots` is a `Fleet` of them. They answer "answer to QUESTION"; the command
`remember NAME VALUE` sets a slot. A message's data says what the model does with it:
`slowly` is how many seconds it takes, `fails` makes it raise. What a plugin does is a
`Fault`. Knows nothing of what a test makes of it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self
from unittest import mock

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bot import explain, hookimpl
from bot.actions.dialogue import Dialogue
from bot.channels import ChannelPlugins
from bot.cli.logs import log_to_stderr
from bot.config import Config
from bot.conversation import overview
from bot.conversation.manager import ConversationManager
from bot.conversation.store import Store
from bot.inference import InferenceThread
from bot.interfaces import (
    Action,
    CandidateFilter,
    Delivery,
    GenerationRequest,
    MetricsSink,
    Retriever,
    Scorer,
    Tools,
)
from bot.model import (
    KEPT,
    ActionResult,
    Address,
    Candidate,
    Event,
    Passage,
    Record,
    Reply,
    Selection,
    Sent,
    Turn,
    Verdict,
)
from bot.operations import Operations
from bot.plugin_manager import Plugins, _new_manager
from bot.ranking import Ranking
from bot.testing.fakes import HashEmbedder, ScriptedLanguageModel
from bot.testing.makers import a_passage
from bot.turn import Answerer, Pipeline
from tests.acting import a_dialogue
from tests.faults import worker_process
from tests.faults.worker_process import Fleet, Settings

MIB = 1 << 20
LEAK, PAGE = 50 * MIB, 4096
EXIT_CODE = 3

Fault = Literal[
    "raises",
    "hangs, waiting",
    "hangs, computing",
    "says NaN",
    "leaks",
    "exits",
    "blocks the loop",
]


# What a test says


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSettings(Settings):
    """
    A process's settings. `port` is where it serves /metrics. A `fault` happens in the
    turns whose question contains `when`.
    """

    port: int = 0
    fault: Fault | None = None
    when: str = ""


class Bots(Fleet):
    """A fleet of processes of this module."""

    async def __aenter__(self) -> Self:
        # A fleet starts the file that its class is written in.
        with mock.patch.object(worker_process, "__file__", __file__):
            return await super().__aenter__()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a `Keeps` was given to send, and when by `time.monotonic()`."""

    address: Address
    text: str
    key: str
    at: float


class Keeps:
    """A connector in the test's process. What is sent twice is there twice."""

    delivery: Delivery = "at_least_once"

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.sent: list[Kept] = []
        self._changed = asyncio.Event()

    async def run(self, accept: Callable[[Event], Any]) -> None:
        await asyncio.Event().wait()

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        kept = Kept(address=address, text=reply.text, key=key, at=time.monotonic())
        self.sent.append(kept)
        self._changed.set()
        return Sent(ids=[key])

    async def status(self, address: Address, text: str) -> None:
        pass

    def replies(self, conversation: str) -> list[str]:
        return [one.text for one in self.sent if one.address.key == conversation]

    async def until(
        self, happened: Callable[[], bool], otherwise: str, timeout_s: float = 60.0
    ) -> None:
        """Wait until something has `happened`, looked at whenever anything is sent."""
        try:
            async with asyncio.timeout(timeout_s):
                while not happened():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as late:
            raise AssertionError(f"{otherwise} within {timeout_s:g} s") from late


class Nobody:
    """Observers that want to hear of nothing."""

    def hear_of_replies(self, address: Address) -> bool:
        return False

    async def turn_started(self, turn: Turn) -> None:
        pass

    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        pass

    async def conversation_handed_over(self, turn: Turn, reason: str) -> None:
        pass

    async def conversation_resumed(self, address: Address) -> None:
        pass

    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        pass

    async def feedback_received(self, event: Event, record: object) -> None:
        pass


def connectors_only(
    store: Store, config: Config, *connectors: Keeps
) -> ConversationManager:
    """Make the process that the test runs in one of connectors."""
    return ConversationManager(
        store=store,
        answerer=None,
        connectors={connector.name: connector for connector in connectors},
        observers=Nobody(),
        config=config,
        explain=explain.text,
        clock=worker_process._Clock(),
        seeds=lambda: 1,
        roles=["connectors"],
    )


def a_config(**sections: Mapping[str, Any]) -> Config:
    return Config.model_validate(
        {"knowledge": {"model": "none"}, "generation": {"model": "none"}, **sections}
    )


Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(url: str) -> Samples:
    """Return what /metrics says over HTTP, by name and labels."""
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{url}/metrics") as response,
    ):
        assert response.status == 200
        page = await response.text()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def summed(scrapes: Sequence[Samples], name: str, **labels: str) -> float:
    """Add up all samples with these labels, of several processes."""
    wanted = set(labels.items())
    return sum(
        value
        for samples in scrapes
        for (sample, found), value in samples.items()
        if sample == name and wanted <= found
    )


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]


def rss_mib() -> float:
    """Return the memory that this process takes now; Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


# The turn


class Model(ScriptedLanguageModel):
    """Says "answer to QUESTION", after `answer_s` of holding the one thread."""

    def __init__(self, answer_s: float = 0.0) -> None:
        super().__init__(_answer)
        self._answer_s = answer_s

    def generate(self, request: GenerationRequest) -> list[Candidate]:
        self.requests.clear()  # or the fake would grow, and no one could see a leak
        asked: Any = request.turn.message.data.get("slowly", self._answer_s)
        assert request.cancelled is not None
        request.cancelled.wait(asked)
        return super().generate(request)


def _answer(turn: Turn) -> str | Exception:
    if turn.message.data.get("fails"):
        return RuntimeError(f"no answer to {turn.question}")
    return f"answer to {turn.question}"


@dataclass(frozen=True, slots=True)
class Finds:
    """A retriever that finds the same passage for everybody."""

    name: str = "finds"

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        return [a_passage(scores={"relevance": 0.9})]


class _Prompts:
    def render(self, turn: Turn, parts: Sequence[str], instruction: str = "") -> Turn:
        return replace(turn, prompt=turn.question)


class _First:
    name = "first"

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        return Selection(index=0, why="it is first")


def an_answerer(  # noqa: PLR0913 (what a turn may be made of)
    config: Config,
    model: ScriptedLanguageModel,
    *,
    plugins: Plugins | None = None,
    retrievers: Sequence[Retriever] = (Finds(),),
    filters: Sequence[CandidateFilter] = (),
    scorers: Sequence[Scorer] = (),
    sinks: Sequence[MetricsSink] = (),
    dialogue: Dialogue | None = None,
) -> Answerer:
    """Make the real one, of real parts round a scripted model."""
    inference = InferenceThread()
    pipeline = Pipeline(
        plugins=replace(plugins or Plugins(), metrics_sinks=sinks),
        retrievers=retrievers,
        prompt_parts=(),
        prompter=_Prompts(),
        sampler=None,  # type: ignore[arg-type]  # the scripted model draws nothing
        logits_processors=(),
        ranking=Ranking(
            inference=inference,
            writers=(),
            filters=filters,
            scorers=scorers,
            weights={},
            rerankers=(),
            selector=_First(),
            plugin_timeout_s=config.ranking.plugin_timeout_s,
        ),
    )
    return Answerer(
        config=config,
        pipeline=lambda _: pipeline,
        model=model,
        embedder=HashEmbedder(),
        inference=inference,
        dialogue=dialogue,
    )


@asynccontextmanager
async def a_bot_here(  # noqa: PLR0913 (what a bot may be made of)
    url: str,
    config: Config,
    connector: Keeps,
    *,
    plugin: object | None = None,
    retrievers: Sequence[Retriever] = (Finds(),),
    filters: Sequence[CandidateFilter] = (),
    scorers: Sequence[Scorer] = (),
    sinks: Sequence[MetricsSink] = (),
    actions: Sequence[Action] = (),
    action_timeout_s: float = 30.0,
) -> AsyncIterator[ConversationManager]:
    """Run a whole bot in the test's process; `plugin` observes its turns."""
    plugins = Plugins() if plugin is None else registered(plugin)
    dialogue = a_dialogue(actions, action_timeout_s)
    async with (
        Store(url=url, settings=config.conversation) as store,
        ConversationManager(
            store=store,
            answerer=an_answerer(
                config,
                Model(),
                plugins=plugins,
                retrievers=retrievers,
                filters=filters,
                scorers=scorers,
                sinks=sinks,
                dialogue=dialogue,
            ),
            connectors={connector.name: connector},
            observers=ChannelPlugins(everywhere=plugins),
            actions=dialogue,
            config=config,
            explain=explain.text,
            clock=worker_process._Clock(),
            seeds=lambda: 1,
        ) as manager,
    ):
        yield manager


def registered(plugin: object) -> Plugins:
    manager = _new_manager()
    manager.register(plugin, "misbehaves")
    return Plugins(manager=manager)


@dataclass(slots=True, kw_only=True)
class Misbehaves:
    """
    A plugin of several kinds that does what `fault` says in the turns whose question
    contains `when`. What hangs ends with the process, or when it is `released`.
    """

    fault: Fault | None
    when: str = ""
    name: str = "misbehaves"
    description: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    _leaked: list[bytearray] = field(default_factory=list)

    # It computes

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> Sequence[float]:
        return [self._computed(turn)] * len(candidates)

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> Sequence[Verdict]:
        self._computed(turn)
        return [KEPT] * len(candidates)

    def turn_over(self, record: Record) -> None:
        self._computed(record.turn)

    def _computed(self, turn: Turn) -> float:
        if self.when not in turn.question:
            return 0.0
        match self.fault:
            case "raises":
                raise RuntimeError("boom")
            case "hangs, computing":
                self.released.wait()
            case "says NaN":
                return math.nan
            case "leaks":
                leaked = bytearray(LEAK)
                leaked[::PAGE] = b"1" * len(leaked[::PAGE])  # or it takes no memory
                self._leaked.append(leaked)
            case "exits":
                os._exit(EXIT_CODE)
        return 0.0

    # It waits

    @hookimpl
    async def turn_started(self, turn: Turn) -> None:
        await self._waited(turn)

    @hookimpl
    async def answer_directly(self, turn: Turn) -> Reply | None:
        await self._waited(turn)
        return None

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]:
        await self._waited(turn)
        return []

    async def run(self, turn: Turn, arguments: str) -> ActionResult:
        await self._waited(turn)
        return ActionResult(reply=Reply(text="done"))

    async def _waited(self, turn: Turn) -> None:
        if self.when in turn.question:
            match self.fault:
                case "raises":
                    raise RuntimeError("boom")
                case "hangs, waiting":
                    await asyncio.Event().wait()
                case "blocks the loop":
                    self.released.wait()


class Remember:
    name = "remember"
    description = "sets a slot"

    async def run(self, turn: Turn, arguments: str) -> ActionResult:
        name, _, value = arguments.partition(" ")
        return ActionResult(reply=Reply(text=f"noted {value}"), slots={name: value})


# In each process


async def _work(order: Mapping[str, Any]) -> None:
    settings = BotSettings(**order["settings"])
    logging.getLogger().handlers.clear()
    log_to_stderr(logging.DEBUG)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    config = settings.config
    store = Store(
        url=settings.url, settings=config.conversation, shards=settings.shards
    )
    points = worker_process._Points(order["name"], Path(order["journal"]), None)
    connector = worker_process._CONNECTORS[settings.finds](points, settings)
    misbehaves = Misbehaves(fault=settings.fault, when=settings.when)
    plugins = registered(misbehaves)
    dialogue = a_dialogue([Remember()])
    clock = worker_process._Clock()
    async with (
        store,
        Operations(
            host="127.0.0.1",
            port=settings.port,
            checks={},
            backlogs=partial(overview.backlogs, store),
        ),
        ConversationManager(
            store=store,
            answerer=an_answerer(
                config,
                Model(settings.answer_s),
                plugins=plugins,
                scorers=[misbehaves],
                dialogue=dialogue,
            ),
            connectors={connector.name: connector},
            observers=ChannelPlugins(everywhere=plugins),
            actions=dialogue,
            config=config,
            explain=explain.text,
            clock=clock,
            seeds=lambda: 1,
            roles=settings.roles,
        ) as manager,
    ):
        answering = asyncio.create_task(
            worker_process._answer_questions(order, points, clock)
        )
        try:
            await manager.run(until=stop)
        finally:
            answering.cancel()


if __name__ == "__main__":
    worker_process._work = _work
    worker_process._serve(int(sys.argv[1]))
