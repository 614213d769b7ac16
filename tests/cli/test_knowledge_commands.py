"""
The commands of knowledge on real parts: documents, an index and this process's log.

Only the embedder is a small one, from a plugin, so that no weights are needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

PLUGIN = """
import numpy as np
from pydantic import BaseModel
from bot import hookimpl

class Letters:
    name, dimension, languages = "letters", 26, frozenset({"en"})

    def embed(self, texts):
        letters = map(chr, range(ord("a"), ord("z") + 1))
        counts = [[text.lower().count(one) for text in texts] for one in letters]
        vectors = np.array(counts, np.float32).T
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)

class Plugin:
    class Settings(BaseModel, frozen=True, extra="forbid"):
        pass

    def __init__(self, settings):
        pass

    @hookimpl
    def embedders(self):
        return [Letters()]
"""
CONFIG = """
knowledge: {paths: [documents], model: none, embedder: letters}
generation: {model: none, sampler: multinomial}
plugins: [{use: "letters:Plugin"}, {use: multinomial}, {use: best}]
"""


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    """Return the folder of a bot with two documents."""
    (tmp_path / "letters.py").write_text(PLUGIN)
    (tmp_path / "bot.yaml").write_text(CONFIG)
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "refunds.md").write_text("A refund takes five days.")
    (documents / "shipping.md").write_text("Parcels travel by train.")
    return tmp_path


def chorus(bot: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bot", "--config", "bot.yaml", *arguments],
        cwd=bot,
        env={**os.environ, "PYTHONPATH": str(bot)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_ingest_of_a_path_leaves_what_is_not_under_it(bot: Path) -> None:
    (bot / "new.md").write_text("Helmets are sold in three sizes.")
    chorus(bot, "ingest")

    one = chorus(bot, "ingest", "new.md")
    all_configured = chorus(bot, "ingest")

    assert "1 added, 0 changed, 0 removed, 2 unchanged" in one.stdout
    assert "0 added, 0 changed, 1 removed, 2 unchanged" in all_configured.stdout


def test_a_missing_path_on_the_command_line_is_not_blamed_on_the_file(
    bot: Path,
) -> None:
    chorus(bot, "ingest")

    result = chorus(bot, "ingest", "missing")

    assert result.returncode == 2
    assert "missing: no such file or folder; put it there or correct" in result.stderr
    assert "knowledge.paths" not in result.stderr
    assert "0 removed, 2 unchanged" in result.stdout


def test_search_says_once_that_a_damaged_index_is_served_as_it_was_before(
    bot: Path,
) -> None:
    chorus(bot, "ingest")
    (bot / "documents" / "refunds.md").write_text("A refund takes nine days.")
    chorus(bot, "ingest")
    [vectors] = bot.glob("**/index/generations/2/vectors.faiss")
    vectors.write_bytes(vectors.read_bytes()[:-1])

    result = chorus(bot, "search", "How long does a refund take?")

    assert "five days" in " ".join(result.stdout.split())
    assert result.stderr.count("generation 1 is served instead") == 1
    assert result.stderr.count("vectors.faiss") == 1
