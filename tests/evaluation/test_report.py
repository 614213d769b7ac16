"""The rows that evaluations and benchmarks print; their keys are a contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bot.evaluation.bench_retrieval import Bm25
from bot.evaluation.report import row
from bot.evaluation.timing import Contest, measured, raced


def test_a_row_has_the_means_their_intervals_and_the_number_of_questions() -> None:
    made = row("hybrid", {"mrr": [1.0, 1.0, 1.0], "declined": [0.0], "empty": []})

    assert made.as_json() == {
        "config": "hybrid",
        "metrics": {"mrr": 1.0, "declined": 0.0},
        "intervals": {"mrr": [1.0, 1.0], "declined": [0.0, 0.0]},
        "n": 3,
    }


def test_a_contest_reports_medians_after_a_warm_up_and_who_was_faster() -> None:
    rounds: list[tuple[str, int]] = []
    clock = spending([9.0, 9.0, 1.0, 4.0, 2.0, 4.0, 3.0, 10.0])

    made = measured(
        Contest(
            case="three rounds",
            ours=lambda number: rounds.append(("ours", number)),
            baseline="theirs",
            theirs=lambda number: rounds.append(("theirs", number)),
            unit="ms",
            per_second=1000,
        ),
        rounds=3,
        clock=clock.__next__,
    )

    assert rounds[:4] == [("ours", 0), ("theirs", 0), ("ours", 1), ("theirs", 1)]
    assert made.as_json() == {
        "case": "three rounds",
        "ours": 2000.0,
        "baseline": "theirs",
        "theirs": 4000.0,
        "unit": "ms",
        "ratio": 2.0,
        "spread": [[1000.0, 3000.0], [4000.0, 10000.0]],
        "also": {},
    }


def test_who_has_taken_enough_time_sits_the_other_rounds_out() -> None:
    clock = spending([5.0, 5.0, 1.0, 4.0, 1.0, 4.0, 1.0])

    times = raced(
        {"fast": lambda _: None, "slow": lambda _: None},
        rounds=3,
        enough_s=8,
        clock=clock.__next__,
    )

    assert times == {"fast": [1.0, 1.0, 1.0], "slow": [4.0, 4.0]}


def spending(seconds: list[float]) -> Iterator[float]:
    """A clock that is asked before and after each piece of work."""
    now = 0.0
    for spent in seconds:
        yield now
        now += spent
        yield now


def test_a_baseline_of_bm25_prefers_the_text_with_the_rarer_word() -> None:
    texts = [["refund", "days"], ["refund", "battery"], ["refund", "days"]]

    scores = Bm25(texts).scores(["refund", "battery", "unknown"])

    assert scores.argmax() == 1
    assert scores[0] == pytest.approx(scores[2])
