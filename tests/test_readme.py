"""The README's examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def code_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def shipped_configuration() -> str:
    """Return the shipped file with paths that hold anywhere."""
    text = (ROOT / "config" / "bot.yaml").read_text()
    return text.replace("[knowledge]", f"[{ROOT}/config/knowledge]")


def test_the_reranker_of_the_readme_keeps_its_contract(tmp_path: Path) -> None:
    plugin, test = code_blocks()
    (tmp_path / "kind_words.py").write_text(plugin)
    (tmp_path / "test_kind_words.py").write_text(test)

    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path), "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert " passed" in finished.stdout


def test_the_reranker_of_the_readme_is_enabled_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "kind_words.py").write_text(code_blocks()[0])
    shipped = shipped_configuration()
    enabled = tmp_path / "bot.yaml"
    enabled.write_text(shipped.replace("- use: mmr", "- use: kind_words:KindWords"))

    finished = subprocess.run(
        [sys.executable, "-m", "bot", "check", str(enabled)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )

    assert finished.returncode == 0, finished.stderr
    assert "is fine" in finished.stdout


def test_every_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"`chorus ([a-z-]+)", README))

    helped = subprocess.run(
        [sys.executable, "-m", "bot", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert named
    assert [name for name in named if f"\n  {name} " not in helped.stdout] == []


def test_every_linked_page_is_there() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", README)

    assert linked
    assert [page for page in linked if not (ROOT / page).exists()] == []


def test_no_page_was_left_with_a_placeholder() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]

    left = [
        f"{page.name}: {line}"
        for page in pages
        for line in page.read_text().splitlines()
        if re.fullmatch(r"[A-Z]{4,}", line)
    ]

    assert left == []
