"""What the project promises about itself: imports, public names, shipped files."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bot
from bot import config_file
from bot.app import App

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "faiss",
    "redis",
    "transformers",
    "openai",
    "rich",
    "prompt_toolkit",
)


def modules_after(statement: str) -> set[str]:
    """Return what a fresh interpreter has loaded after `statement`."""
    printed = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(printed.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import bot", "import bot.testing", "import bot.app", "import bot.cli"],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    loaded = modules_after(statement)

    assert loaded.isdisjoint(HEAVY)


def test_the_public_names_exist_and_are_sorted() -> None:
    assert sorted(bot.__all__) == bot.__all__
    assert all(hasattr(bot, name) for name in bot.__all__)


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=str)
def test_the_shipped_configurations_are_fine(path: Path) -> None:
    app = App.from_file(path, lambda *_: None)

    assert app.plugins.connectors


def test_the_shipped_models_are_pinned_by_their_hash() -> None:
    shipped = config_file.load(ROOT / "config" / "bot.yaml")

    assert shipped.knowledge.model_sha256
    assert shipped.generation.model_sha256


def test_the_schema_knows_every_plugins_settings() -> None:
    app = App.from_file(ROOT / "config" / "bot.yaml", lambda *_: None)

    schema = app.schema()

    by_plugin = {
        rule["if"]["properties"]["use"]["const"]: rule["then"]["properties"]["settings"]
        for rule in schema["$defs"]["Use"]["allOf"]
    }
    assert "diversity" in by_plugin["mmr"]["properties"]
    assert set(by_plugin) >= {"multinomial", "quotation", "groundedness", "terminal"}


@pytest.mark.parametrize(
    "path",
    sorted(
        str(path.relative_to(ROOT))
        for folder in ("bot", "plugins", "connectors")
        for path in (ROOT / folder).rglob("*.py")
    ),
)
def test_every_module_says_what_it_is(path: str) -> None:
    if path.endswith("__init__.py") and not (ROOT / path).read_text().strip():
        return
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))

    assert module.__doc__, f"{path} has no docstring"


def test_every_test_that_a_page_names_exists() -> None:
    page = (ROOT / "docs" / "mistakes.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))

    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in written] == []
