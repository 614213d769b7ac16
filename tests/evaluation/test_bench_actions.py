from __future__ import annotations

import pytest

from bot.actions.calls import ActionAnswer
from bot.evaluation import bench_actions, demo_actions
from bot.evaluation.bench_actions import Different, Scale, measured

pytestmark = pytest.mark.processes

SMALL = Scale(rounds=1, runs=2)


def ignored(step: str, done: int, total: int | None) -> None:
    """Nobody watches."""


async def test_every_action_is_measured_in_process_and_over_http() -> None:
    rows = await measured(SMALL, ignored)

    cases = [row.case for row in rows]
    assert cases[:3] == [
        "no action at all, p50",
        "action_look_up_order, the same both ways: in process, p50",
        "action_look_up_order, the same both ways: over HTTP, p50",
    ]
    assert len(cases) == len(set(cases)) == 1 + 2 * len(demo_actions.ACTIONS)
    assert all(row.ours > 0 and row.theirs for row in rows)
    assert all(row.ours <= row.also["p99"] for row in rows)


async def test_an_action_that_differs_is_no_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def differently(place: object, call: object) -> ActionAnswer:
        return ActionAnswer(responses=[{"text": type(place).__name__}])

    monkeypatch.setattr(bench_actions, "outcome", differently)

    with pytest.raises(Different, match="action_look_up_order: in process"):
        await measured(SMALL, ignored)
