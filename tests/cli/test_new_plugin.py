"""`chorus new-plugin`: what it writes works as it stands, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bot import plugin_manager
from bot.cli import chorus
from bot.config import Use
from bot.scaffold import KINDS, class_name, module_name, package

ROOT = Path(__file__).parents[2]
# Ours, and those that are about a package's place in a repository.
IGNORED = "D,DOC,COM812,ISC001,CPY,EM,TRY003,TC,ARG002,INP001"
LONGEST = "abcdefghij-klmnopqrst-uvwxyz12"


def new_plugin(*arguments: str) -> Result:
    return CliRunner().invoke(chorus, ["new-plugin", *arguments])


def ran(folder: Path, *arguments: str) -> str:
    """Run a Python module in the folder of a package that is not installed."""
    finished = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.processes
@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_of_a_new_package_pass_at_once(kind: str, tmp_path: Path) -> None:
    made = new_plugin("my-first", "--kind", kind, "--folder", str(tmp_path / "new"))

    printed = ran(tmp_path / "new", "pytest", "-q", "-p", "no:cacheprovider")

    assert made.exit_code == 0
    assert " passed" in printed
    assert "skipped" not in printed


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_loads_and_contributes_itself(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"load-{kind}"
    new_plugin(name, "--kind", kind, "--folder", str(tmp_path / "new"))
    monkeypatch.syspath_prepend(tmp_path / "new")

    use = Use(use=f"{module_name(name)}:{class_name(name)}")
    plugins = plugin_manager.load({"plugins[0]": use})

    contributed = [
        one.name for hook in plugin_manager.METHODS for one in getattr(plugins, hook)
    ]
    assert contributed == [name]


@pytest.mark.processes
@pytest.mark.parametrize("name", ["a", LONGEST])
def test_new_packages_are_clean(name: str, tmp_path: Path) -> None:
    for kind in KINDS:
        to = tmp_path / kind
        new_plugin(name, "--kind", kind, "--folder", str(to))

        ran(to, "ruff", "format", "--no-cache", "--check", ".")
        ran(
            to,
            *("ruff", "check", "--no-cache", "--select", "ALL", "--ignore", IGNORED),
            *("--per-file-ignores", "tests/*:S101"),
            *("--per-file-ignores", "tests/*:PLR2004"),
            ".",
        )


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_new_packages_are_typed_strictly(tmp_path: Path) -> None:
    # All in one folder: mypy reads what they import once.
    for kind in KINDS:
        for path, text in package(f"typed-{kind}", kind).items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)

    printed = ran(tmp_path, "mypy", ".")

    assert f"no issues found in {2 * len(KINDS)} source files" in printed


def test_it_says_what_it_wrote_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    made = new_plugin("kind-words", "--kind", "reranker")

    assert made.stdout.splitlines() == [
        "chorus-kind-words/pyproject.toml",
        "chorus-kind-words/README.md",
        "chorus-kind-words/chorus_kind_words.py",
        "chorus-kind-words/tests/test_kind_words.py",
    ]
    assert all(Path(path).is_file() for path in made.stdout.splitlines())
    assert made.stderr.startswith("next: cd chorus-kind-words, ")


def test_the_entry_point_is_the_plugins_name(tmp_path: Path) -> None:
    new_plugin("kind-words", "--kind", "scorer", "--folder", str(tmp_path / "new"))

    project = tomllib.loads((tmp_path / "new" / "pyproject.toml").read_text())[
        "project"
    ]

    assert project["name"] == "chorus-kind-words"
    assert "chorus" in project["dependencies"]
    assert project["entry-points"] == {
        "chorus.plugins": {"kind-words": "chorus_kind_words:KindWords"}
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_says_how_to_enable_it(kind: str) -> None:
    readme = package("kind-words", kind)["README.md"]

    assert "- use: kind-words" in readme
    assert KINDS[kind] in readme
    assert "$" not in readme


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "the name '' is none"),
        ("Kind", "the name 'Kind' is none"),
        ("kind_words", "the name 'kind_words' is none"),
        ("kind--words", "the name 'kind--words' is none"),
        ("kind-", "the name 'kind-' is none"),
        ("1-kind", "the name '1-kind' is none"),
        ("../kind", "the name '../kind' is none"),
        ("friendly\n", "is none"),
        ("freundlich-grüßend", "is none"),
        (LONGEST + "x", "is none"),
        ("k" * 100_000, "is none"),
        ("lambda", "'lambda' is a word of Python's"),
        ("match", "'match' is a word of Python's"),
        ("mmr", "'mmr' is a plugin of chorus already"),
        ("none", "the class of 'none' would be None"),
        ("warning", "the class of 'warning' would be Warning"),
        ("settings", "the class of 'settings' would be Settings"),
        ("reranker", "the class of 'reranker' would be Reranker"),
        ("base-model", "the class of 'base-model' would be BaseModel"),
        ("reranker-contract", "would be RerankerContract"),
    ],
)
def test_a_name_that_would_not_do_is_refused_in_one_sentence(
    name: str, told: str, tmp_path: Path
) -> None:
    made = new_plugin(name, "--kind", "reranker", "--folder", str(tmp_path / "new"))

    assert made.exit_code == 2
    assert told in made.stderr
    assert len(made.stderr.splitlines()) == 1
    assert len(made.stderr) < 300
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_has_something_in_it_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    made = new_plugin("kind-words", "--kind", "filter", "--folder", str(tmp_path))

    assert made.exit_code == 2
    assert made.stderr == (
        f"new-plugin: --folder: {tmp_path} is not empty; name a new folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    made = new_plugin("kind-words", "--kind", "filter", "--folder", str(tmp_path))

    assert made.exit_code == 0
    assert (tmp_path / "chorus_kind_words.py").is_file()


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("missing/new", "there is no folder"),
        ("file", "is a file"),
        ("file/new", "there is no folder"),
        ("n" * 300, "cannot be written"),
    ],
)
def test_a_folder_that_cannot_be_is_refused_in_one_sentence(
    folder: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    made = new_plugin(
        "kind-words", "--kind", "filter", "--folder", str(tmp_path / folder)
    )

    assert made.exit_code == 2
    assert told in made.stderr
    assert len(made.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_kind_is_told_the_kinds(tmp_path: Path) -> None:
    made = new_plugin("kind-words", "--kind", "rerankr", "--folder", str(tmp_path))

    assert made.exit_code == 2
    assert all(kind in made.stderr for kind in KINDS)
