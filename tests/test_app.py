"""The app: names that nobody provides, channels, and what a variant shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.app import App, ChannelPlugins
from bot.config import Channel, Config
from bot.errors import ConfigError
from bot.testing.makers import an_address

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
    assert "ranking.selector" in problems[1]
    assert "did you mean 'minilm'?" in problems[2]
    assert "ranking.weights.groundednes" in problems[3]


def test_the_problems_of_a_channels_plugins_are_told_with_its_place() -> None:
    problems = problems_of(
        a_config(channels=[{"match": {"chat": "C1"}, "plugins": [{"use": "mmmr"}]}])
    )

    assert "channels[0]" in problems[0]
    assert "did you mean 'mmr'?" in problems[0]


def test_a_channel_needs_a_sampler_of_its_own_list() -> None:
    problems = problems_of(
        a_config(channels=[{"match": {"chat": "C1"}, "plugins": [{"use": "best"}]}])
    )

    assert "channels[0]: generation.sampler" in problems[0]


def test_a_channel_has_its_own_plugins_and_the_others_the_bots() -> None:
    config = a_config(
        channels=[
            {"match": {"chat": "C1"}, "plugins": [*PLUGINS, {"use": "relevance"}]},
            {"match": {"chat": "C2"}, "persona": "You are terse."},
        ]
    )

    loaded = ChannelPlugins.load(config, "bot.yaml")

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
