"""One channel with its own plugins, persona, language and sentences, end to end."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from bot import hookimpl
from bot.app import App, _Loaded
from bot.config import Config
from bot.conversation.manager import ConversationManager
from bot.model import Turn
from bot.testing.fakes import HashEmbedder, MemoryConnector, ScriptedLanguageModel
from bot.testing.makers import an_address, an_event

HERE, THERE = "C-german", "C-other"
PLUGINS = [{"use": "multinomial"}, {"use": "best"}]
GERMAN = {
    "fallback": "Das steht nicht in meinen Unterlagen.",
    "working": "Ich denke nach …",
    "cancelled": "Gestoppt.",
    "greeting": "Hallo, ich bin {name}.",
    "handed_over": "Ein Mensch übernimmt.",
    "resumed": "Hier bin ich wieder.",
    "nothing_to_explain": "Es gibt noch nichts zu erklären.",
    "unknown_command": "Den Befehl /{command} kenne ich nicht.",
    "misspelt_command": "Meinten Sie {near} statt /{command}?",
    "forgotten": "Vergessen: {events}, {slots}, {records}.",
    "nothing_to_forget": "Es gab nichts zu vergessen.",
    "help": {"why": "erklärt die letzte Antwort", "start": ""},
}


@dataclass(frozen=True)
class Formal:
    name: str = "formal"

    def render(self, turn: Turn) -> str:
        return "Be formal."


class OnlyThere:
    """A plugin that only the German channel has."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @hookimpl
    def prompt_parts(self) -> Sequence[Formal]:
        return [Formal()]

    @hookimpl
    async def needs_person(self, turn: Turn) -> str | None:
        return "shouting" if turn.question.isupper() else None


def a_config(data: Path) -> Config:
    return Config.model_validate(
        {
            "name": "Larkspur",
            "persona": "You help cyclists.",
            "data": data,
            "knowledge": {"model": "m", "minimum_relevance": 0.2},
            "generation": {"model": "m", "candidates": 1},
            "plugins": PLUGINS,
            "replies": {"empty": "Nothing there.", "fallback": "No idea."},
            "channels": [
                {
                    "match": {"platform": "slack", "chat": HERE},
                    "persona": "You help lawyers.",
                    "language": "German",
                    "replies": GERMAN,
                    "plugins": [*PLUGINS, {"use": f"{__name__}:OnlyThere"}],
                }
            ],
        }
    )


@dataclass
class Slack:
    """A platform with two channels, and the model behind the bot."""

    service: MemoryConnector
    manager: ConversationManager
    model: ScriptedLanguageModel

    async def say(self, text: str, chat: str, **more: Any) -> str:
        """Return what is read in reply; a command begins with a slash."""
        kind: Any = "command" if text.startswith("/") else "message"
        event = an_event(
            text.removeprefix("/"),
            kind,
            id=uuid.uuid4().hex,
            address=an_address(chat, platform="slack", user="u1"),
            **more,
        )
        await self.manager.accept(event)
        return (await self.service.next_reply(chat)).text

    async def both(self, text: str) -> tuple[str, str]:
        return await self.say(text, HERE), await self.say(text, THERE)


@asynccontextmanager
async def a_slack(folder: Path) -> AsyncIterator[Slack]:
    document = folder / "refunds.md"
    document.write_text("# Refunds\n\nA refund takes 5 working days.\n")
    model = ScriptedLanguageModel(lambda _: "A refund takes 5 working days.")
    loaded = _Loaded(embedder=HashEmbedder(), language_model=model)
    config = a_config(folder / "data")
    app = App.from_config(config, lambda *_: None, "bot.yaml", loaded)
    app.ingest([document])
    service = MemoryConnector("slack")
    async with app.running({"slack": service}) as manager:
        yield Slack(service=service, manager=manager, model=model)


@pytest.mark.services
async def test_prompt_and_plugins_differ_there_and_only_there(tmp_path: Path) -> None:
    async with a_slack(tmp_path) as slack:
        await slack.both("How long does a refund take?")

    here, there = (request.turn.prompt for request in slack.model.requests)
    told = "Always answer in German, whatever language the question is in."
    assert "You help lawyers. Your name is Larkspur." in here
    assert "You help cyclists. Your name is Larkspur." in there
    assert here.index("Be formal.") < here.index(told) < here.index("user:")
    assert "formal" not in there
    assert "answer in" not in there


@pytest.mark.services
async def test_the_bots_sentences_differ_there_and_only_there(tmp_path: Path) -> None:
    async with a_slack(tmp_path) as slack:
        assert await slack.both("/why") == (
            "Es gibt noch nichts zu erklären.",
            "There is no answer to explain yet.",
        )
        assert await slack.both("/forget") == (
            "Es gab nichts zu vergessen.",
            "There was nothing to forget in this conversation.",
        )
        assert await slack.both("Who won?") == (
            "Das steht nicht in meinen Unterlagen.",
            "No idea.",
        )
        assert await slack.both(" ") == ("Nothing there.", "Nothing there.")
        assert await slack.both("/start") == (
            "Hallo, ich bin Larkspur.",
            "Hello, I am Larkspur. Ask me a question; /help lists what else I can do.",
        )
        assert await slack.both("/xyzzy") == (
            "Den Befehl /xyzzy kenne ich nicht.",
            "I do not know the command `/xyzzy`; `/help` lists those that I know.",
        )
        assert await slack.both("/forgte") == (
            "Meinten Sie `/forget` statt /forgte?",
            "I do not know the command `/forgte`; did you mean `/forget`?",
        )
        here, there = await slack.both("/help")
        assert "- `/why`: erklärt die letzte Antwort" in here
        assert "- `/help`: lists what I can do" in here
        assert "/start" not in here
        assert "- `/why`: explains the last answer" in there
        assert "- `/start`: says hello" in there
        kept = "2 events, 0 remembered values and 1 explanations"
        assert await slack.both("/forget") == (
            "Vergessen: 2, 0, 1.",
            f"I have forgotten this conversation: {kept}.",
        )

    shown = {(address.chat, text) for address, text in slack.service.statuses if text}
    assert shown == {(HERE, "Ich denke nach …"), (THERE, "Thinking …")}


@pytest.mark.services
async def test_a_plugin_hands_over_in_its_channel_and_only_there(
    tmp_path: Path,
) -> None:
    async with a_slack(tmp_path) as slack:
        assert await slack.both("WHO WON?!") == ("Ein Mensch übernimmt.", "No idea.")
        assert await slack.say("/bot", HERE) == "Hier bin ich wieder."


def test_a_sentence_that_a_channel_does_not_write_is_the_bots_own() -> None:
    config = a_config(Path())
    here = an_address(HERE, platform="slack")
    elsewhere = an_address(HERE, platform="telegram")

    assert config.replies_for(here).cancelled == "Gestoppt."
    assert config.replies_for(here).empty == "Nothing there."
    assert config.replies_for(elsewhere) is config.replies
    assert (config.language_for(here), config.language_for(elsewhere)) == (
        "German",
        None,
    )


def test_the_bots_language_is_everywhere_where_a_channel_has_none() -> None:
    config = Config.model_validate(
        {
            "knowledge": {"model": "m"},
            "generation": {"model": "m"},
            "language": "Irish",
            "channels": [{"match": {"chat": "c1"}, "persona": "You are terse."}],
        }
    )

    assert config.language_for(an_address("c1")) == "Irish"
    assert config.language_for(an_address("c2")) == "Irish"
