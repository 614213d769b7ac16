"""Rankings against people, on sets whose figures are plain to see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.errors import ConfigError
from bot.evaluation.ratings import ratings
from tests.evaluation.bots import File, a_bot, by_name, quiet

ANSWER = "English and Spanish are spoken there."


def a_context(id_: int, *rated: tuple[str, float]) -> dict[str, object]:
    return {
        "id": id_,
        "faq_question": "What is spoken?",
        "faq_answer": ANSWER,
        "candidates": [
            {"response": text, "accuracy": value, "appropriateness": 6 - value}
            for text, value in rated
        ],
    }


def written(folder: Path, *contexts: dict[str, object]) -> Path:
    path = folder / "candidates.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in contexts))
    return path


# The grounded reply is the best one of the first set, and the worst of the second.
KIND = a_context(1, ("Klingon only", 1), ("English and Spanish", 5), ("No idea", 3))
UNKIND = a_context(2, ("English and Spanish", 1), ("No idea", 2))


async def test_rows_are_the_bounds_then_each_scorer_then_the_whole(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, KIND, UNKIND)

    report = await ratings([("mine", a_bot(tmp_path))], File(path=path), quiet)

    assert [row.config for row in report.rows] == [
        "random",
        "oracle",
        "mine: groundedness",
        "mine: consensus",
        "mine",
    ]
    assert {row.n for row in report.rows} == {2}


async def test_figures_of_a_scorer_by_hand(tmp_path: Path) -> None:
    path = written(tmp_path, KIND, UNKIND)

    report = await ratings([("mine", a_bot(tmp_path))], File(path=path), quiet)

    rows = by_name(report)
    assert rows["random"].metrics == {"accuracy": 2.25, "appropriateness": 3.75}
    assert rows["oracle"].metrics == {"accuracy": 3.5, "appropriateness": 5.0}
    grounded = rows["mine: groundedness"].metrics
    assert grounded["accuracy"] == 3.0  # 5 and 1
    assert grounded["gain"] == pytest.approx((2 - 0.5) / 2)  # 5 - 3 and 1 - 1.5
    assert grounded["appropriateness"] == 3.0  # 1 and 5
    assert grounded["share of gap"] == pytest.approx((3.0 - 2.25) / (3.5 - 2.25))
    # In the first set the best is above both others, which are equal: 2 of 2, 1 half.
    assert grounded["pairwise"] == pytest.approx((2.5 / 3 + 0) / 2)


async def test_sets_whose_replies_are_all_rated_alike_do_not_correlate(
    tmp_path: Path,
) -> None:
    alike = a_context(3, ("English and Spanish", 4), ("No idea", 4))
    path = written(tmp_path, KIND, alike)

    report = await ratings([("mine", a_bot(tmp_path))], File(path=path), quiet)

    kind_only = await ratings(
        [("mine", a_bot(tmp_path))], File(path=written(tmp_path, KIND)), quiet
    )
    for name in ("spearman", "pairwise"):
        with_alike = by_name(report)["mine: groundedness"].metrics[name]
        assert with_alike == by_name(kind_only)["mine: groundedness"].metrics[name]


async def test_appropriateness_may_be_missing(tmp_path: Path) -> None:
    bare = {**KIND, "candidates": [{"response": "a", "accuracy": 1}]}

    report = await ratings(
        [("mine", a_bot(tmp_path))], File(path=written(tmp_path, bare)), quiet
    )

    assert all("appropriateness" not in row.metrics for row in report.rows)


async def test_details_show_the_ranked_set_with_what_each_was_worth(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, {**KIND, "gold_response": "Both."})

    report = await ratings([("mine", a_bot(tmp_path))], File(path=path), quiet)

    (detail,) = report.details
    texts = [one.text for one in detail.record.candidates]
    worth = dict(zip(texts, detail.worth, strict=True))
    assert worth == {"Klingon only": 1, "English and Spanish": 5, "No idea": 3}
    assert detail.record.turn.question == "What is spoken?"
    assert ANSWER in detail.record.turn.passages[0].text
    assert detail.expected == ("Both.",)
    assert detail.config == "mine"


async def test_several_bots_are_compared_on_the_same_sets(tmp_path: Path) -> None:
    bots = [
        ("one", a_bot(tmp_path, weights={"consensus": 0.0})),
        ("other", a_bot(tmp_path, weights={"groundedness": 0.0})),
    ]

    report = await ratings(bots, File(path=written(tmp_path, KIND)), quiet)

    rows = by_name(report)
    alone = rows["one: groundedness"].metrics["accuracy"]
    assert rows["one"].metrics["accuracy"] == alone == 5
    assert rows["other"].metrics["accuracy"] < 5
    assert rows["other: consensus"].metrics == rows["one: consensus"].metrics
    assert list(rows).count("random") == 1


async def test_tuning_finds_weights_on_even_sets_and_reports_the_odd_ones(
    tmp_path: Path,
) -> None:
    # Consensus prefers "No idea" twice over; people prefer the grounded reply.
    sets = [
        a_context(id_, ("No idea", 1), ("No idea at all", 2), ("English", 5))
        for id_ in range(4)
    ]
    path = written(tmp_path, *sets)
    bot = a_bot(tmp_path, weights={"groundedness": 0.0})

    report = await ratings([("mine", bot)], File(path=path), quiet, tune=True)

    rows = by_name(report)
    assert [row.n for row in report.rows] == [2] * len(report.rows)
    assert rows["mine"].metrics["accuracy"] < 5
    assert rows["mine, tuned (groundedness 0.25)"].metrics["accuracy"] == 5
    assert rows["mine, tuned, where it was tuned"].metrics == {"accuracy": 5}
    assert rows["mine, tuned, held out in five folds"].metrics["accuracy"] == 5
    without = rows["mine, tuned, without groundedness"].metrics
    assert without["accuracy"] + without["what it adds"] == 5


async def test_tuning_on_one_half_only_is_refused(tmp_path: Path) -> None:
    file = File(path=written(tmp_path, KIND), half="tune")

    with pytest.raises(ConfigError, match="leave out --half"):
        await ratings([("mine", a_bot(tmp_path))], file, quiet, tune=True)


async def test_half_and_limit_choose_the_sets(tmp_path: Path) -> None:
    path = written(tmp_path, KIND, UNKIND, KIND, UNKIND)
    bots = [("mine", a_bot(tmp_path))]

    odd = await ratings(bots, File(path=path, half="report"), quiet)
    one = await ratings(bots, File(path=path, limit=1), quiet)

    assert by_name(odd)["random"].metrics["accuracy"] == 1.5
    assert by_name(one)["random"].metrics["accuracy"] == 3.0


async def test_a_rating_that_is_no_number_is_refused(tmp_path: Path) -> None:
    broken = {**KIND, "candidates": [{"response": "a", "accuracy": "good"}]}
    file = File(path=written(tmp_path, UNKIND, broken))

    with pytest.raises(ConfigError, match=r"line 2: candidates.0.accuracy: .*; give"):
        await ratings([("mine", a_bot(tmp_path))], file, quiet)


async def test_one_set_is_too_few_to_tune_and_report(tmp_path: Path) -> None:
    file = File(path=written(tmp_path, KIND))

    with pytest.raises(ConfigError, match="has too few records"):
        await ratings([("mine", a_bot(tmp_path))], file, quiet, tune=True)
