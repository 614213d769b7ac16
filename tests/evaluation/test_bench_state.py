"""Bench `state`: both ways keep the same, figures are right, a wrong order is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bot.conversation.redis_server import EmbeddedRedis
from bot.evaluation import bench_state_worker
from bot.evaluation.bench_state import (
    SCALE,
    Group,
    Plan,
    Round,
    Scale,
    measured,
    p50,
    p99,
    per_second,
    quantile,
)
from bot.evaluation.bench_state_ways import ChorusWay, JsonWay
from bot.evaluation.bench_state_worker import (
    OutOfOrder,
    bench_config,
    check_log,
    check_order,
    text_of,
)
from bot.evaluation.report import BenchRow

TINY = Scale(
    groups=[
        Group(
            lanes=1,
            rounds=2,
            plans=[
                Plan(history=2, ours=2, theirs=2),
                Plan(history=20, ours=2, theirs=1),
            ],
        ),
        Group(lanes=3, rounds=1, plans=[Plan(history=2, ours=2, theirs=1)]),
    ],
    byte_turns=3,
    conversations=4,
    messages=3,
    rounds=1,
    bursts=3,
)


# Figures


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]

    assert quantile(values, 0.5) == 3.0
    assert quantile(values, 0.99) == quantile(values, 1.0) == 5.0
    assert quantile([7.0], 0.5) == 7.0


def test_times_are_those_of_all_rounds_together() -> None:
    slow = Round(turns=[0.004] * 4, elapsed=1.0)
    fast = Round(turns=[0.002] * 6, elapsed=1.0)

    assert p50([slow, fast]) == 2.0
    assert p99([slow, fast]) == 4.0
    assert per_second([slow, fast]) == 5.0


def test_of_turns_per_second_more_is_better() -> None:
    row = BenchRow(
        case="all",
        ours=200.0,
        baseline="theirs",
        theirs=100.0,
        unit="turns/s",
        more_is_better=True,
    )

    assert row.ratio == 2.0


def test_a_row_without_a_baseline_has_no_ratio() -> None:
    row = BenchRow(case="burst", ours=0.5, unit="ms")

    assert row.as_json() == {
        "case": "burst",
        "ours": 0.5,
        "baseline": None,
        "theirs": None,
        "unit": "ms",
        "ratio": None,
        "spread": [],
        "also": {},
    }


# Order


@pytest.mark.parametrize(
    "numbers",
    [[1, 0], [0, 1, 1], [0], [0, 2], []],
    ids=["overtaken", "repeated", "lost at the end", "lost between", "lost"],
)
def test_replies_out_of_order_are_an_error(numbers: list[int]) -> None:
    texts = [text_of(number) for number in numbers]

    with pytest.raises(OutOfOrder, match="c1: the order was"):
        check_order("c1", texts, messages=2)


def test_replies_in_order_are_fine() -> None:
    check_order("c1", [text_of(0), text_of(1)], messages=2)


def test_a_log_that_lacks_a_reply_is_an_error() -> None:
    texts = [text_of(0), text_of(0), text_of(1)]

    with pytest.raises(OutOfOrder):
        check_log("c1", texts, turns=2)


# The two ways


@pytest.mark.services
async def test_both_ways_keep_the_same_of_the_same_turns(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        async with ChorusWay(server.url) as ours:
            theirs = JsonWay(ours.store)
            for way in (ours, theirs):
                await way.prepare("c1", turns=15)
                await way.prepare("c2", turns=1)
            async with ours.answering():
                for number in range(15, 20):
                    await ours.turn("c1", number)
                    await theirs.turn("c1", number)

            kept = await ours.texts("c1")
            assert kept == await theirs.texts("c1")
            check_log("c1", kept, turns=20)
            assert await ours.texts("c2") == await theirs.texts("c2")


def test_the_history_that_is_measured_is_not_cut_off() -> None:
    longest = max(plan.history for group in SCALE.groups for plan in group.plans)

    kept = bench_config().conversation.max_events

    assert kept >= 2 * 1.1 * longest


# The whole


@pytest.mark.services
def test_every_case_becomes_a_row_and_both_ways_are_checked() -> None:
    steps: list[tuple[int, int | None]] = []

    rows = measured(TINY, lambda step, done, total: steps.append((done, total)))

    cases = {row.case.partition(";")[0]: row for row in rows}
    assert list(cases)[:3] == [
        "turn 2, one lane, p50",
        "turn 2, one lane, p99",
        "turn 2, one lane, all",
    ]
    assert "turn 2, 3 lanes, all" in cases
    assert len(cases) == len(rows) == 3 * 3 + 1 + 2 + 2 + 2
    assert all(row.ours > 0 for row in rows)
    alone = [row for row in rows if row.baseline is None]
    assert [row.unit for row in alone] == ["turns/s", "turns/s", "ms", "ms"]
    assert all("appendfsync everysec" in row.case for row in alone)
    assert steps[-1] == (7, 7)


def test_the_process_that_answers_loads_nothing_heavy() -> None:
    statement = f"import {bench_state_worker.__name__}, sys; print(*sys.modules)"

    printed = subprocess.run(
        [sys.executable, "-c", statement], capture_output=True, text=True, check=True
    )

    assert {"torch", "transformers", "faiss"}.isdisjoint(printed.stdout.split())
