"""
Who may work where when processes are slow, stopped, stopping, or disagree about time.

A worker that was stopped for longer than its lease commits nothing and sends nothing,
because another one has taken over meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bot.conversation.keys import Shards
from bot.testing.makers import an_address, an_event
from tests.conversation.redis_processes import RedisServer
from tests.faults.customers import Conversation, Customers
from tests.faults.figures import tell
from tests.faults.platform import Platform
from tests.faults.worker_process import Child, Fleet, Plan, Point, Settings, eventually

pytestmark = pytest.mark.services

HOUR_S = 3600.0


def with_lease(settings: Settings, lease_s: float, **more: float) -> Settings:
    return replace(settings, workers={"lease_s": lease_s, "attempts": 1000, **more})


async def turns_begun(children: Sequence[Child]) -> float:
    return sum([await one.reading("chorus_wait_seconds_count") for one in children])


async def lost_leases(child: Child, of: str) -> float:
    return await child.reading("chorus_lease_losses_total", of=of)


# Slow


async def test_a_turn_five_times_as_long_as_the_lease_is_begun_and_answered_once(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    slow = replace(with_lease(settings, 0.6), answer_s=3.0)
    children = [await fleet.start(slow) for _ in range(2)]
    customers = Customers(platform)

    await customers.ask_all(4, 1)
    await customers.answered()

    lost = [await lost_leases(child, "lane") for child in children]
    begun = await turns_begun(children)
    tell(
        f"4 turns of 5 leases: begun {begun:g}, {customers.tally()}, leases lost {lost}"
    )
    assert begun == 4
    assert lost == [0, 0]
    assert customers.tally().faults == (0, 0, 0, 0)


async def test_a_send_longer_than_the_lease_is_sent_once(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    cannot_look = replace(with_lease(settings, 0.6), finds=False)
    for _ in range(2):
        await fleet.start(cannot_look)
    platform.latency_s = 2.0
    customers = Customers(platform)

    await customers.ask_all(4, 1)
    await eventually(lambda: outboxes_empty(fleet), "the sends were not taken out")

    tell(f"4 sends of 3 leases: {customers.tally()}")
    assert customers.tally().faults == (0, 0, 0, 0)


async def outboxes_empty(fleet: Fleet) -> bool:
    ok = [
        await child.reading("chorus_deliveries_total", platform="fake", outcome="ok")
        for child in fleet.alive
    ]
    return sum(ok) == 4


# Stopped, and going on later


@pytest.mark.timeout(600)
async def test_a_worker_stopped_past_its_lease_commits_nothing(
    fleet: Fleet, platform: Platform, settings: Settings, full: bool
) -> None:
    stops = 50 if full else 10
    await fleet.start(replace(settings, roles=["connectors"]))
    working = replace(settings, roles=["workers"], answer_s=0.05)
    children = [await fleet.start(working) for _ in range(2)]
    customers = Customers(platform)
    refused = 0.0
    async with asyncio.TaskGroup() as asking:
        for _ in range(6):
            asking.create_task(customers.keep_asking(8, 3))

        for child in itertools.islice(itertools.cycle(children), stops):
            lost = await lost_leases(child, "lane")
            await child.plan(Plan(point="mid generation", does="stop"))
            await eventually(child.is_stopped, "it was not stopped")
            question = fleet.journal[-1].text
            await platform.until(
                lambda question=question: customers.has_answer(question),  # type: ignore[misc]
                "nobody took over",
            )
            child.resume()
            await eventually(
                lambda child=child, lost=lost: has_lost(child, "lane", lost),  # type: ignore[misc]
                "it has not noticed",
            )
            refused += await lost_leases(child, "lane") - lost
        customers.stop()
    await customers.answered()

    tell(
        f"stopped {stops} times past the lease, {refused:g} turns refused, "
        f"{customers.tally()}"
    )
    assert refused >= stops
    assert customers.tally().faults == (0, 0, 0, 0)
    assert (await customers.kept(settings.url)).faults == (0, 0, 0, 0)


@pytest.mark.timeout(600)
async def test_a_commit_that_comes_while_another_worker_is_answering_is_refused(
    fleet: Fleet,
    platform: Platform,
    settings: Settings,
    redis_server: RedisServer,
    full: bool,
) -> None:
    stops = 50 if full else 10
    await fleet.start(replace(settings, roles=["connectors"]))
    working = replace(with_lease(settings, 0.6), roles=["workers"], answer_s=0.3)
    children = [await fleet.start(working) for _ in range(2)]
    customers = Customers(platform)

    for child in itertools.islice(itertools.cycle(children), stops):
        lost = await lost_leases(child, "lane")
        await child.plan(Plan(point="before commit", does="stop"))
        conversation = await asked_until_stopped(customers, child)
        key = conversation.address.key
        meta = Shards(1).of(key).of(key, "meta")
        before = redis_server.ask("HGET", meta, "lease")
        await eventually(
            lambda meta=meta, before=before: is_taken(redis_server, meta, before),  # type: ignore[misc]
            "nobody took over",
        )
        child.resume()
        await eventually(
            lambda child=child, lost=lost: has_lost(child, "lane", lost),  # type: ignore[misc]
            "it has not noticed",
        )
        await customers.answered()

    refused = sum(child.log.count("was not committed") for child in children)
    tell(f"stopped {stops} times, {refused} commits refused, {customers.tally()}")
    assert refused == stops
    assert customers.tally().faults == (0, 0, 0, 0)
    assert (await customers.kept(settings.url)).faults == (0, 0, 0, 0)


async def asked_until_stopped(customers: Customers, child: Child) -> Conversation:
    """Ask, one at a time, until the child is stopped; return whose turn it was."""
    while True:
        conversation = customers.new()
        await customers.ask(conversation)
        await eventually(
            lambda: is_over(child, customers), "it was neither answered nor stopped"
        )
        if await child.is_stopped():
            return conversation


async def is_over(child: Child, customers: Customers) -> bool:
    return not customers.missing or await child.is_stopped()


async def is_taken(server: RedisServer, meta: str, before: bytes) -> bool:
    """Say whether somebody else has begun on the lane."""
    return server.ask("HGET", meta, "lease") not in {before, None}


async def has_lost(child: Child, of: str, before: float) -> bool:
    return await lost_leases(child, of) > before


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", ["after opening", "after marking"])
async def test_a_process_stopped_before_it_sends_does_not_send_any_more(
    fleet: Fleet, platform: Platform, settings: Settings, point: Point, full: bool
) -> None:
    stops = 25 if full else 5
    await fleet.start(replace(settings, roles=["workers"]))
    sending = replace(settings, roles=["connectors"])
    children = [await fleet.start(sending) for _ in range(2)]
    customers = Customers(platform)

    for child in itertools.islice(itertools.cycle(children), stops):
        lost = await lost_leases(child, "outbox")
        await child.plan(Plan(point=point, does="stop"))
        # One at a time: nothing else of this process is on its way when it is stopped.
        await asked_until_stopped(customers, child)
        await customers.answered()
        child.resume()
        await eventually(
            lambda child=child, lost=lost: has_lost(child, "outbox", lost),  # type: ignore[misc]
            "it has not noticed",
        )

    tell(f"stopped {stops} times {point}, {customers.tally()}")
    assert len(fleet.journal) == stops
    assert customers.tally().faults == (0, 0, 0, 0)


# Stopping


async def test_a_process_told_to_end_finishes_its_turns(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    child = await fleet.start(replace(with_lease(settings, 60), answer_s=1.0))
    customers = Customers(platform)
    await customers.ask_all(3, 1)
    await eventually(lambda: have_begun(child, 3), "the turns did not begin")

    child.terminate()
    began = time.monotonic()
    code = await child.ended()

    took = time.monotonic() - began
    tell(f"ended after {took:.2f} s with code {code}, {customers.tally()}")
    assert code == 0
    assert customers.tally().faults == (0, 0, 0, 0)


async def have_begun(child: Child, turns: int) -> bool:
    return await turns_begun([child]) == turns


async def test_a_process_told_to_end_hands_back_what_takes_too_long(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    long_lease = with_lease(settings, 60, shutdown_s=0.3)
    child = await fleet.start(replace(long_lease, answer_s=600.0))
    customers = Customers(platform)
    await customers.ask_all(3, 1)
    await eventually(lambda: have_begun(child, 3), "the turns did not begin")
    await fleet.start(long_lease)

    child.terminate()
    began = time.monotonic()
    code = await child.ended()
    ended = time.monotonic() - began
    await customers.answered()
    answered = time.monotonic() - began

    tell(
        f"handed back after {ended:.2f} s, answered by another after {answered:.2f} s "
        f"(the lease is 60 s), code {code}, {customers.tally()}"
    )
    assert code == 0
    assert ended < 3
    assert answered < 5
    assert customers.tally().faults == (0, 0, 0, 0)


async def test_an_action_that_a_process_told_to_end_has_begun_is_not_run_again(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    long_lease = with_lease(settings, 60, shutdown_s=0.3)
    child = await fleet.start(long_lease)
    address = an_address(platform="fake")
    event = an_event("count", "command", address=address, data={"answer_s": 3})
    await platform.deliver(event)
    await eventually(child.has_begun, "the action did not begin")
    await fleet.start(long_lease)

    child.terminate()
    code = await child.ended()
    await platform.until(lambda: bool(platform.arrived), "no answer came")

    tell(f"an action cut off by SIGTERM: {platform.arrived[0].text!r}")
    assert code == 0
    assert platform.replies(address.key) == [settings.config.replies.apology]


# Clocks


async def test_clocks_that_jump_by_an_hour_change_nothing(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    children = [await fleet.start(settings) for _ in range(3)]
    customers = Customers(platform)
    shuffler = random.Random(1)  # noqa: S311 (repeatable)
    jumps = 0
    async with asyncio.TaskGroup() as asking:
        for _ in range(8):
            asking.create_task(customers.keep_asking(10, 3))
        while len(platform.arrived) < 400:
            child = shuffler.choice(children)
            await child.shift_clock(shuffler.choice([-HOUR_S, 0.0, HOUR_S]))
            jumps += 1
        customers.stop()
    await customers.answered()

    begun = await turns_begun(children)
    lost = [await lost_leases(child, "lane") for child in children]
    tell(f"clock jumps {jumps}, {customers.tally()}, leases lost {lost}")
    assert begun == customers.tally().turns
    assert lost == [0, 0, 0]
    assert customers.tally().apologies == 0
    assert customers.tally().faults == (0, 0, 0, 0)
    assert (await customers.kept(settings.url)).faults == (0, 0, 0, 0)


# Disagreeing


async def test_a_lease_that_another_process_takes_for_expired_is_counted_as_lost(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    long = replace(with_lease(settings, 60), answer_s=2.0)
    child = await fleet.start(long)
    event = an_event(address=an_address(platform="fake"))
    await platform.deliver(event)
    await eventually(child.has_begun, "the turn did not begin")
    other = await fleet.start(with_lease(settings, 0.4))

    await eventually(lambda: has_lost(child, "lane", 0), "it has not noticed")

    lost = await lost_leases(child, "lane")
    tell(f"leases lost to a process with a shorter one: {lost:g}")
    assert lost == 1
    assert await lost_leases(other, "lane") == 0
    assert len(platform.arrived) == 1
    assert "another worker answers it" in child.log
