"""Right answers against made-up ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.errors import ConfigError
from bot.evaluation.pairs import pairs
from tests.evaluation.bots import File, a_bot, by_name, quiet

KNOWN = "The Eiffel Tower is 330 metres tall and stands in Paris."


def a_pair(right: str, wrong: str) -> dict[str, str]:
    return {
        "knowledge": KNOWN,
        "question": "How tall is it?",
        "right_answer": right,
        "hallucinated_answer": wrong,
    }


def written(folder: Path, *found: dict[str, str]) -> File:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return File(path=path)


async def test_each_scorer_and_the_whole_are_counted(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        a_pair("330 metres tall", "It was never measured by anybody."),
        a_pair("It rises above the roofs", "It stands in Paris."),
    )

    report = await pairs([("mine", a_bot(tmp_path))], file, quiet)

    rows = by_name(report)
    # The second answer is right, but the passage does not say so.
    assert rows["mine: groundedness"].metrics["pairwise"] == 0.5
    assert rows["mine"].metrics["pairwise"] == 0.5
    # 3 words against 6, and 5 against 4.
    assert rows["the shorter one"].metrics["pairwise"] == 0.5
    assert {row.n for row in report.rows} == {2}


async def test_a_scorer_that_sees_no_difference_is_at_chance(tmp_path: Path) -> None:
    file = written(tmp_path, a_pair("330 metres", "12 metres"))

    report = await pairs(
        [("mine", a_bot(tmp_path, ["multinomial", "consensus", "best"]))], file, quiet
    )

    assert by_name(report)["mine: consensus"].metrics["pairwise"] == 0.5
    assert by_name(report)["mine"].metrics["pairwise"] == 0.5


async def test_details_say_which_answer_was_right(tmp_path: Path) -> None:
    file = written(tmp_path, a_pair("330 metres", "Nobody knows that."))

    report = await pairs([("mine", a_bot(tmp_path))], file, quiet)

    (detail,) = report.details
    worth = {
        one.text: worth
        for one, worth in zip(detail.record.candidates, detail.worth, strict=True)
    }
    assert worth == {"330 metres": 1.0, "Nobody knows that.": 0.0}
    assert detail.metrics == {"pairwise": 1.0}


async def test_a_pair_without_a_wrong_answer_is_refused(tmp_path: Path) -> None:
    broken = a_pair("a", "b")
    del broken["hallucinated_answer"]

    with pytest.raises(ConfigError, match=r"line 1: hallucinated_answer: .*; give"):
        await pairs([("mine", a_bot(tmp_path))], written(tmp_path, broken), quiet)
