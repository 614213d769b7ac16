"""The samples in tests/data: every suite runs on its own, by one call."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bot.app import App
from bot.errors import ConfigError
from bot.evaluation.attribution import attribution
from bot.evaluation.dialogues import dialogues
from bot.evaluation.intents import intents
from bot.evaluation.pairs import pairs
from bot.evaluation.prompts import prompts
from bot.evaluation.questions import articles
from bot.evaluation.ratings import ratings
from bot.evaluation.report import Report
from bot.evaluation.retrieval import faq, retrieval_suite
from tests.evaluation.bots import SAMPLES, File, a_bot, quiet

Suite = Callable[..., Awaitable[Report]]

SUITES: dict[str, tuple[Suite, str]] = {
    "ratings": (ratings, "dstc9_rerank"),
    "attribution": (attribution, "begin"),
    "pairs": (pairs, "halueval"),
    "intents, banking77": (intents, "banking77"),
    "intents, clinc150": (intents, "clinc150"),
    "dialogues": (dialogues, "kdconv_zh"),
    "faq": (faq, "dstc9_rerank"),
}
FOLDERS = sorted(path.name for path in SAMPLES.iterdir() if path.is_dir())


async def run(name: str, folder: Path, app: App) -> Report:
    suite, _ = SUITES[name]
    return await suite([("bot", app)], File(path=folder), quiet)


@pytest.mark.parametrize("name", SUITES)
async def test_a_suite_runs_on_its_sample(name: str, tmp_path: Path) -> None:
    report = await run(name, SAMPLES / SUITES[name][1], a_bot(tmp_path))

    assert report.rows
    for row in report.rows:
        assert row.n >= 6
        assert set(row.intervals) == set(row.metrics)
        for metric, value in row.metrics.items():
            low, high = row.intervals[metric]
            assert math.isfinite(value)
            assert low - 1e-6 <= value <= high + 1e-6


@pytest.mark.parametrize("name", SUITES)
async def test_a_suite_finds_the_same_twice(name: str, tmp_path: Path) -> None:
    folder = SAMPLES / SUITES[name][1]

    one = await run(name, folder, a_bot(tmp_path / "one"))
    other = await run(name, folder, a_bot(tmp_path / "other"))

    assert one.rows == other.rows


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("broken", ["{", "no,such\tcolumns\n1,2\t3\n", "\x00"])
async def test_a_broken_file_is_refused_in_one_sentence(
    name: str, broken: str, tmp_path: Path
) -> None:
    for path in (SAMPLES / SUITES[name][1]).iterdir():
        (tmp_path / path.name).write_text(broken)

    with pytest.raises(ConfigError) as caught:
        await run(name, tmp_path, a_bot(tmp_path / "data"))

    where, _, what = str(caught.value).partition(": ")
    assert Path(where).parent == tmp_path
    assert what.count("; ") == 1, "what is wrong; what to do"
    assert "\n" not in what


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_xquads_sample_can_be_searched(language: str, tmp_path: Path) -> None:
    found = articles(SAMPLES / "xquad" / f"xquad.{language}.json")

    rows = await retrieval_suite(a_bot(tmp_path), found, quiet)

    assert [row.n for row in rows] == [18] * 3
    hybrid = rows[-1].metrics
    assert hybrid["hit@1"] <= hybrid["hit@5"] <= hybrid["recall@20"] == 1.0


async def test_frequent_questions_are_found_by_their_entity(tmp_path: Path) -> None:
    report = await run("faq", SAMPLES / "dstc9_rerank", a_bot(tmp_path))

    hybrid = report.rows[-1]
    assert hybrid.config == "bot: hybrid"
    assert hybrid.metrics["hit@5"] > 0.8


def test_the_sample_of_prompts_can_be_read() -> None:
    assert len(prompts(SAMPLES / "noveltybench")) == 20


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_sample_is_small_and_says_where_it_is_from_and_under_which_licence(
    folder: str,
) -> None:
    files = list((SAMPLES / folder).iterdir())

    notice = (SAMPLES / folder / "NOTICE.txt").read_text()

    assert sum(path.stat().st_size for path in files) < 60_000
    assert "source: " in notice
    assert "licence" in notice
    assert "changes: " in notice
