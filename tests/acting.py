"""Actions for tests that have an answerer of their own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import orjson

from bot.actions.dialogue import Dialogue
from bot.actions.doing import Parts
from bot.actions.domain import domain_of
from bot.actions.plugin_place import PluginPlace
from bot.actions.responses import Responses
from bot.actions.rules import Rules
from bot.actions.runner import Runner
from bot.actions_config import ActionsConfig
from bot.config import Config
from bot.inference import InferenceThread
from bot.interfaces import Action
from bot.model import Record, Turn
from bot.plugin_manager import Plugins
from bot.testing.fakes import HashEmbedder
from bot.turn import Answerer, Pipeline


class Answers(Protocol):
    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: Callable[[], Awaitable[None]],
    ) -> Record: ...


class Hears(Protocol):
    """Who is told of turns with an action."""

    async def turn_started(self, turn: Turn) -> None: ...
    async def turn_failed(self, turn: Turn, error: Exception) -> None: ...


def a_dialogue(actions: Sequence[Action], timeout_s: float = 30.0) -> Dialogue:
    """Make the real one, for plugins' actions and their commands."""
    config = ActionsConfig()
    return Dialogue(
        parts=Parts(
            config=config,
            runner=Runner([PluginPlace(action, timeout_s) for action in actions]),
            rules=Rules((), None),
            responses=Responses({}),
            domain=orjson.dumps(domain_of(config, ())),
        ),
        model=cast("Any", None),  # it is asked for no choice
        persona="",
        plugins={action.name: action.description for action in actions},
    )


class WithActions:
    """Answers commands by actions, as the bot does; everything else, `other` does."""

    def __init__(
        self,
        other: Answers,
        actions: Sequence[Action],
        *,
        config: Config,
        hears: Hears,
        timeout_s: float = 30.0,
    ) -> None:
        self._other = other
        self.dialogue = a_dialogue(actions, timeout_s)
        pipeline = cast("Any", Pipeline)(
            plugins=_Heard(hears=hears),
            retrievers=(),
            prompt_parts=(),
            prompter=None,
            sampler=None,
            logits_processors=(),
            ranking=None,
        )
        self._acting = Answerer(
            config=config,
            pipeline=lambda _: pipeline,
            model=cast("Any", None),
            embedder=HashEmbedder(),
            inference=InferenceThread(),
            dialogue=self.dialogue,
        )

    def commands(self) -> Mapping[str, str]:
        return self.dialogue.commands()

    def takes(self, turn: Turn) -> bool:
        return self.dialogue.takes(turn)

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: Callable[[], Awaitable[None]],
    ) -> Record:
        if turn.message.kind == "command":
            record = await self._acting.answer(turn, cancelled, show, acting)
            return replace(record, ms={})  # the only thing in it that is not the same
        return await self._other.answer(turn, cancelled, show, acting)


@dataclass(frozen=True, kw_only=True)
class _Heard(Plugins):
    """No plugin, but somebody who is told."""

    hears: Hears

    async def turn_started(self, turn: Turn) -> None:
        await self.hears.turn_started(turn)

    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        await self.hears.turn_failed(turn, error)
