from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.pacing import Budget, Pace

GROUP = Budget(name="group", times=3, per_s=60)
OTHER = Budget(name="other", times=3, per_s=60)


class Time:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


def a_pace() -> tuple[Pace, Time]:
    time = Time()
    return Pace(time, time.sleep), time


async def test_a_full_budget_lets_its_number_through_at_once() -> None:
    pace, time = a_pace()

    for _ in range(3):
        await pace.wait(GROUP)

    assert time.now == 0


async def test_the_next_one_waits_until_there_is_room() -> None:
    pace, time = a_pace()

    for _ in range(4):
        await pace.wait(GROUP)

    assert time.now == pytest.approx(20)


async def test_one_budget_says_nothing_about_another() -> None:
    pace, time = a_pace()
    pace.close(GROUP, 100)

    await pace.wait(OTHER)

    assert time.now == 0


async def test_what_the_service_says_is_waited_for() -> None:
    pace, time = a_pace()
    pace.close(GROUP, 100)

    await pace.wait(GROUP, OTHER)

    assert time.now == 100


async def test_a_budget_that_is_closed_while_somebody_waits_is_waited_for() -> None:
    pace, time = a_pace()
    for _ in range(3):
        pace.now(GROUP)

    waiting = asyncio.create_task(pace.wait(GROUP))
    await asyncio.sleep(0)
    pace.close(GROUP, 90)
    await waiting

    assert time.now == 90


async def test_who_comes_first_goes_first() -> None:
    pace, _ = a_pace()
    order: list[int] = []

    async def go(number: int) -> None:
        await pace.wait(GROUP)
        order.append(number)

    await asyncio.gather(*(go(number) for number in range(8)))

    assert order == sorted(order)


async def test_who_gives_up_waiting_gives_back_the_place() -> None:
    pace, _ = a_pace()
    for _ in range(3):
        pace.now(GROUP)
    before = pace.wait_s(GROUP)

    waiting = asyncio.create_task(pace.wait(GROUP))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert pace.wait_s(GROUP) == before


def test_what_can_be_dropped_leaves_room_for_what_cannot() -> None:
    pace, _ = a_pace()

    through = [pace.now(GROUP, leave=1) for _ in range(4)]

    assert through == [True, True, False, False]
    assert pace.now(GROUP)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60))
def test_no_minute_sees_more_than_twice_the_budget(pauses: list[float]) -> None:
    pace, time = a_pace()
    taken: list[float] = []

    for pause in pauses:
        time.now += pause
        if pace.now(GROUP):
            taken.append(time.now)

    for start in taken:
        inside = [at for at in taken if start <= at < start + GROUP.per_s]
        assert len(inside) <= 2 * GROUP.times
