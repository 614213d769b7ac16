"""
Experiments on live conversations: which arm one is in, and who answers there.

An arm is another configuration of the same bot: it shares models, index, state and
connectors, and differs in what a turn goes through. A conversation's arm follows from
its key and the experiment's name, so nothing is kept and every process agrees. In the
shadow an arm's answers are computed after the customer's and never sent. Knows nothing
about what makes an answer, nor what the answers were worth.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from pydantic import BaseModel

from bot import config_file, metrics
from bot.actions.doing import Acting
from bot.channels import ChannelPlugins
from bot.config import BASE, Config, ExperimentConfig
from bot.errors import ConfigError, StoreError, TurnError, place_of
from bot.model import Address, Candidate, Event, Record, Reply, Turn
from bot.plugin_manager import Plugins
from bot.turn import Answerer, Pipeline, unwatched

if TYPE_CHECKING:
    from bot.conversation.worker import Answerer as Answers

logger = logging.getLogger(__name__)

LAST_WORDS_S = 2.0  # to say how much was left out, when the process ends

# What an arm may change. The rest is shared with the base: models, index, state, and
# what happens to a message before and after its turn.
MAY_CHANGE = frozenset(
    {"name", "persona", "language", "ranking", "replies", "plugins", "channels"}
)
MAY_CHANGE_IN: Mapping[str, frozenset[str]] = {
    "generation": frozenset(
        {"candidates", "sampler", "max_new_tokens", "timeout_s", "stop", "mode"}
    ),
    "knowledge": frozenset({"passages", "budget_tokens", "minimum_relevance"}),
    "conversation": frozenset({"window_tokens"}),
}

# Of a turn that was stopped, or that people have, there is nothing to compare.
COMPARABLE = frozenset({"answered", "declined", "direct", "failed"})


def is_comparable(record: Record) -> bool:
    """Say whether a turn can be answered once more: a message, and by no action."""
    asked = record.turn.message.kind == "message"
    return asked and record.outcome in COMPARABLE and not record.has_acted


# Which arm


def arm_of(experiment: ExperimentConfig, address: Address) -> str:
    """
    Return the arm of a conversation. Each arm has a part of the line from 0 to 1, in
    the order of the file, and the base the rest at its end: so an arm that is added
    last, or made larger there, takes conversations of the base only.
    """
    place = _place(experiment.name, address.key)
    end = 0.0
    for name, arm in experiment.arms.items():
        end += arm.share
        if place < end:
            return name
    return BASE


def _place(experiment: str, key: str) -> float:
    """Return where a conversation stands, 0 to 1, anew in each experiment."""
    keyed = hashlib.blake2b(key.encode(), key=experiment.encode(), digest_size=8)
    return int.from_bytes(keyed.digest(), "big") / 2**64


def answering_arm(experiment: ExperimentConfig, address: Address) -> str:
    """Return the arm whose answers are sent."""
    return BASE if experiment.shadow else arm_of(experiment, address)


def label(experiment: ExperimentConfig, arm: str) -> str:
    """Name an arm as records do: the next experiment may have one of the same name."""
    return f"{experiment.name}/{arm}"


# The arms' configurations


def read_arms(base: Config, folder: Path) -> tuple[dict[str, Config], list[str]]:
    """
    Read the arms' files, relative to `folder`. Return each arm's whole configuration,
    and every problem of all of them; an arm with problems is left out.
    """
    configs: dict[str, Config] = {}
    problems: list[str] = []
    arms = base.experiment.arms if base.experiment else {}
    for name, arm in arms.items():
        path = folder / arm.config
        try:
            draft = config_file.read(path)
        except ConfigError as error:
            problems += error.problems
            continue
        wrong = [*draft.problems]
        wrong += [f"{path}: {key}" for key in _refused(base, draft.config)]
        if not wrong:
            configs[name] = _shared(base, draft.config)
        problems += wrong
    return configs, problems


def _refused(base: Config, arm: Config) -> Iterable[str]:
    """Say which keys are written in an arm's file that it may not change."""
    if arm.experiment is not None:
        yield "experiment: an arm has none of its own; remove it"
    for key in sorted(arm.model_fields_set - MAY_CHANGE - {"experiment"}):
        ours, theirs = getattr(base, key), getattr(arm, key)
        if key not in MAY_CHANGE_IN:
            if ours != theirs:
                yield _not_the_arms(key)
            continue
        for part in sorted(theirs.model_fields_set - MAY_CHANGE_IN[key]):
            if getattr(ours, part) != getattr(theirs, part):
                yield _not_the_arms(f"{key}.{part}")


def _not_the_arms(key: str) -> str:
    return (
        f"{key}: differs from the base's, but the arms of an experiment share it; "
        "remove it here, or write the same"
    )


def _shared(base: Config, arm: Config) -> Config:
    """Return the base's configuration with what the arm may change in it."""
    own: dict[str, Any] = {key: getattr(arm, key) for key in MAY_CHANGE}
    for section, keys in MAY_CHANGE_IN.items():
        ours: BaseModel = getattr(base, section)
        theirs = getattr(arm, section)
        own[section] = ours.model_copy(
            update={key: getattr(theirs, key) for key in keys}
        )
    return base.model_copy(update={**own, "connectors": (), "experiment": None})


# Answering for real


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """Answers every conversation as its arm does, whose answerer knows its label."""

    experiment: ExperimentConfig
    answerers: Mapping[str, Answers]

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: Acting = unwatched,
    ) -> Record:
        arm = answering_arm(self.experiment, turn.message.address)
        return await self.answerers[arm].answer(turn, cancelled, show, acting)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmObservers:
    """Tells of a conversation those plugins that answer there."""

    experiment: ExperimentConfig
    plugins: Mapping[str, ChannelPlugins]

    async def bot_started(self) -> None:
        for plugins in self.plugins.values():
            await plugins.bot_started()

    async def bot_stopped(self) -> None:
        for plugins in self.plugins.values():
            await plugins.bot_stopped()

    async def turn_started(self, turn: Turn) -> None:
        await self._of(turn.message.address).turn_started(turn)

    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        await self._of(turn.message.address).turn_failed(turn, error)

    def hear_of_replies(self, address: Address) -> bool:
        return self._of(address).hear_of_replies(address)

    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        await self._of(turn.message.address).reply_sent(turn, reply)

    async def feedback_received(self, event: Event, record: Record | None) -> None:
        await self._of(event.address).feedback_received(event, record)

    async def conversation_handed_over(self, turn: Turn, reason: str) -> None:
        address = turn.message.address
        await self._of(address).conversation_handed_over(turn, reason)

    async def conversation_resumed(self, address: Address) -> None:
        await self._of(address).conversation_resumed(address)

    def _of(self, address: Address) -> ChannelPlugins:
        return self.plugins[answering_arm(self.experiment, address)]


# Answering nobody


class Quiet(Plugins):
    """The plugins of a turn that no customer hears of: asked as ever, told nothing."""

    @classmethod
    def of(cls, plugins: Plugins) -> Quiet:
        parts = {one.name: getattr(plugins, one.name) for one in fields(plugins)}
        return cls(**{**parts, "metrics_sinks": ()})

    async def turn_started(self, turn: Turn) -> None: ...
    async def candidates_ranked(
        self, turn: Turn, candidates: Sequence[Candidate]
    ) -> None: ...
    async def turn_failed(self, turn: Turn, error: Exception) -> None: ...


def quiet(answerer: Answerer) -> Answerer:
    """
    Return an answerer for turns that were answered already: no plugin is told of them,
    and customers' go first.
    """

    def pipeline(address: Address) -> Pipeline:
        loud = answerer.pipeline(address)
        return replace(loud, plugins=Quiet.of(loud.plugins))

    return replace(answerer, pipeline=pipeline, background=True)


class KeepsShadows(Protocol):
    """Where the answers of the shadow go; raises StoreError when it is away."""

    async def keep(self, record: Record) -> bool: ...
    async def count_left_out(self, turns: int) -> None: ...


class Shadows:
    """
    Answers committed turns once more, as their arm would have, one after the other. An
    async context manager: what still waits when it is left is left out. Nothing that
    goes wrong here reaches a customer.
    """

    def __init__(
        self,
        *,
        experiment: ExperimentConfig,
        answerers: Mapping[str, Answers],
        keeper: KeepsShadows,
    ) -> None:
        self._experiment = experiment
        self._answerers = answerers
        self._keeper = keeper
        self._waiting: asyncio.Queue[tuple[str, Turn]] = asyncio.Queue(
            experiment.backlog
        )
        self._left_out = 0
        self._ended = threading.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None  # noqa: S101 (made on the way in)
        self._ended.set()  # for the generator, which computes on another thread
        self._left_out += self._waiting.qsize()
        self._task.cancel()
        await asyncio.wait({self._task})
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._count()

    def after(self, turn: Turn, record: Record) -> None:
        """Take a turn whose answer is kept by now; leave it out when too many wait."""
        arm = arm_of(self._experiment, turn.message.address)
        if arm == BASE or not is_comparable(record):
            return
        try:
            self._waiting.put_nowait((arm, turn))
        except asyncio.QueueFull:
            self._left_out += 1

    async def idle(self) -> None:
        """Wait until nothing waits."""
        await self._waiting.join()

    async def _work(self) -> None:
        while True:
            arm, turn = await self._waiting.get()
            try:
                await self._answer(arm, turn)
                await self._count()
            finally:
                self._waiting.task_done()

    async def _answer(self, arm: str, turn: Turn) -> None:
        try:
            shadow = await self._answerers[arm].answer(
                turn, self._ended, _unseen, unwatched
            )
            if not await self._keeper.keep(shadow):
                logger.info(
                    "the shadow of turn %s is dropped: its record is gone", turn.id
                )
        except asyncio.CancelledError:
            self._left_out += 1
            raise
        except (StoreError, TurnError) as error:
            self._left_out += 1
            logger.warning("the shadow of turn %s is not kept: %s", turn.id, error)
        # Answerers promise not to raise; a mistake ends one shadow, not all of them.
        except Exception as error:  # noqa: BLE001
            self._left_out += 1
            logger.error(  # noqa: TRY400 (its text may quote a message)
                "the shadow of turn %s failed: %s", turn.id, place_of(error)
            )

    async def _count(self) -> None:
        if not self._left_out:
            return
        turns, self._left_out = self._left_out, 0
        try:
            await self._keeper.count_left_out(turns)
            metrics.shadows_left_out(turns)
        except StoreError as error:
            self._left_out += turns
            logger.warning("%d shadows were left out, not counted: %s", turns, error)


def _unseen(text: str) -> None:
    """Nobody watches a reply being written here."""
