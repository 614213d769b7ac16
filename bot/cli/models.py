"""`chorus models`: the weights that are configured, whether they are here, and fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import JsonValue

from bot.app import PROMPT_AROUND, App
from bot.cli.opening import config_option, json_option, opened
from bot.cli.screen import say, write_json, write_table
from bot.config import Config
from bot.errors import ModelError

if TYPE_CHECKING:
    from bot.generation.fit import Fit, Plan
    from bot.generation.models import Weights


@click.command("models")
@click.option("--fetch", is_flag=True, help="Fetch those that are not here.")
@click.option("--fit", is_flag=True, help="Say what the generator takes of the memory.")
@config_option
@json_option
def command(*, path: Path, as_json: bool, fetch: bool, fit: bool) -> None:
    """List the configured models, fetch them, and say what fits."""
    with opened(path) as bot:
        if fetch:
            bot.app.fetch_models()
        if fit:
            _show_fit(_fit(bot.app), bot.app.config, as_json=as_json)
        else:
            _show(bot.app.weights(), as_json=as_json)


def _show(found: list[Weights], *, as_json: bool) -> None:
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


def _fit(app: App) -> Fit:
    settings = app.config.generation
    if settings.backend != "transformers":
        raise ModelError(
            f"generation.backend: {settings.backend!r} keeps the weights on its own "
            "machine, and what fits there is not known here; ask that server"
        )
    weights = next(each for each in app.weights() if each.source == settings.model)
    if not weights.present:
        raise ModelError(
            f"generation.model: {settings.model!r} is not here yet; "
            "add --fetch to fetch it first"
        )
    from bot.generation.fit import fit

    return fit(
        weights.folder, settings.precision, settings.device, _plan_of(app.config)
    )


def _plan_of(config: Config) -> Plan:
    from bot.generation.fit import Plan

    passages, history = (
        config.knowledge.budget_tokens,
        config.conversation.window_tokens,
    )
    return Plan(
        kv_tokens=config.generation.kv_tokens,
        turns=config.workers.concurrency,
        prompt_tokens=passages + history + PROMPT_AROUND,
        candidates=config.generation.candidates,
        max_new_tokens=config.generation.max_new_tokens,
    )


def _show_fit(fit: Fit, config: Config, *, as_json: bool) -> None:
    if as_json:
        write_json(_fit_as_json(fit, config))
        return
    write_table(["what", "how much"], _fit_rows(fit, config))
    for problem in fit.problems:
        say(problem)


def _fit_as_json(fit: Fit, config: Config) -> dict[str, JsonValue]:
    return {
        "model": config.generation.model,
        "device": fit.device,
        "precision": fit.precision,
        "parameters": fit.size.parameters,
        "memory_bytes": fit.memory_bytes,
        "kept_bytes": fit.kept_bytes,
        "weights_bytes": fit.size.weights_bytes,
        "left_bytes": fit.left_bytes,
        "kv_bytes_per_token": fit.size.kv_bytes_per_token,
        "placed_tokens": fit.placed_tokens,
        "fitting_tokens": fit.tokens,
        "kv_tokens": fit.plan.kv_tokens,
        "set_tokens": fit.plan.set_tokens,
        "sets": fit.sets,
        "most_sets": fit.most_sets,
        "problems": list(fit.problems),
    }


def _fit_rows(fit: Fit, config: Config) -> list[list[str]]:
    size, plan = fit.size, fit.plan
    parts = f"{plan.prompt_tokens:,} + {plan.candidates} x {plan.max_new_tokens}"
    memory = (
        "memory of this machine" if fit.device == "cpu" else "free memory of the GPU"
    )
    return [
        ["model", config.generation.model],
        ["device, precision", f"{fit.device}, {fit.precision}"],
        ["parameters", f"{size.parameters / 1e6:,.1f} million"],
        [memory, _gb(fit.memory_bytes)],
        ["kept for everything else", _gb(fit.kept_bytes)],
        ["weights", _gb(size.weights_bytes)],
        ["left for keys and values", _gb(fit.left_bytes)],
        ["keys and values of a token", f"{size.kv_bytes_per_token / 1e3:,.1f} kB"],
        ["tokens of places", f"{fit.placed_tokens:,}"],
        ["tokens that fit beside them", f"{fit.tokens:,}"],
        ["generation.kv_tokens", f"{plan.kv_tokens:,}"],
        ["tokens of a set", f"{plan.set_tokens:,} = {parts}"],
        ["sets at once", f"{fit.sets:,}; with all the memory {fit.most_sets:,}"],
    ]


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.2f} GB"
