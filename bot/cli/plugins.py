"""`chorus plugins`: what is installed, and which of it is enabled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bot import config as configuration
from bot import plugin_manager
from bot.cli.opening import config_option, json_option
from bot.cli.screen import write_json, write_table
from bot.config import Config, Use
from bot.plugin_manager import Installed


@click.command("plugins")
@config_option
@json_option
def command(*, path: Path, as_json: bool) -> None:
    """List the plugins that are installed, the enabled ones first."""
    found = plugin_manager.installed(_uses(configuration.load(path)))
    if as_json:
        write_json([asdict(plugin) for plugin in found])
    else:
        columns = ["name", "enabled", "kind", "from", "settings", "description"]
        write_table(columns, [_cells(plugin) for plugin in found])


def _uses(config: Config) -> list[Use]:
    """Everything enabled anywhere, in order, each once."""
    everywhere = [*config.plugins, *config.connectors]
    narrower = [use for one in config.channels for use in one.plugins or ()]
    return list({use.use: use for use in (*everywhere, *narrower)}.values())


def _cells(plugin: Installed) -> list[str]:
    return [
        plugin.name,
        "yes" if plugin.enabled else "no",
        ", ".join(plugin.kinds) or ", ".join(plugin.contributes),
        plugin.origin,
        ", ".join(_setting(*one) for one in _properties(plugin.settings).items()),
        plugin.description,
    ]


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    return properties


def _setting(name: str, described: Mapping[str, Any]) -> str:
    return f"{name}={described['default']}" if "default" in described else name
