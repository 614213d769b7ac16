"""`chorus models`: the weights that are configured, and whether they are here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import JsonValue

from bot.cli.opening import config_option, json_option, opened
from bot.cli.screen import write_json, write_table

if TYPE_CHECKING:
    from bot.generation.models import Weights


@click.command("models")
@click.option("--fetch", is_flag=True, help="Fetch those that are not here.")
@config_option
@json_option
def command(*, path: Path, as_json: bool, fetch: bool) -> None:
    """List the configured models, and fetch them."""
    with opened(path) as bot:
        if fetch:
            bot.app.fetch_models()
        found = bot.app.weights()
    if as_json:
        write_json([_as_json(weights) for weights in found])
    else:
        columns = ["source", "here", "size", "sha256", "origin", "folder"]
        write_table(columns, [_cells(weights) for weights in found])


def _as_json(weights: Weights) -> dict[str, JsonValue]:
    return {
        "source": weights.source,
        "present": weights.present,
        "size_bytes": weights.size_bytes,
        "sha256": weights.sha256,
        "origin": weights.origin,
        "folder": str(weights.folder),
    }


def _cells(weights: Weights) -> list[str]:
    return [
        weights.source,
        "yes" if weights.present else "no",
        f"{weights.size_bytes / 1e6:.1f} MB" if weights.size_bytes else "",
        weights.sha256 or "",
        weights.origin,
        str(weights.folder),
    ]
