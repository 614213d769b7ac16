"""
What the tests of knowledge share: documents on disk and two embedders.

`words` is an embedder without weights: equal words, near vectors. It is at the edge of
what is tested here; tests marked `model` use the real MiniLM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bot.config import KnowledgeConfig
from bot.interfaces import Embedder
from bot.knowledge import lexical
from bot.knowledge.index import Index
from bot.knowledge.ingest import IngestReport, ingest


class WordsEmbedder:
    """The normalised sum of a pseudo-random vector for each word."""

    name = "words"
    dimension = 32
    languages = frozenset({"en"})

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded += texts
        return np.array([_sum_of_words(text, self.dimension) for text in texts])


def _sum_of_words(text: str, dimension: int) -> NDArray[np.float32]:
    total = np.zeros(dimension, np.float32)
    for term in lexical.content_terms(text):
        seed = int.from_bytes(hashlib.sha256(term.encode()).digest()[:4])
        total += np.random.default_rng(seed).normal(size=dimension)
    return total / max(float(np.linalg.norm(total)), 1e-9)


@pytest.fixture
def words() -> WordsEmbedder:
    return WordsEmbedder()


@pytest.fixture(scope="session")
def minilm(model_folders: Any) -> Embedder:
    from bot.knowledge.embedding import MiniLM  # noqa: PLC0415 - loads torch

    return MiniLM(model_folders.embedder)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Return a folder with three documents."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "refunds.md").write_text("# Refunds\n\nA refund takes five days.\n")
    (folder / "shipping.md").write_text("# Shipping\n\nParcels travel by train.\n")
    (folder / "batteries.txt").write_text("Batteries are charged overnight.\n")
    return folder


Ingest = Callable[..., IngestReport]


@pytest.fixture
def run_ingest(documents: Path, tmp_path: Path, words: WordsEmbedder) -> Ingest:
    """Return a function that ingests `documents` into the folder `index`."""

    def run(
        roots: Sequence[Path] = (documents,),
        embedder: Embedder = words,
        *,
        whole: bool = True,
        **settings: Any,
    ) -> IngestReport:
        config = KnowledgeConfig(model="none", **settings)
        folder = tmp_path / "index"
        return ingest(roots, folder, embedder, config, lambda *_: None, whole=whole)

    return run


@pytest.fixture
def open_index(tmp_path: Path, words: WordsEmbedder) -> Callable[..., Index]:
    def run(embedder: Embedder = words) -> Index:
        return Index.open(tmp_path / "index", embedder)

    return run
