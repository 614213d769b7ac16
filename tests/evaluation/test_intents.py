"""Intents by the nearest example, and what is none of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bot.errors import ConfigError
from bot.evaluation.intents import intents
from tests.evaluation.bots import File, a_bot, by_name, quiet

TRAIN = [
    ("where is my card", "card_arrival"),
    ("track the card please", "card_arrival"),
    ("what is my balance", "balance"),
    ("how much money remains", "balance"),
    ("exchange rate of dollars", "rates"),
]
TEST = [("where is the card", "card_arrival"), ("how much money", "balance")]


def banking(folder: Path, test: list[tuple[str, str]]) -> File:
    for name, phrases in (("train", TRAIN), ("test", test)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "category"), *phrases])
    return File(path=folder)


def clinc(folder: Path, **more: object) -> File:
    path = folder / "data_small.json"
    path.write_text(json.dumps({"train": TRAIN, "test": TEST, **more}))
    return File(path=path)


async def test_a_phrase_has_the_intent_of_its_nearest_example(tmp_path: Path) -> None:
    file = banking(tmp_path, TEST)

    report = await intents([("mine", a_bot(tmp_path))], file, quiet)

    rows = by_name(report)
    assert list(rows) == ["mine: dense", "mine: bm25", "mine: both"]
    for row in rows.values():
        assert row.metrics == {"accuracy@1": 1.0, "accuracy@5": 1.0, "mrr": 1.0}
        assert row.n == 2


async def test_an_intent_is_as_near_as_its_nearest_example(tmp_path: Path) -> None:
    # "balance" has the nearest example, "card_arrival" the next, "rates" the last.
    file = banking(tmp_path, [("what is my", "card_arrival")])

    report = await intents([("mine", a_bot(tmp_path))], file, quiet)

    assert by_name(report)["mine: dense"].metrics == {
        "accuracy@1": 0.0,
        "accuracy@5": 1.0,
        "mrr": 0.5,
    }


async def test_an_intent_without_examples_is_never_found(tmp_path: Path) -> None:
    file = banking(tmp_path, [("where is my card", "lost_card")])

    report = await intents([("mine", a_bot(tmp_path))], file, quiet)

    assert by_name(report)["mine: dense"].metrics["mrr"] == 0.0


async def test_a_threshold_chosen_on_val_refuses_what_is_out_of_scope(
    tmp_path: Path,
) -> None:
    # In scope everything was seen before (cosine 1); out of scope no word was.
    file = clinc(
        tmp_path,
        test=[TRAIN[0], TRAIN[2], ("volcanoes erupt", "rates")],
        val=[TRAIN[1], TRAIN[3]],
        oos_val=[("purple elephants", "oos")],
        oos_test=[("purple volcanoes", "oos"), ("where is my card", "oos")],
    )

    report = await intents([("mine", a_bot(tmp_path))], file, quiet)

    dense = by_name(report)["mine: dense"].metrics
    assert dense["oos recall"] == 0.5  # the second one looks like an example
    assert dense["kept"] == pytest.approx(2 / 3)
    assert dense["kept and right"] == pytest.approx(2 / 3)
    # Against the first: two wins and a tie of nothing; the second: two ties, a loss.
    assert dense["oos auc"] == pytest.approx((2.5 + 1.0) / 6)


async def test_limit_takes_phrases_evenly(tmp_path: Path) -> None:
    file = banking(tmp_path, TEST * 4)
    file = File(path=file.path, limit=3)

    report = await intents([("mine", a_bot(tmp_path))], file, quiet)

    assert {row.n for row in report.rows} == {3}


async def test_words_that_fts_would_read_as_syntax_are_only_words(
    tmp_path: Path,
) -> None:
    file = banking(tmp_path, [('card AND NOT ( * :"', "card_arrival"), ("?!", "rates")])

    report = await intents([("mine", a_bot(tmp_path))], file, quiet)

    # One is found by its only word, the other has none.
    assert by_name(report)["mine: bm25"].metrics["accuracy@1"] == 0.5


async def test_an_intent_that_shares_no_word_is_not_found_by_words(
    tmp_path: Path,
) -> None:
    # By the alphabet "balance" would be the first of the equals.
    file = banking(tmp_path, [("volcanoes erupt", "balance")])

    report = await intents([("mine", a_bot(tmp_path))], file, quiet)

    assert by_name(report)["mine: bm25"].metrics["mrr"] == 0.0


async def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data_small.json"
    path.write_text('{"train": [["a", "b"]], "test": [["a"]]}')

    with pytest.raises(ConfigError, match=r"test\.0.*; give a JSON object with train"):
        await intents([("mine", a_bot(tmp_path))], File(path=path), quiet)
