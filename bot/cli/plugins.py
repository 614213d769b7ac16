"""`chorus plugins`: what is installed, and which of it is enabled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bot import config_file, plugin_manager
from bot.cli.opening import config_option, json_option
from bot.cli.screen import write_json, write_table
from bot.config import Config, Use
from bot.plugin_manager import Installed


@click.command("plugins")
@config_option
@json_option
def command(*, path: Path, as_json: bool) -> None:
    """List the plugins that are installed, the enabled ones first."""
    found = plugin_manager.installed(_uses(config_file.load(path)))
    if as_json:
        write_json([asdict(plugin) for plugin in found])
    else:
        columns = [
            "name",
            "enabled",
            "kind",
            "hooks",
            "from",
            "settings",
            "description",
        ]
        write_table(columns, [_cells(plugin) for plugin in found])


def _uses(config: Config) -> list[Use]:
    """Everything enabled anywhere, in order, each once."""
    everywhere = [*config.plugins, *config.connectors]
    narrower = [use for one in config.channels for use in one.plugins or ()]
    uses: dict[str, Use] = {}
    for use in (*everywhere, *narrower):
        uses.setdefault(use.use, use)  # the bot's own settings before a channel's
    return list(uses.values())


def _cells(plugin: Installed) -> list[str]:
    return [
        plugin.name,
        "yes" if plugin.enabled else "no",
        ", ".join(plugin.kinds),
        ", ".join(plugin.contributes),
        plugin.origin,
        ", ".join(_settings(plugin)),
        plugin.description,
    ]


def _settings(plugin: Installed) -> list[str]:
    """What is in force; of a plugin that is not, the defaults."""
    if plugin.configured is not None:
        return [f"{name}={value}" for name, value in plugin.configured.items()]
    return [_setting(*one) for one in _properties(plugin.settings).items()]


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    return properties


def _setting(name: str, described: Mapping[str, Any]) -> str:
    return f"{name}={described['default']}" if "default" in described else name
