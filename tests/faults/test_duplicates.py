"""Messages that services deliver more than once, in any order, at the same time."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import defaultdict
from dataclasses import dataclass

import pytest

from bot.model import Event
from bot.testing.makers import an_address, an_event
from tests.faults.customers import Customers, proof
from tests.faults.figures import tell
from tests.faults.platform import Platform
from tests.faults.worker_process import Fleet, Settings

pytestmark = pytest.mark.services

CONVERSATIONS = 30
MESSAGES = 8
MOST = 4  # times that an event is delivered
AT_ONCE = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery of an event, from when to when it took, and what accept said."""

    event: Event
    began: float
    ended: float
    answer: str


async def delivered_shuffled(platform: Platform, times: int) -> list[Delivery]:
    """Deliver each of many events up to so many times, beside each other."""
    shuffler = random.Random(times)  # noqa: S311 (repeatable)
    events = [
        an_event(f"{chat}.{number}", address=an_address(f"c{chat}", platform="fake"))
        for chat in range(CONVERSATIONS)
        for number in range(MESSAGES)
    ]
    queue = [event for event in events for _ in range(1 + shuffler.randrange(MOST))]
    shuffler.shuffle(queue)
    deliveries: list[Delivery] = []

    async def deliver_some() -> None:
        while queue:
            event, began = queue.pop(), time.monotonic()
            answer = await platform.deliver(event)
            deliveries.append(
                Delivery(
                    event=event, began=began, ended=time.monotonic(), answer=answer
                )
            )

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(deliver_some())
    return deliveries


async def test_each_message_is_answered_once_however_often_it_is_delivered(
    fleet: Fleet, platform: Platform, settings: Settings
) -> None:
    for _ in range(2):
        await fleet.start(settings)

    deliveries = await delivered_shuffled(platform, MOST)
    messages = CONVERSATIONS * MESSAGES
    await platform.until(lambda: len(platform.arrived) >= messages, "not all came")

    accepted = [one for one in deliveries if one.answer == "accepted"]
    order = by_conversation(platform)
    overtaken = sum(
        order[first.event.address.key].index(first.event.text)
        > order[second.event.address.key].index(second.event.text)
        for first, second in itertools.permutations(accepted, 2)
        if first.event.address == second.event.address and first.ended < second.began
    )
    tell(
        f"{len(deliveries)} deliveries of {messages} messages, shuffled: accepted "
        f"{len(accepted)}, answered {len(platform.arrived)}, out of order {overtaken}"
    )
    assert {one.answer for one in deliveries} == {"accepted", "duplicate"}
    assert len(accepted) == len({one.event.text for one in accepted}) == messages
    assert sorted(itertools.chain(*order.values())) == sorted(
        one.event.text for one in accepted
    )
    assert overtaken == 0


def by_conversation(platform: Platform) -> dict[str, list[str]]:
    """Return what was answered, in order; each answer must know the one before it."""
    order: defaultdict[str, list[str]] = defaultdict(list)
    for arrived in platform.arrived:
        found, said = proof(arrived.text), order[arrived.conversation]
        assert found is not None
        assert found.number == len(said) + 1
        assert found.before == (said[-1] if said else None)
        said.append(found.question)
    return order


@pytest.mark.parametrize(("bursts", "messages"), [(60, 2), (40, 4)])
async def test_a_burst_to_one_conversation_is_answered_in_order_by_two_processes(
    fleet: Fleet, platform: Platform, settings: Settings, bursts: int, messages: int
) -> None:
    children = [await fleet.start(settings) for _ in range(2)]
    customers = Customers(platform)

    await customers.ask_all(bursts, messages)
    await customers.answered()

    turns = [await child.reading("chorus_wait_seconds_count") for child in children]
    tell(f"{bursts} bursts of {messages}: {customers.tally()}, by process {turns}")
    assert customers.tally().faults == (0, 0, 0, 0)
    assert (await customers.kept(settings.url)).faults == (0, 0, 0, 0)
    assert customers.tally().apologies == 0
    assert sum(turns) == bursts * messages
    assert all(turns)
