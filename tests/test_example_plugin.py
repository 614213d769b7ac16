"""Somebody else's package: installed beside Chorus, found, listed, tested and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Install the example from a copy, and return the environment that sees it."""
    folder = tmp_path_factory.mktemp("example")
    source, site = folder / "source", folder / "site"
    shutil.copytree(ROOT / "tests" / "example_plugin", source)
    ran(
        [
            *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"),
            *("--target", str(site), str(source)),
        ],
        os.environ,
    )
    return {**os.environ, "PYTHONPATH": str(site)}


def shipped_configuration() -> str:
    """Return the shipped file with paths that hold anywhere."""
    text = (ROOT / "config" / "bot.yaml").read_text()
    return text.replace("[knowledge]", f"[{ROOT}/config/knowledge]")


def ran(arguments: list[str], environment: Mapping[str, str]) -> str:
    finished = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_its_own_tests_pass(environment: Mapping[str, str]) -> None:
    folder = str(ROOT / "tests" / "example_plugin")

    printed = ran(
        ["-m", "pytest", "-q", "--rootdir", folder, folder, "-p", "no:cacheprovider"],
        environment,
    )

    assert " passed" in printed


def test_it_is_listed_with_where_it_comes_from(environment: Mapping[str, str]) -> None:
    listed = json.loads(ran(["-m", "bot", "plugins", "--json"], environment))

    (found,) = [plugin for plugin in listed if plugin["name"] == "shortest"]
    assert found["kinds"] == ["reranker"]
    assert found["origin"] == "chorus-example-shortest 1.0.0"
    assert not found["enabled"]


def test_it_is_enabled_by_its_name(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    shipped = shipped_configuration()
    enabled = tmp_path / "bot.yaml"
    enabled.write_text(shipped.replace("- use: mmr", "- use: shortest"))

    printed = ran(["-m", "bot", "check", str(enabled)], environment)

    assert "is fine" in printed


RANK = """
import asyncio
from bot import plugin_manager
from bot.config import Use
from bot.inference import InferenceThread
from bot.ranking import Ranking
from bot.testing import a_candidate, a_tools, a_turn

plugins = plugin_manager.load({"1": Use(use="shortest"), "2": Use(use="best")})
ranking = Ranking(
    inference=InferenceThread(), writers=(), filters=(), scorers=(), weights={},
    rerankers=plugins.rerankers, selector=plugins.selectors[0], plugin_timeout_s=5,
)
candidates = [a_candidate("Quite a long reply."), a_candidate("A short one.")]
ranked = asyncio.run(ranking.rank(a_turn(), candidates, a_tools()))
print(ranked.candidates[ranked.chosen].text, dict(ranked.orders))
"""


def test_it_decides_what_is_sent(environment: Mapping[str, str]) -> None:
    printed = ran(["-c", RANK], environment)

    assert printed.strip() == "A short one. {'shortest': [1, 0]}"


def test_a_near_miss_of_its_name_is_told(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    shipped = shipped_configuration()
    misspelt = tmp_path / "bot.yaml"
    misspelt.write_text(shipped.replace("- use: mmr", "- use: shortst"))

    finished = subprocess.run(
        [sys.executable, "-m", "bot", "check", str(misspelt)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )

    assert finished.returncode == 2
    assert "no plugin 'shortst'; did you mean 'shortest'?" in finished.stderr
