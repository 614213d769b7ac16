"""A bot whose models are fakes, for suites that read data; all between them is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.app import App, _Loaded
from bot.config import Config, GenerationConfig, KnowledgeConfig, RankingConfig, Use
from bot.evaluation.lines import HalfOrAll
from bot.evaluation.report import Report, Row
from bot.testing import HashEmbedder, ScriptedLanguageModel

SAMPLES = Path(__file__).parents[1] / "data"
USES = ("multinomial", "groundedness", "consensus", "best")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What an operator names."""

    path: Path | None = None
    limit: int | None = None
    half: HalfOrAll = "all"


def a_bot(
    data: Path,
    uses: Sequence[str] = USES,
    weights: Mapping[str, float] | None = None,
    model: ScriptedLanguageModel | None = None,
) -> App:
    config = Config(
        data=data,
        knowledge=KnowledgeConfig(model="fake"),
        generation=GenerationConfig(model="fake"),
        plugins=tuple(Use(use=name) for name in uses),
        ranking=RankingConfig(weights=weights or {}),
    )
    loaded = _Loaded(
        embedder=HashEmbedder(), language_model=model or ScriptedLanguageModel([])
    )
    return App.from_config(config, quiet, "test", loaded)


def quiet(step: str, done: int, total: int | None) -> None:
    """Progress that nobody looks at."""


def by_name(report: Report) -> dict[str, Row]:
    return {row.config: row for row in report.rows}
