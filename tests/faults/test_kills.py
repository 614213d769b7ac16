"""
Processes that are killed (SIGKILL) at each step of a message's way, again and again.

With a connector that can look for what it sent, nothing may be lost, repeated, out of
order or made from a wrong state. One that cannot look takes the documented risk: what
was being sent at a kill is sent again, or never, as its `delivery` says; and nothing
else is.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bot.conversation import overview
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.testing.makers import an_address, an_event
from tests.faults.customers import Customers, proof
from tests.faults.figures import tell
from tests.faults.platform import Platform
from tests.faults.worker_process import Fleet, Plan, Point, Settings, eventually

pytestmark = pytest.mark.services

POINTS: Sequence[Point] = (
    "after accept",
    "after claim",
    "after load",
    "mid generation",
    "before commit",
    "after commit",
    "after marking",
    "before send",
    "after send",
    "after taking out",
)
AROUND_SENDING: Sequence[Point] = (
    "mid generation",
    "after commit",
    "before send",
    "after send",
)
PROCESSES = 3
CUSTOMERS = 24
MESSAGES = 8
AHEAD = 3
LONGEST_S = 1800
LONGEST_LIFE = 6  # passes of the point at which a process is killed


class Doom:
    """Plans so that each point gets its kills, and none when all have them."""

    def __init__(self, points: Sequence[Point], kills: int, fleet: Fleet) -> None:
        self._points = points
        self._kills = kills
        self._fleet = fleet
        self._random = random.Random(1)  # noqa: S311 (repeatable)

    def plan(self) -> Plan | None:
        kills = self.kills()
        planned = Counter(
            child.settings.plan.point
            for child in self._fleet.alive
            if child.settings.plan is not None
        )
        point = min(self._points, key=lambda one: kills[one] + planned[one])
        if kills[point] + planned[point] >= self._kills:
            return None
        return Plan(point=point, after=self._random.randint(1, LONGEST_LIFE))

    def kills(self) -> Counter[Point]:
        return Counter(noted.point for noted in self._fleet.journal)

    def is_over(self) -> bool:
        kills = self.kills()
        return all(kills[point] >= self._kills for point in self._points)


async def killed_again_and_again(  # noqa: PLR0913 (what a run consists of)
    fleet: Fleet,
    platform: Platform,
    settings: Settings,
    doom: Doom,
    *,
    ahead: int = AHEAD,
    commands: bool = True,
) -> Customers:
    """Let customers ask until the doom is over; return when all are answered."""
    customers = Customers(platform, commands=commands)
    keeping = asyncio.create_task(
        fleet.keep(PROCESSES, lambda: settings.planning(doom.plan()))
    )
    try:
        async with asyncio.TaskGroup() as asking:
            for _ in range(CUSTOMERS):
                asking.create_task(customers.keep_asking(MESSAGES, ahead))
            await platform.until(doom.is_over, "not all were killed", LONGEST_S)
            customers.stop()
        await eventually(lambda: is_idle(settings), "not all was answered", 120)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    return customers


async def is_idle(settings: Settings) -> bool:
    conversation = settings.config.conversation
    async with Store(url=settings.url, settings=conversation) as store:
        backlogs, _ = await overview.backlogs(store)
    return not backlogs


@pytest.mark.timeout(LONGEST_S)
async def test_killed_anywhere_nothing_is_lost_repeated_or_out_of_order(
    fleet: Fleet, platform: Platform, settings: Settings, full: bool
) -> None:
    doom = Doom(POINTS, 205 if full else 25, fleet)

    customers = await killed_again_and_again(fleet, platform, settings, doom)

    tell(f"kills {doom.kills().total()}, {customers.tally()}")
    assert customers.tally().faults == (0, 0, 0, 0)
    assert (await customers.kept(settings.url)).faults == (0, 0, 0, 0)


def explained(fleet: Fleet) -> Counter[str]:
    """Return how often each reply was being sent when its process was killed."""
    return Counter(key for noted in fleet.journal for key in noted.sending)


@pytest.mark.timeout(LONGEST_S)
async def test_what_cannot_be_looked_for_is_repeated_only_when_killed_while_sending(
    fleet: Fleet, platform: Platform, settings: Settings, full: bool
) -> None:
    cannot_look = replace(settings, finds=False, delivery="at_least_once", pauses=0.1)
    doom = Doom(AROUND_SENDING, 100 if full else 8, fleet)

    customers = await killed_again_and_again(fleet, platform, cannot_look, doom)

    kills, tally, could = doom.kills(), customers.tally(), explained(fleet)
    tell(
        f"at_least_once: kills {kills.total()} while {could.total()} replies were "
        f"being sent, {tally}"
    )
    assert (tally.lost, tally.out_of_order, tally.wrong_state) == (0, 0, 0)
    assert tally.repeated == sum(platform.repeated.values())
    assert {
        key: times for key, times in platform.repeated.items() if times > could[key]
    } == {}


@pytest.mark.timeout(LONGEST_S)
async def test_what_may_arrive_only_once_is_lost_only_when_killed_while_sending(
    fleet: Fleet, platform: Platform, settings: Settings, full: bool
) -> None:
    once = replace(settings, finds=False, delivery="at_most_once")
    doom = Doom(AROUND_SENDING, 100 if full else 8, fleet)

    customers = await killed_again_and_again(
        fleet, platform, once, doom, ahead=MESSAGES, commands=False
    )

    kills, tally, could = doom.kills(), customers.tally(), explained(fleet)
    problems = await problems_of(customers, settings)
    lost = {turn_id(event) for event in customers.missing}
    tell(
        f"at_most_once: kills {kills.total()} while {could.total()} replies were "
        f"being sent, {tally}"
    )
    assert (tally.repeated, tally.out_of_order, tally.wrong_state) == (0, 0, 0)
    assert lost <= set(could)
    assert lost <= {turn for turn, found in problems.items() if found}


async def problems_of(
    customers: Customers, settings: Settings
) -> dict[str, Sequence[str]]:
    """Return the problems in the record of each turn."""
    conversation = settings.config.conversation
    found: dict[str, Sequence[str]] = {}
    async with Store(url=settings.url, settings=conversation) as store:
        for event in customers.acknowledged:
            record = await store.record_of(event.address, turn_id(event))
            assert record is not None
            found[record.turn.id] = record.problems
    return found


async def test_a_message_that_kills_every_worker_is_set_aside_and_can_be_tried_again(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    deadly = Plan(point="mid generation", text="poison")
    mortal = replace(settings, workers={"lease_s": 1, "attempts": 3}, plan=deadly)
    events = [
        an_event(text, address=an_address(platform="fake"))
        for text in ("before", "poison", "after")
    ]
    keeping = asyncio.create_task(fleet.keep(2, lambda: mortal))
    try:
        for event in events:
            await platform.deliver(event)
        key = events[0].address.key
        await platform.until(lambda: len(platform.replies(key)) == 3, "no answers came")
        async with Store(
            url=settings.url, settings=settings.config.conversation
        ) as store:
            [dead] = await overview.dead_letters(store)
            for child in fleet.alive:
                await child.plan(None)
            await overview.retry(store, dead.id)
            await platform.until(
                lambda: len(platform.replies(key)) == 4, "it was not tried again"
            )
            left = await overview.dead_letters(store)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    before, apology, *others = platform.replies(key)
    tell(f"a message that kills: workers killed {len(fleet.journal)}, then {apology!r}")
    assert apology == settings.config.replies.apology
    proofs = [proof(text) for text in (before, *others)]
    assert [one and one.question for one in proofs] == ["before", "after", "poison"]
    assert (dead.id, dead.attempts) == (turn_id(events[1]), 3)
    assert len(fleet.journal) == 3
    assert left == []
