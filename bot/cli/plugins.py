"""`chorus plugins`: what is installed, and which of it is enabled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from bot import config_file, plugin_manager
from bot.cli.opening import config_option, json_option
from bot.cli.screen import write_json, write_table
from bot.config import Config, Use
from bot.plugin_manager import Installed

_LONGEST = 40  # characters of a setting's value


@click.command("plugins")
@click.option("--kind", help="Only those of one kind, such as scorer or sampler.")
@config_option
@json_option
def command(*, kind: str | None, path: Path, as_json: bool) -> None:
    """List the plugins that are installed, the enabled ones first."""
    every = plugin_manager.installed(_uses(config_file.load(path)))
    found = [one for one in every if kind is None or kind in one.kinds]
    if not found:
        kinds = {name for one in every for name in one.kinds}
        near = config_file.did_you_mean(kind or "", kinds)
        raise click.BadParameter(
            f"no plugin of kind {kind!r}; {near}", param_hint="--kind"
        )
    if as_json:
        write_json([asdict(plugin) for plugin in found])
    else:
        columns = ["name", "enabled", "kind", "description", "settings", "from"]
        by_kind = sorted(found, key=lambda one: () if one.enabled else (1, *one.kinds))
        write_table(columns, [_cells(plugin) for plugin in by_kind])


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
        plugin.description,
        ", ".join(_settings(plugin)),
        plugin.origin,
    ]


def _settings(plugin: Installed) -> list[str]:
    """What is in force; of a plugin that is not, the defaults."""
    if plugin.configured is not None:
        return [f"{name}={_short(value)}" for name, value in plugin.configured.items()]
    return [_setting(*one) for one in _properties(plugin.settings).items()]


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    return properties


def _setting(name: str, described: Mapping[str, Any]) -> str:
    return f"{name}={_short(described['default'])}" if "default" in described else name


def _short(value: object) -> str:
    """A list of phrases would hide the rest; `--json` has all of it."""
    return shorten(str(value), _LONGEST, placeholder=" …")
