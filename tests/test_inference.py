"""The inference thread: order, limits, and what a hanging job costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import pytest

from bot.inference import InferenceThread, Overdue, Questions, apart


async def test_a_job_returns_its_result_from_another_thread() -> None:
    inference = InferenceThread()

    name = await inference.run(lambda: threading.current_thread().name)

    assert name == "inference"


async def test_what_a_job_raises_reaches_its_caller() -> None:
    inference = InferenceThread()

    with pytest.raises(ZeroDivisionError):
        await inference.run(lambda: 1 / 0)


async def test_jobs_run_one_at_a_time_and_in_order() -> None:
    inference = InferenceThread()
    seen: list[int] = []

    await asyncio.gather(
        *(inference.run(partial(seen.append, number)) for number in range(20))
    )

    assert seen == list(range(20))


async def test_a_hanging_job_is_given_up_and_the_next_ones_run() -> None:
    inference = InferenceThread()
    release = threading.Event()

    with pytest.raises(Overdue):
        await inference.run(release.wait, timeout_s=0.05)
    answers = await asyncio.gather(*(inference.run(lambda: 7) for _ in range(3)))

    assert answers == [7, 7, 7]
    release.set()


async def test_jobs_that_wait_behind_a_hanging_one_are_not_lost() -> None:
    inference = InferenceThread()
    release = threading.Event()

    hanging = asyncio.create_task(inference.run(release.wait, timeout_s=0.05))
    behind = [asyncio.create_task(inference.run(lambda: 1, 0.5)) for _ in range(5)]

    with pytest.raises(Overdue):
        await hanging
    assert await asyncio.gather(*behind) == [1] * 5
    release.set()


async def test_time_spent_waiting_for_others_does_not_count() -> None:
    inference = InferenceThread()
    release = threading.Event()

    slow = asyncio.create_task(inference.run(lambda: release.wait(0.2), timeout_s=5))
    quick = asyncio.create_task(inference.run(lambda: "done", timeout_s=0.1))

    assert await quick == "done"
    await slow


async def test_a_cancelled_caller_leaves_the_thread_in_order() -> None:
    inference = InferenceThread()
    release = threading.Event()
    ran: list[str] = []

    first = asyncio.create_task(inference.run(release.wait))
    dropped = asyncio.create_task(inference.run(lambda: ran.append("dropped")))
    await asyncio.sleep(0)
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    release.set()
    await first

    assert await inference.run(lambda: "next") == "next"
    assert ran == []


async def test_a_plugin_that_hung_three_times_is_asked_no_more() -> None:
    inference = InferenceThread()
    release = threading.Event()
    asked: list[str] = []

    async def ask(plugin: str, compute: Callable[[], bool]) -> list[str]:
        questions = Questions(inference, timeout_s=0.02)
        await questions.ask(plugin, compute, lambda _: None)
        return questions.problems

    def hangs() -> bool:
        asked.append("hangs")
        return release.wait()

    told = [await ask("hangs", hangs) for _ in range(5)]
    other = await ask("sound", lambda: True)
    release.set()

    assert len(asked) == 3
    assert "no answer within 0.02 s" in told[2][0]
    assert "left out, because it hung 3 times" in told[3][0]
    assert other == []


async def test_what_waits_apart_does_not_wait_for_the_thread() -> None:
    thread, release = InferenceThread(), threading.Event()
    busy = asyncio.ensure_future(thread.run(release.wait))

    beside = await apart(lambda: threading.current_thread().name)

    assert beside == "waiting"
    assert not busy.done()
    release.set()
    assert await busy


async def test_what_waits_apart_raises_to_whoever_asked() -> None:
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await apart(fails)
