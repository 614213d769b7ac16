"""Each hook, implemented by a plugin and reached through the facade."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel, ConfigDict

from bot import config_file, hookimpl, hookspecs, plugin_manager
from bot.config import Config, Use
from bot.model import Address, Candidate, Event, Record, Reply, Turn
from bot.plugin_manager import Plugins
from bot.testing.makers import a_candidate, a_turn, an_address, an_event

ROOT = Path(__file__).parents[1]
GROUPS = (hookspecs.Nouns, hookspecs.Imperatives, hookspecs.PastEvents)
HOOKS = {
    name: spec
    for group in GROUPS
    for name, spec in inspect.getmembers(group, inspect.isfunction)
}


class Contribution:
    """Satisfies every protocol's shape; what it computes is not asked here."""

    name = "everything"

    async def retrieve(self) -> None: ...
    async def run(self) -> None: ...
    async def send(self) -> None: ...
    def begin(self) -> None: ...
    def embed(self) -> None: ...
    def instruction(self) -> None: ...
    def keep(self) -> None: ...
    def render(self) -> None: ...
    def rerank(self) -> None: ...
    def score(self) -> None: ...
    def select(self) -> None: ...
    def turn_over(self) -> None: ...
    def write(self) -> None: ...


THING: Any = Contribution()
COMMAND = click.Command("everything")


class Everything:
    """A plugin that implements every hook and remembers what it was told."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @hookimpl
    def retrievers(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def prompt_parts(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def logits_processors(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def samplers(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def prompt_variants(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def writers(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def candidate_filters(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def scorers(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def rerankers(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def selectors(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def actions(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def connectors(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def embedders(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def metrics_sinks(self) -> Sequence[Any]:
        return [THING]

    @hookimpl
    def commands(self) -> Sequence[click.Command]:
        return [COMMAND]

    @hookimpl
    def check_config(self, config: Config) -> Sequence[str]:
        return [f"{config.name} is not to my liking"]

    @hookimpl
    async def needs_person(self, turn: Turn) -> str | None:
        return f" {turn.question} is too hard "

    @hookimpl
    async def answer_directly(self, turn: Turn) -> Reply | None:
        return Reply(text=f"you said {turn.question}")

    @hookimpl
    async def bot_started(self) -> None:
        told.append(("bot_started",))

    @hookimpl
    async def bot_stopped(self) -> None:
        told.append(("bot_stopped",))

    @hookimpl
    async def turn_started(self, turn: Turn) -> None:
        told.append(("turn_started", turn))

    @hookimpl
    async def candidates_ranked(
        self, turn: Turn, candidates: Sequence[Candidate]
    ) -> None:
        told.append(("candidates_ranked", turn, candidates))

    @hookimpl
    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        told.append(("reply_sent", turn, reply))

    @hookimpl
    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        told.append(("turn_failed", turn, error))

    @hookimpl
    async def feedback_received(self, event: Event, record: Record | None) -> None:
        told.append(("feedback_received", event, record))

    @hookimpl
    async def conversation_handed_over(self, turn: Turn, reason: str) -> None:
        told.append(("conversation_handed_over", turn, reason))

    @hookimpl
    async def conversation_resumed(self, address: Address) -> None:
        told.append(("conversation_resumed", address))


told: list[tuple[Any, ...]] = []


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    told.clear()
    monkeypatch.setattr(plugin_manager, "class_of", lambda use: Everything)
    return plugin_manager.load({"bot.yaml: plugins[0]": Use(use="everything")})


def test_hook_retrievers(plugins: Plugins) -> None:
    assert plugins.retrievers == [THING]


def test_hook_prompt_parts(plugins: Plugins) -> None:
    assert plugins.prompt_parts == [THING]


def test_hook_logits_processors(plugins: Plugins) -> None:
    assert plugins.logits_processors == [THING]


def test_hook_samplers(plugins: Plugins) -> None:
    assert plugins.samplers == [THING]


def test_hook_prompt_variants(plugins: Plugins) -> None:
    assert plugins.prompt_variants == [THING]


def test_hook_writers(plugins: Plugins) -> None:
    assert plugins.writers == [THING]


def test_hook_candidate_filters(plugins: Plugins) -> None:
    assert plugins.candidate_filters == [THING]


def test_hook_scorers(plugins: Plugins) -> None:
    assert plugins.scorers == [THING]


def test_hook_rerankers(plugins: Plugins) -> None:
    assert plugins.rerankers == [THING]


def test_hook_selectors(plugins: Plugins) -> None:
    assert plugins.selectors == [THING]


def test_hook_actions(plugins: Plugins) -> None:
    assert plugins.actions == [THING]


def test_hook_connectors(plugins: Plugins) -> None:
    assert plugins.connectors == [THING]


def test_hook_embedders(plugins: Plugins) -> None:
    assert plugins.embedders == [THING]


def test_hook_metrics_sinks(plugins: Plugins) -> None:
    assert plugins.metrics_sinks == [THING]


def test_hook_commands(plugins: Plugins) -> None:
    assert plugins.commands == [COMMAND]


def test_hook_check_config(plugins: Plugins) -> None:
    shipped = config_file.load(ROOT / "config" / "bot.yaml")

    problems = plugins.check_config(shipped)

    assert problems == [f"everything: {shipped.name} is not to my liking"]


async def test_hook_needs_person(plugins: Plugins) -> None:
    reason = await plugins.needs_person(a_turn("hello"))

    assert reason == "hello is too hard"


async def test_hook_answer_directly(plugins: Plugins) -> None:
    reply = await plugins.answer_directly(a_turn("hello"))

    assert reply == Reply(text="you said hello")


async def test_hook_bot_started(plugins: Plugins) -> None:
    await plugins.bot_started()

    assert told == [("bot_started",)]


async def test_hook_bot_stopped(plugins: Plugins) -> None:
    await plugins.bot_stopped()

    assert told == [("bot_stopped",)]


async def test_hook_turn_started(plugins: Plugins) -> None:
    turn = a_turn()

    await plugins.turn_started(turn)

    assert told == [("turn_started", turn)]


async def test_hook_candidates_ranked(plugins: Plugins) -> None:
    turn, candidates = a_turn(), [a_candidate()]

    await plugins.candidates_ranked(turn, candidates)

    assert told == [("candidates_ranked", turn, candidates)]


async def test_hook_reply_sent(plugins: Plugins) -> None:
    turn, reply = a_turn(), Reply(text="yes")

    await plugins.reply_sent(turn, reply)

    assert told == [("reply_sent", turn, reply)]


async def test_hook_turn_failed(plugins: Plugins) -> None:
    turn, error = a_turn(), ValueError("no")

    await plugins.turn_failed(turn, error)

    assert told == [("turn_failed", turn, error)]


async def test_hook_feedback_received(plugins: Plugins) -> None:
    event = an_event("up", "feedback")

    await plugins.feedback_received(event, None)

    assert told == [("feedback_received", event, None)]


async def test_hook_conversation_handed_over(plugins: Plugins) -> None:
    turn = a_turn()

    await plugins.conversation_handed_over(turn, "a plugin asked for a person: no")

    told_of = ("conversation_handed_over", turn, "a plugin asked for a person: no")
    assert told == [told_of]


async def test_hook_conversation_resumed(plugins: Plugins) -> None:
    await plugins.conversation_resumed(an_address())

    assert told == [("conversation_resumed", an_address())]


# The hooks and their documentation


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    assert f"test_hook_{hook}" in globals()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_as_it_is(hook: str) -> None:
    page = (ROOT / "docs" / "hooks.md").read_text()
    signature = inspect.signature(HOOKS[hook])
    arguments = ", ".join(
        f"{one.name}: {one.annotation}"
        for one in signature.parameters.values()
        if one.name != "self"
    )

    assert f"### `{hook}({arguments}) -> {signature.return_annotation}`" in page
    assert (inspect.getdoc(HOOKS[hook]) or "missing") in page


def test_no_hook_is_documented_that_does_not_exist() -> None:
    page = (ROOT / "docs" / "hooks.md").read_text()
    documented = [
        line.removeprefix("### `").partition("(")[0]
        for line in page.splitlines()
        if line.startswith("### ")
    ]

    assert sorted(documented) == sorted(HOOKS)


def test_the_facade_has_every_hook() -> None:
    missing = [hook for hook in HOOKS if not hasattr(Plugins(), hook)]

    assert missing == []
