"""
Redis that is killed, or cannot be reached, while everybody is at work.

What was acknowledged is kept and answered; what cannot be kept is not acknowledged; and
the processes go on by themselves when Redis is back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from tests.conversation.redis_processes import RedisServer
from tests.faults.customers import Customers
from tests.faults.figures import tell
from tests.faults.platform import Platform
from tests.faults.worker_process import Child, Fleet, Settings

pytestmark = pytest.mark.services

KILLS = 5
BETWEEN = 60  # answers between two kills
PROCESSES = 2
CUSTOMERS = 16
RECOVERED_S = 5.0
BUSY = 0.2  # of a core


async def killed_while_asked(
    server: RedisServer, platform: Platform, customers: Customers, kills: int
) -> list[float]:
    """Return, for each kill, the seconds until somebody was answered again."""
    gaps: list[float] = []
    async with asyncio.TaskGroup() as asking:
        for _ in range(CUSTOMERS):
            asking.create_task(customers.keep_asking(8, 3))
        for _ in range(kills):
            await arrivals(platform, BETWEEN)
            server.kill()
            server.start()
            back = time.monotonic()
            await arrivals(platform, 1)
            gaps.append(time.monotonic() - back)
        await arrivals(platform, BETWEEN)
        customers.stop()
    await customers.answered()
    return gaps


async def arrivals(platform: Platform, number: int) -> None:
    wanted = len(platform.arrived) + number
    await platform.until(lambda: len(platform.arrived) >= wanted, "no answers came")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_a_killed_server_loses_nothing_that_was_acknowledged(  # noqa: PLR0913, PLR0917 (fixtures)
    fleet: Fleet,
    platform: Platform,
    settings: Settings,
    quick_disk: Path,
    fsync: str,
    full: bool,
) -> None:
    kills = 20 if full else KILLS
    customers = Customers(platform)
    with RedisServer(quick_disk / "killed", ["--appendfsync", fsync]) as server:
        here = replace(settings, url=server.url)
        children = [await fleet.start(here) for _ in range(PROCESSES)]

        gaps = await killed_while_asked(server, platform, customers, kills)

        kept = await customers.kept(server.url)
    tell(
        f"server killed {kills} times ({fsync}), {customers.tally()}, answers again "
        f"after {max(gaps):.2f} s at most"
    )
    assert customers.tally().faults == (0, 0, 0, 0)
    assert kept.faults == (0, 0, 0, 0)
    assert all(child.is_alive for child in children)
    assert max(gaps) < RECOVERED_S


@contextmanager
def hanging(server: RedisServer) -> Iterator[None]:
    """Connections stay open, nothing answers."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def gone(server: RedisServer) -> Iterator[None]:
    """Connections are refused."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("outage", ["hangs", "is gone"])
async def test_while_redis_is_away_nothing_is_acknowledged(  # noqa: PLR0913, PLR0917 (fixtures)
    fleet: Fleet,
    platform: Platform,
    settings: Settings,
    redis_server: RedisServer,
    outage: Literal["hangs", "is gone"],
    full: bool,
) -> None:
    away_s = 30.0 if full else 6.0
    children = [await fleet.start(settings) for _ in range(PROCESSES)]
    customers = Customers(platform)
    # Some are being answered, some wait, when it goes away.
    await customers.ask_all(20, 3, answer_s=1.0)
    refused = customers.new()
    with (hanging if outage == "hangs" else gone)(redis_server):
        before = [child.cpu_s() for child in children]
        went = time.monotonic()
        answers = [await platform.offer(refused.next_event({})) for _ in children]
        acknowledged = len(customers.acknowledged)
        asking = asyncio.create_task(customers.ask(refused, 3))
        await asyncio.sleep(went + away_s - time.monotonic())
        busiest = busy(children, before, away_s)
        assert len(customers.acknowledged) == acknowledged
    back = time.monotonic()

    await asking
    accepted = time.monotonic() - back
    await customers.answered()

    tell(
        f"redis {outage} for {away_s:g} s: {customers.tally()}, CPU {busiest:.1%} of a "
        f"core, accepts after {accepted:.2f} s, all answered after "
        f"{time.monotonic() - back:.2f} s"
    )
    assert all(answer == "lost" or "redis.url" in answer for answer in answers)
    assert customers.tally().faults == (0, 0, 0, 0)
    assert (await customers.kept(settings.url)).faults == (0, 0, 0, 0)
    assert all(child.is_alive for child in children)
    assert accepted < RECOVERED_S
    assert busiest < BUSY


def busy(children: Sequence[Child], before: Sequence[float], seconds: float) -> float:
    used = [
        child.cpu_s() - earlier for child, earlier in zip(children, before, strict=True)
    ]
    return max(used) / seconds
