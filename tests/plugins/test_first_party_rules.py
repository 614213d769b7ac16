"""The rules that every first-party plugin keeps, checked for each of them."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import plugins
from bot.testing import a_tools, a_turn
from plugins.scorers.groundedness import Groundedness
from plugins.writers.quotation import Quotation

FOLDER = Path(plugins.__file__).parent
MODULES = sorted(
    ".".join(("plugins", *path.relative_to(FOLDER).with_suffix("").parts))
    for path in FOLDER.glob("*/*.py")
    if path.stem != "__init__"
)
ALLOWED = {
    "bot",
    "bot.distributions",
    "bot.errors",
    "bot.interfaces",
    "bot.model",
    "bot.text",
}


def plugin_class(module: str) -> type[Any]:
    """The one class of a module that has a name and settings."""
    [found] = [
        value
        for value in vars(importlib.import_module(module)).values()
        if isinstance(value, type)
        and value.__module__ == module
        and hasattr(value, "Settings")
    ]
    return found


@pytest.fixture
def where_thumbs_were_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`feedback` reads a file when it is made, by default from where one is."""
    lists = dict.fromkeys(("names", "means", "scales", "weights", "embedding"), ())
    learned = {"version": 1, "bias": 0, "trained_on": 0, **lists}
    (tmp_path / "feedback.json").write_text(json.dumps(learned))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("module", MODULES)
def test_a_plugin_is_named_after_its_file(module: str) -> None:
    name = plugin_class(module).name

    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
    assert name.replace("-", "_") == module.rsplit(".", 1)[1]


@pytest.mark.parametrize("module", MODULES)
def test_settings_are_frozen_closed_bounded_and_described(module: str) -> None:
    settings: type[BaseModel] = plugin_class(module).Settings

    assert settings.model_config.get("extra") == "forbid"
    assert settings.model_config.get("frozen") is True
    for key, field in settings.model_fields.items():
        assert field.description, f"{key} has no description"
        bounded = field.metadata or field.annotation is bool
        choices = "Literal" in str(field.annotation)
        assert bounded or choices, f"{key} has no bounds"


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.usefixtures("where_thumbs_were_learned_from")
def test_a_plugin_contributes_itself(module: str) -> None:
    kind = plugin_class(module)
    required = {
        key
        for key, field in kind.Settings.model_fields.items()
        if field.default is PydanticUndefined
    }
    made = kind(kind.Settings(**dict.fromkeys(required, ("word",))))

    [hook] = [n for n in vars(kind) if hasattr(getattr(kind, n), "chorus_impl")]

    contributed = getattr(made, hook)()

    # One plugin may hold several wordings: `styles` has one for each style.
    of_variants = module.startswith("plugins.variants.") and contributed
    assert contributed == [made] or of_variants


@pytest.mark.parametrize("module", MODULES)
def test_a_plugin_uses_the_public_surface_alone(module: str) -> None:
    source = importlib.import_module(module).__file__
    assert source is not None
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))

    imported = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
    }

    ours = {name for name in imported if name.split(".")[0] in ("bot", "plugins")}
    assert ours <= ALLOWED


def test_groundedness_finds_the_vectors_of_the_quotation_in_the_cache() -> None:
    # Tools keep vectors by text for the turn: sentences cut alike are embedded once.
    text = "It costs 3.50 euros. Pay late.\nPlan: Basic; Price: 5\n需要五天。好。"
    turn = a_turn("What does it cost?", [text])
    quote_all = Quotation.Settings(candidates=20)
    for_quotation, for_groundedness = a_tools(), a_tools()

    candidates = Quotation(quote_all).write(turn, for_quotation)
    Groundedness(Groundedness.Settings()).score(turn, candidates, for_groundedness)

    assert set(for_groundedness.embedded[0]) <= set(for_quotation.embedded[0])
    assert len(candidates) == 5
