"""docs/plugins.md names every plugin that ships, and pages name only what there is."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic_core import PydanticUndefined, to_jsonable_python

from bot.cli import bench, eval  # noqa: A004 (the command's name)
from bot.evaluation.benches import BENCHES
from bot.evaluation.suites import SUITES

ROOT = Path(__file__).parents[1]
PLUGINS = (ROOT / "docs" / "plugins.md").read_text()
EVALUATION = (ROOT / "docs" / "evaluation.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Title of the section, by the folder of its plugins.
SECTIONS = {
    "samplers": "Samplers",
    "logits": "Logits steps",
    "variants": "Prompt variants",
    "writers": "Writers",
    "filters": "Filters",
    "scorers": "Scorers",
    "rerankers": "Rerankers",
    "selectors": "Selectors",
}
COLUMNS = 5  # name, what it does, source, settings, cost


def entry_points() -> Mapping[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points: Mapping[str, str] = project["entry-points"]["chorus.plugins"]
    return {
        name: reference
        for name, reference in points.items()
        if not reference.startswith("connectors.")
    }


def rows(section: str) -> list[list[str]]:
    """Return the cells of the rows of a section's table, its head left out."""
    text = PLUGINS.split(f"\n## {section}\n")[1].split("\n## ")[0]
    _, *lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines]


ROWS = {
    cells[0].strip("`"): cells
    for section in SECTIONS.values()
    for cells in rows(section)
}


def plugin_class(name: str) -> type[Any]:
    module, _, cls = entry_points()[name].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), cls)
    return found


@pytest.mark.parametrize("folder", SECTIONS)
def test_a_kind_s_table_has_each_of_its_plugins_once(folder: str) -> None:
    shipped = [
        name
        for name, reference in entry_points().items()
        if reference.startswith(f"plugins.{folder}.")
    ]

    named = [cells[0].strip("`") for cells in rows(SECTIONS[folder])]

    assert sorted(named) == sorted(shipped)


def test_every_kind_of_plugin_has_a_table() -> None:
    folders = {reference.split(".")[1] for reference in entry_points().values()}

    assert folders == set(SECTIONS)


@pytest.mark.parametrize("name", entry_points())
def test_the_settings_of_a_row_are_the_plugin_s_with_their_defaults(name: str) -> None:
    fields = plugin_class(name).Settings.model_fields
    cells = ROWS[name]
    written = re.findall(r"`([^`]+)`", cells[3])

    told: dict[str, Any] = {}
    for one in written:
        key, colon, value = one.partition(": ")
        told[key] = yaml.safe_load(value) if colon else PydanticUndefined

    assert len(cells) == COLUMNS
    assert [key for key in told if key not in fields] == []
    assert bool(told) == bool(fields)
    for key, value in told.items():
        if value is not PydanticUndefined:
            assert value == to_jsonable_python(fields[key].default), key


@pytest.mark.parametrize("name", entry_points())
def test_a_setting_that_is_needed_is_in_its_row(name: str) -> None:
    fields = plugin_class(name).Settings.model_fields
    needed = [key for key, field in fields.items() if field.is_required()]

    assert [key for key in needed if f"`{key}` (needed)" not in ROWS[name][3]] == []


@pytest.mark.parametrize("name", entry_points())
def test_the_papers_of_a_row_are_those_of_the_plugin_s_file(name: str) -> None:
    papers = re.findall(r"arXiv:([\w/-]+(?:\.\d+)?)", ROWS[name][2])
    cited = inspect.getdoc(importlib.import_module(plugin_class(name).__module__)) or ""

    assert [paper for paper in papers if f"arXiv:{paper}" not in cited] == []
    assert papers or "arXiv:" not in cited.split("\n\n")[0]


# Commands


def commands(page: str) -> Iterator[str]:
    """Yield each `chorus eval …` and `chorus bench …` of a page, on one line."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^ {4}(chorus .*)$", rest, flags=re.MULTILINE)
    lines = [line for block in fenced for line in _joined(block).splitlines()]
    for text in (*lines, *indented, *re.findall(r"`([^`]+)`", rest)):
        command = " ".join(text.split("  #")[0].split())
        if re.match(r"chorus (eval|bench)\b", command):
            yield command


def _joined(block: str) -> str:
    return block.replace("\\\n", " ")


# What stands for something that the reader names.
NAMED = {"eval": ("SUITE", "handbook"), "bench": ("NAME", "state")}


def parsed(command: str) -> click.Context:
    """Parse a command as click does, and run nothing."""
    _, name, *arguments = shlex.split(command)
    placeholder, instead = NAMED[name]
    # What may be left out, such as [--json], has to be right as well.
    words = [word for one in arguments if (word := one.strip("[]…"))]
    if not words or words[0].startswith("-"):
        words = [placeholder, *words]
    group = {"eval": eval.command, "bench": bench.command}[name]
    return group.make_context(
        name, [instead if one == placeholder else one for one in words]
    )


def every_command() -> Sequence[tuple[str, str]]:
    return [
        (page.name, command)
        for page in PAGES
        for command in dict.fromkeys(commands(page.read_text()))
    ]


@pytest.mark.parametrize(("page", "command"), every_command())
def test_a_command_of_a_page_is_one(page: str, command: str) -> None:
    parsed(command)


@pytest.mark.parametrize(
    "command",
    [
        "chorus eval handbooks",
        "chorus eval handbook --datum x",
        "chorus eval handbook --half both",
        "chorus bench rank",
        "chorus bench ranking --k 8",
    ],
)
def test_a_command_that_is_none_is_found(command: str) -> None:
    page = f"Run `{command}`, which is\n\n    {command}\n\n```\n{command}   # so\n```\n"

    found = list(commands(page))

    assert found == [command] * 3
    with pytest.raises(click.UsageError):
        parsed(command)


def test_files_that_a_page_on_measuring_names_are_there() -> None:
    named = re.findall(r"(?<![\w/])(?:tests/data|config)/[\w./-]*\w", EVALUATION)

    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", [PLUGINS, EVALUATION], ids=["plugins", "evaluation"])
def test_pages_that_are_linked_are_there(page: str) -> None:
    linked = re.findall(r"\]\(([^)#:]+)", page)

    assert linked
    assert [one for one in linked if not (ROOT / "docs" / one).exists()] == []


# docs/evaluation.md tells all


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_has_its_command_on_the_page(suite: str) -> None:
    assert any(
        one.startswith(f"chorus eval {suite}") for one in commands(EVALUATION)
    ), suite


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_is_on_the_page(name: str) -> None:
    assert re.search(rf"^\| `{name}[` ]", EVALUATION, re.MULTILINE)


@pytest.mark.parametrize("option", eval.command.params, ids=lambda one: str(one.name))
def test_an_option_of_eval_is_on_the_page(option: click.Parameter) -> None:
    if isinstance(option, click.Option):
        assert re.search(rf"^\| `{option.opts[0]}[` ]", EVALUATION, re.MULTILINE)


@pytest.mark.parametrize("metric", eval._SHOWN)
def test_a_column_of_the_table_is_defined_on_the_page(metric: str) -> None:
    assert re.search(rf"^\|[^|]*\*\*{re.escape(metric)}\*\*", EVALUATION, re.MULTILINE)


def test_the_page_names_what_the_shipped_configuration_enables() -> None:
    shipped = yaml.safe_load((ROOT / "config" / "bot.yaml").read_text())["plugins"]
    section = PLUGINS.split("enables\n", 1)[1].split("\n## ")[0]
    paragraph = section.split("What\neach")[0]

    named = re.findall(r"`([^`]+)`", paragraph)

    assert named == [use["use"] for use in shipped]
