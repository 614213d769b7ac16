"""What all tests share: the real weights, fetched once into the user's cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest

from bot import config_file

SHIPPED = Path(__file__).parents[1] / "config" / "bot.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolders:
    embedder: Path
    generator: Path


@pytest.fixture(scope="session")
def model_folders() -> ModelFolders:
    from bot.generation.models import ModelStore  # noqa: PLC0415 (loads torch)

    shipped = config_file.load(SHIPPED)
    store = ModelStore(
        platformdirs.user_cache_path("chorus") / "models", lambda *_: None
    )
    return ModelFolders(
        embedder=store.fetch(shipped.knowledge.model, shipped.knowledge.model_sha256),
        generator=store.fetch(
            shipped.generation.model, shipped.generation.model_sha256
        ),
    )
