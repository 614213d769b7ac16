"""The tutorial docs/write-a-reranker.md, followed step by step."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from bot.cli import COMMANDS, chorus
from bot.scaffold import package

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "write-a-reranker.md").read_text()
EXAMPLE = ROOT / "tests" / "example_plugin"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


def from_on(text: str, start: str) -> str:
    """Return a text from where `start` stands in it to its end."""
    return text[text.index(start) :]


def written_as_the_page_says() -> dict[str, str]:
    """Return what `chorus new-plugin` makes with the page's blocks in their places."""
    says, kind, algorithm, tests = blocks("python")
    files = package("shortest", "reranker")
    plugin = files["chorus_shortest.py"]
    plugin = plugin.replace(plugin[: plugin.index("\nfrom __future__")], says)
    settings = from_on(plugin, "class Shortest:").partition("\n    def __init__")[0]
    plugin = plugin.replace(settings, kind)
    plugin = plugin.replace(from_on(plugin, "    def rerank("), algorithm)
    test = files["tests/test_shortest.py"]
    test = test.replace("    long_enough_first,", "    shortest_first,")
    test = test.replace(from_on(test, "def test_"), tests)
    return {**files, "chorus_shortest.py": plugin, "tests/test_shortest.py": test}


def lines(text: str) -> list[str]:
    """Return the lines of code in order of the alphabet: imports are sorted anew."""
    return sorted(line for line in text.splitlines() if line)


def test_who_follows_the_page_has_the_example_package() -> None:
    plugin = written_as_the_page_says()["chorus_shortest.py"]

    example = (EXAMPLE / "chorus_example_shortest.py").read_text()

    assert lines(plugin) == lines(example)


def test_its_tests_are_those_of_the_example_package() -> None:
    [*_, tests] = blocks("python")

    example = (EXAMPLE / "tests" / "test_shortest.py").read_text()

    assert from_on(example, "def test_") == tests


@pytest.mark.processes
def test_the_tests_pass_for_who_follows_the_page(tmp_path: Path) -> None:
    for path, text in written_as_the_page_says().items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)

    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "5 passed" in finished.stdout


def test_the_first_command_writes_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = commands()[:2]

    # The example may be installed where the tests run: a name that is taken is refused.
    made = CliRunner().invoke(chorus, first.replace("shortest", "shorter").split()[1:])

    assert made.exit_code == 0, made.output
    folder = second.removeprefix("cd ").replace("shortest", "shorter")
    assert (tmp_path / folder / "pyproject.toml").is_file()


@pytest.mark.processes
def test_the_plugin_is_enabled_as_the_page_says(tmp_path: Path) -> None:
    files = written_as_the_page_says()
    (tmp_path / "chorus_shortest.py").write_text(files["chorus_shortest.py"])
    [listed] = blocks("yaml")
    shipped = (ROOT / "config" / "bot.yaml").read_text()
    shipped = shipped.replace("[knowledge]", f"[{ROOT}/config/knowledge]")
    short = tmp_path / "short.yaml"
    # It is not installed here, so it is named by its class.
    by_class = listed.replace("use: shortest", "use: chorus_shortest:Shortest")
    short.write_text(re.sub(r"(  - use: mmr.*\n)", rf"\1{by_class}", shipped))

    checked = subprocess.run(
        [sys.executable, "-m", "bot", "check", str(short)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )

    assert checked.returncode == 0, checked.stderr
    assert "is fine" in checked.stdout
    [use] = yaml.safe_load(listed)
    assert use == {"use": "shortest", "settings": {"margin": 0.5}}


def test_every_command_of_the_page_exists() -> None:
    named = [
        command
        for line in [*commands(), *re.findall(r"`(chorus [^`]+)`", PAGE)]
        if line.startswith("chorus ")
        for command in [re.sub(r"^chorus (--config \S+ )?", "", line).split()[0]]
    ]

    assert {"new-plugin", "check", "chat", "explain", "eval", "plugins"} <= set(named)
    assert set(named) <= set(COMMANDS)


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:docs|tests|config)/[\w./]+)`", PAGE))
    linked = set(re.findall(r"\]\(\.\./([^)]+)\)", PAGE))

    assert linked
    missing = [path for path in named | linked if not (ROOT / path).exists()]
    assert missing == ["config/short.yaml"]  # the reader makes it


def test_the_page_is_read_in_one_sitting() -> None:
    assert len(PAGE.splitlines()) < 150
