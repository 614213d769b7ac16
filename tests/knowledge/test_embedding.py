from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.errors import ModelError

pytestmark = pytest.mark.model


def test_meaning_is_near_and_other_meaning_far(minilm: Any) -> None:
    vectors = minilm.embed(
        ["How long does a refund take?", "Money comes back in days.", "I like tea."]
    )

    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_a_vector_does_not_depend_on_its_company(minilm: Any) -> None:
    texts = ["short", "a somewhat longer text " * 20, "", "another one"]

    together = minilm.embed(texts)
    alone = np.concatenate([minilm.embed([text]) for text in texts])

    assert together == pytest.approx(alone, abs=1e-5)


def test_empty_text_is_zero_and_hostile_text_is_text(minilm: Any) -> None:
    vectors = minilm.embed(["", " \n", "\ud800 a", "x" * 100_000, "\x00"])

    assert np.linalg.norm(vectors, axis=1) == pytest.approx([0, 0, 1, 1, 1], abs=1e-5)


def test_tokens_are_counted_without_the_marks_around_a_text(minilm: Any) -> None:
    assert minilm.count_tokens("") == 0
    assert minilm.count_tokens("Hello world") == 2
    assert minilm.count_tokens("word " * 1_000) == 1_000


def test_a_folder_that_lacks_a_file_is_named(tmp_path: Path) -> None:
    from bot.knowledge.embedding import MiniLM  # noqa: PLC0415 - loads torch

    with pytest.raises(ModelError, match=r"config.json, tokenizer.json, model"):
        MiniLM(tmp_path)


def test_weights_that_are_cut_off_are_refused(
    model_folders: Any, tmp_path: Path
) -> None:
    from bot.knowledge.embedding import MiniLM  # noqa: PLC0415 - loads torch

    for name in ("config.json", "tokenizer.json"):
        shutil.copy(model_folders.embedder / name, tmp_path)
    with (model_folders.embedder / "model.safetensors").open("rb") as weights:
        (tmp_path / "model.safetensors").write_bytes(weights.read(1_000_000))

    with pytest.raises(ModelError, match="not the weights of all-MiniLM-L6-v2"):
        MiniLM(tmp_path)
