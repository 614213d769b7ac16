"""Commands over real configuration files: check, plugins, contributed commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from bot import hookimpl
from bot.cli import chorus

GOOD = """
knowledge: {model: org/embedder}
generation: {model: org/generator}
plugins: [{use: multinomial, settings: {temperature: 0.5}}, {use: best}]
connectors: [{use: terminal}]
"""
BROKEN = "knowlege: {model: x}\n"


class Greeter:
    """Adds a command."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @hookimpl
    def commands(self) -> list[click.Command]:
        return [greet, schema]


@click.command("greet")
def greet() -> None:
    """Say hello."""
    click.echo("hello")


@click.command("schema")
def schema() -> None:
    """Take a shipped command's place."""
    click.echo("not the schema")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    return path


@pytest.fixture
def greeting(tmp_path: Path) -> Path:
    path = tmp_path / "greeting.yaml"
    module = __name__ if __name__ in sys.modules else "test_configuration"
    path.write_text(
        GOOD.replace("{use: best}", f"{{use: best}}, {{use: {module}:Greeter}}")
    )
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(chorus, [str(argument) for argument in arguments])


def test_a_good_file_is_fine(good: Path) -> None:
    result = invoke("check", good)

    assert result.exit_code == 0, result.output
    assert result.stdout == f"{good} is fine: 2 plugins, 1 connector\n"


def test_check_shows_all_problems_and_no_traceback(broken: Path) -> None:
    result = invoke("check", broken)

    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{broken}: ") for line in lines)
    assert "did you mean 'knowledge'?" in result.stderr


def test_check_shows_the_problems_of_all_stages_in_the_order_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    path = tmp_path / "all.yaml"
    path.write_text(
        """
generation: {model: m, sampler: multinomal, candidates: 0}
plugins: [{use: multinomial}, {use: best}]
connectors: [{use: terminal, settings: {histroy: x}}]
channels:
  - {match: {chat: C1}, plugins: [{use: 5}, {use: mmmr}]}
redis: {url: {env: ABSENT}}
knowledge: {model: m, paths: [nope]}
"""
    )

    lines = invoke("check", path).stderr.splitlines()

    assert [line.removeprefix(f"{path}: ").split(": ")[0] for line in lines] == [
        "generation.sampler",
        "generation.candidates",
        "connectors[0].settings.histroy",
        "channels[0].plugins[0].use",
        "channels[0].plugins[1].use",
        "redis.url",
        "knowledge.paths",
    ]
    assert str(tmp_path / "nope") in lines[-1]


def test_a_misspelt_key_brings_no_second_problem(tmp_path: Path) -> None:
    path = tmp_path / "misspelt.yaml"
    path.write_text(GOOD.replace("plugins:", "plugin:"))

    (line,) = invoke("check", path).stderr.splitlines()

    assert "plugin: unknown key; did you mean 'plugins'?" in line


def test_a_missing_file_is_for_the_operator(tmp_path: Path) -> None:
    result = invoke("check", tmp_path / "none.yaml")

    assert result.exit_code == 2
    assert "none.yaml: cannot be read" in result.stderr


def test_plugins_are_listed_with_the_enabled_ones_first_and_in_order(
    good: Path,
) -> None:
    table = invoke("plugins", "--config", good)
    printed = json.loads(invoke("plugins", "--config", good, "--json").stdout)

    names = [plugin["name"] for plugin in printed]
    assert names[:3] == ["multinomial", "best", "terminal"]
    assert names[3:] == sorted(names[3:])
    kinds = [line.split()[2] for line in table.stdout.splitlines()[4:]]
    assert kinds == sorted(kinds)
    assert [plugin["enabled"] for plugin in printed[:4]] == [True, True, True, False]
    assert set(printed[0]) >= {"name", "kinds", "contributes", "origin", "settings"}
    assert "temperature" in printed[0]["settings"]["properties"]
    assert table.stdout.splitlines()[1].split()[:3] == ["multinomial", "yes", "sampler"]


def test_plugins_can_be_listed_by_kind(good: Path) -> None:
    scorers = invoke("plugins", "--config", good, "--kind", "scorer")
    none = invoke("plugins", "--config", good, "--kind", "scorers")

    rows = scorers.stdout.splitlines()[1:]
    assert {line.split()[2] for line in rows} == {"scorer"}
    assert len(rows) > 5
    assert none.exit_code == 2
    assert "no plugin of kind 'scorers'; did you mean 'scorer'?" in none.stderr


def test_plugins_show_the_operators_settings(good: Path) -> None:
    table = invoke("plugins", "--config", good)
    printed = json.loads(invoke("plugins", "--config", good, "--json").stdout)

    header, row = table.stdout.splitlines()[:2]
    assert header.split() == [
        "name",
        "enabled",
        "kind",
        "description",
        "settings",
        "from",
    ]
    assert "temperature=0.5, top_k=" in row
    assert printed[0]["configured"]["temperature"] == 0.5
    assert "top_k" in printed[0]["configured"]
    assert printed[-1]["configured"] is None


def test_plugins_show_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "secretive.yaml"
    module = __name__ if __name__ in sys.modules else "test_configuration"
    use = f"{{use: {module}:Secretive, settings: {{token: canary}}}}"
    path.write_text(GOOD.replace("{use: best}", f"{{use: best}}, {use}"))

    shown = invoke("plugins", "--config", path).stdout
    shown += invoke("plugins", "--config", path, "--json").stdout

    assert "token=****" in shown
    assert "canary" not in shown


class Secretive(Greeter):
    """Has a password."""

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        token: SecretStr = Field(description="a password")


def test_a_plugins_command_is_listed_and_runs(greeting: Path) -> None:
    listed = invoke("--config", greeting, "--help")
    ran = invoke("--config", greeting, "greet")

    assert "Commands of plugins" in listed.stdout
    assert "greet" in listed.stdout
    assert (ran.exit_code, ran.stdout) == (0, "hello\n")


def test_a_plugin_cannot_take_a_shipped_commands_place(greeting: Path) -> None:
    result = invoke("--config", greeting, "schema")

    assert "not the schema" not in result.stdout
    assert json.loads(result.stdout)["title"] == "Config"


def test_a_broken_file_does_not_take_help_away(broken: Path) -> None:
    helped = invoke("--config", broken, "--help")
    unknown = invoke("--config", broken, "greet")

    assert helped.exit_code == 0
    assert "ask " in helped.stdout
    assert "commands of plugins are not available" in helped.stderr
    assert unknown.exit_code == 2
    assert "commands of plugins are not available" in unknown.stderr


HELP = """
import sys
from bot.cli import chorus
chorus(["--config", sys.argv[1], "--help"], standalone_mode=False)
print(*{"torch", "faiss", "redis", "transformers"} & set(sys.modules), file=sys.stderr)
"""


def test_help_loads_no_heavy_library(good: Path) -> None:
    ran = python("-c", HELP, good)

    assert ran.stdout.startswith(b"Usage: ")
    assert ran.stderr.strip() == b""


def test_a_reader_that_left_is_no_traceback(good: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    ran = python("-m", "bot", "check", good, stdout=writer)
    os.close(writer)

    assert (ran.returncode, ran.stderr) == (1, b"")


def test_what_the_terminal_cannot_show_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "snow\N{SNOWMAN}.yaml"
    path.write_text(GOOD)

    ran = python("-m", "bot", "check", path, PYTHONIOENCODING="latin-1:strict")

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"snow?.yaml is fine" in ran.stdout


def python(
    *arguments: object, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )
