"""
Processes that die, or stand still, round an action: what may be done is done once.

An action cannot be asked whether it has been done. So from the moment when it may begin
its message is never tried again, and the customer gets the apology; before that moment
nothing was done, and whoever takes over does it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot import explain
from bot.config import RepliesConfig
from bot.conversation.state import turn_id
from bot.conversation.store import Store
from bot.conversation.worker import ACTED
from bot.model import Event, Record
from bot.testing.makers import an_address, an_event
from tests.conversation.redis_processes import RedisServer
from tests.faults.action_process import ActingFleet, ActingSettings, Place, dies
from tests.faults.platform import Platform
from tests.faults.worker_process import Plan, eventually

pytestmark = pytest.mark.services

APOLOGY = RepliesConfig().apology
HERE = an_address(platform="fake")
PAY = an_event("pay 7 euros", address=HERE)


@pytest.fixture
async def fleet(tmp_path: Path, platform: Platform) -> AsyncIterator[ActingFleet]:
    async with ActingFleet(tmp_path / "fleet") as fleet:
        yield fleet


@pytest.fixture
def settings(redis_server: RedisServer, platform: Platform) -> ActingSettings:
    return ActingSettings(
        url=redis_server.url,
        platform=str(platform.path),
        workers={"lease_s": 1, "attempts": 1000},
    )


async def replies(platform: Platform, number: int) -> list[str]:
    """Wait until so many replies are there; return all."""
    await platform.until(
        lambda: len(platform.replies(HERE.key)) >= number, "no reply came"
    )
    return platform.replies(HERE.key)


async def record_of(settings: ActingSettings, event: Event) -> Record:
    async with Store(url=settings.url, settings=settings.config.conversation) as store:
        record = await store.record_of(event.address, turn_id(event))
    assert record is not None
    return record


async def killed(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings, plan: Plan
) -> list[str]:
    """Let one process die in the turn and another one go on; return the replies."""
    doomed = await fleet.start(replace(settings, plan=plan))
    await platform.deliver(PAY)
    await doomed.ended()
    await fleet.start(settings)
    return await replies(platform, 1)


@pytest.mark.parametrize("place", ["the action began", "the action ended"])
async def test_killed_in_an_action_it_ran_once_and_the_customer_gets_the_apology(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings, place: Place
) -> None:
    heard = await killed(fleet, platform, settings, dies(place))

    record = await record_of(settings, PAY)
    assert fleet.paid == ["pay 7 euros"]
    assert heard == [APOLOGY]
    assert (record.outcome, record.why) == ("failed", ACTED)
    assert ACTED in explain.text(record)


async def test_what_may_not_be_tried_again_fails_once_and_at_once(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings
) -> None:
    await killed(fleet, platform, settings, dies("the action began"))

    after = fleet.alive[0]
    labels = {"platform": "fake", "outcome": "failed"}
    assert await after.reading("chorus_turns_total", **labels) == 1
    assert "tried again" not in after.log


async def test_killed_after_the_action_and_before_the_commit_it_ran_once(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings
) -> None:
    heard = await killed(fleet, platform, settings, Plan(point="before commit"))

    assert fleet.paid == ["pay 7 euros"]
    assert heard == [APOLOGY]
    assert (await record_of(settings, PAY)).why == ACTED


@pytest.mark.parametrize("plan", [Plan(point="after load"), dies("about to act")])
async def test_killed_before_the_action_may_begin_it_runs_once_and_answers(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings, plan: Plan
) -> None:
    heard = await killed(fleet, platform, settings, plan)

    record = await record_of(settings, PAY)
    assert fleet.paid == ["pay 7 euros"]
    assert heard == ["Paid."]
    assert (record.outcome, record.slots) == ("acted", {"paid": "yes"})


async def test_killed_when_the_action_may_have_begun_it_is_not_begun_again(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings
) -> None:
    heard = await killed(fleet, platform, settings, dies("may act"))

    assert fleet.paid == []
    assert heard == [APOLOGY]


async def test_killed_after_the_commit_the_answer_is_delivered_once(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings
) -> None:
    heard = await killed(fleet, platform, settings, Plan(point="after commit"))

    assert fleet.paid == ["pay 7 euros"]
    assert heard == ["Paid."]


async def test_the_message_after_one_that_was_killed_is_answered_as_ever(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings
) -> None:
    await killed(fleet, platform, settings, dies("the action began"))

    await platform.deliver(an_event("pay 8 euros", address=HERE))
    heard = await replies(platform, 2)

    assert fleet.paid == ["pay 7 euros", "pay 8 euros"]
    assert heard == [APOLOGY, "Paid."]


@pytest.mark.parametrize("place", ["about to act", "the action began"])
async def test_a_process_that_stands_still_past_its_lease_does_nothing_twice(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings, place: Place
) -> None:
    plan = replace(dies(place), does="stop")
    stopped = await fleet.start(replace(settings, plan=plan))
    await platform.deliver(PAY)
    await eventually(stopped.is_stopped, "it was not stopped")
    await fleet.start(settings)
    before = await replies(platform, 1)

    stopped.resume()
    await platform.deliver(an_event("pay 8 euros", address=HERE))
    heard = await replies(platform, 2)

    first = "Paid." if place == "about to act" else APOLOGY
    assert before == [first]
    assert heard == [first, "Paid."]
    assert fleet.paid == ["pay 7 euros", "pay 8 euros"]


async def test_killed_in_the_action_of_a_reminder_it_ran_once(
    fleet: ActingFleet, platform: Platform, settings: ActingSettings
) -> None:
    doomed = await fleet.start(replace(settings, plan=dies("the action began")))
    await platform.deliver(an_event("remind me", address=HERE))
    await doomed.ended()
    await fleet.start(settings)
    heard = await replies(platform, 2)

    assert fleet.paid == ["EXTERNAL: EXTERNAL_pay"]
    assert heard == ["Noted.", APOLOGY]
