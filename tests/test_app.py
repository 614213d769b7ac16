"""The app: names that nobody provides, channels, and what a variant shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from bot import hookimpl
from bot.app import App
from bot.channels import ChannelPlugins
from bot.config import Channel, Config
from bot.errors import ConfigError
from bot.model import Reply, Turn
from bot.plugin_manager import Plugins
from bot.testing.makers import a_turn, an_address, an_event

PLUGINS = [{"use": "multinomial"}, {"use": "best"}, {"use": "groundedness"}]


def a_config(**more: Any) -> Config:
    written = {
        "knowledge": {"model": "m"},
        "generation": {"model": "m"},
        "plugins": PLUGINS,
    }
    return Config.model_validate(written | more)


def an_app(config: Config) -> App:
    return App.from_config(config, lambda *_: None, "bot.yaml")


def problems_of(config: Config) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        an_app(config)
    return caught.value.problems


def test_every_name_that_nobody_provides_is_told_at_once() -> None:
    problems = problems_of(
        a_config(
            generation={"model": "m", "sampler": "multinomal"},
            ranking={"selector": "bst", "weights": {"groundednes": 1}},
            knowledge={"model": "m", "embedder": "minilmm"},
        )
    )

    assert len(problems) == 4
    assert problems[0] == (
        "bot.yaml: generation.sampler: no enabled plugin provides 'multinomal'; "
        "did you mean 'multinomial'?"
    )
    assert "ranking.selector" in problems[2]
    assert "did you mean 'minilm'?" in problems[1]
    assert "ranking.weights.groundednes" in problems[3]


def test_the_problems_of_a_channels_plugins_are_told_with_its_place() -> None:
    problems = problems_of(
        a_config(channels=[{"match": {"chat": "C1"}, "plugins": [{"use": "mmmr"}]}])
    )

    assert "channels[0].plugins[0].use" in problems[0]
    assert "did you mean 'mmr'?" in problems[0]


def test_a_channel_needs_a_sampler_of_its_own_list() -> None:
    problems = problems_of(
        a_config(channels=[{"match": {"chat": "C1"}, "plugins": [{"use": "best"}]}])
    )

    assert "channels[0]: generation.sampler" in problems[0]


def test_a_plugin_that_fails_hides_no_problem_of_another_with_the_whole() -> None:
    problems = problems_of(
        a_config(plugins=[{"use": "mmmr"}, {"use": f"{__name__}:Complaining"}])
    )

    assert "plugins[0].use: no plugin 'mmmr'" in problems[0]
    assert "needs a GPU" in problems[1]
    assert len(problems) == 2  # no sampler: perhaps the plugin that failed has it


def test_a_channel_tells_only_the_names_that_are_its_own() -> None:
    problems = problems_of(
        a_config(
            generation={"model": "m", "sampler": "multinomal"},
            channels=[
                {"match": {"chat": "C1"}, "persona": "You are terse."},
                {"match": {"chat": "C2"}, "ranking": {"selector": "bst"}},
            ],
        )
    )

    assert len(problems) == 2
    assert problems[0].startswith("bot.yaml: generation.sampler")
    assert problems[1].startswith("bot.yaml: channels[1].ranking.selector")


class Complaining:
    """Has something against every configuration."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        pass

    @hookimpl
    def check_config(self, config: Config) -> list[str]:
        return ["needs a GPU"]


def test_a_channel_has_its_own_plugins_and_the_others_the_bots() -> None:
    config = a_config(
        channels=[
            {"match": {"chat": "C1"}, "plugins": [*PLUGINS, {"use": "relevance"}]},
            {"match": {"chat": "C2"}, "persona": "You are terse."},
        ]
    )

    loaded, problems = ChannelPlugins.load(config, "bot.yaml")

    assert problems == []
    (one, own), (two, shared) = loaded.channels
    assert [scorer.name for scorer in own.scorers] == ["groundedness", "relevance"]
    assert shared is loaded.everywhere
    assert (one.match.chat, two.match.chat) == ("C1", "C2")


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ({"chat": "c1"}, True),
        ({"chat": "c1", "platform": "memory"}, True),
        ({"chat": "c2"}, False),
        ({"chat": "c1", "platform": "slack"}, False),
        ({}, True),
    ],
)
def test_a_channel_matches_by_every_part_it_names(
    match: dict[str, str], matches: bool
) -> None:
    channel = Channel.model_validate({"match": match})

    assert channel.covers(an_address("c1")) is matches


def test_a_variant_shares_the_loaded_models(tmp_path: Path) -> None:
    base = an_app(a_config(data=str(tmp_path)))

    other = base.variant(a_config(data=str(tmp_path / "other")))

    assert other._loaded is base._loaded
    assert other.config.data != base.config.data


async def test_a_channels_plugins_are_told_of_its_own_turns_only() -> None:
    told: list[str] = []

    class Told(Plugins):
        _name: str

        def __init__(self, name: str) -> None:
            object.__setattr__(self, "_name", name)

        async def bot_started(self) -> None:
            told.append(f"{self._name}: started")

        async def reply_sent(self, turn: Turn, reply: Reply) -> None:
            told.append(f"{self._name}: {reply.text}")

    channel = Channel.model_validate({"match": {"chat": "c1"}})
    everyone = ChannelPlugins(
        everywhere=Told("bot"), channels=[(channel, Told("channel"))]
    )

    await everyone.bot_started()
    await everyone.reply_sent(a_turn(), Reply(text="one"))
    elsewhere = an_event("hi", address=an_address("c2"))
    await everyone.reply_sent(a_turn(message=elsewhere), Reply(text="two"))

    assert told == ["bot: started", "channel: started", "channel: one", "bot: two"]
