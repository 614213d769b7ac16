"""A Redis Cluster that loses a node while everybody is at work, and gets it back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bot.conversation.keys import Shards
from tests.conversation.redis_processes import Cluster, RedisServer, a_cluster
from tests.faults.customers import Conversation, Customers
from tests.faults.figures import tell
from tests.faults.platform import Platform
from tests.faults.worker_process import Child, Fleet, Settings, eventually

pytestmark = pytest.mark.services

SHARDS = 16
PROCESSES = 2
CUSTOMERS = 24
SOON_S = 3.0  # a lease, and a bit for a busy machine
LOST = "chorus_lease_losses_total"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with a_cluster(tmp_path / "cluster") as cluster:
        yield cluster


@pytest.fixture
def clustered(settings: Settings, cluster: Cluster) -> Settings:
    return replace(settings, url=cluster.url, shards=SHARDS)


def node_of(cluster: Cluster, conversation: Conversation) -> RedisServer:
    key = conversation.address.key
    return cluster.node_of(Shards(SHARDS).of(key).of(key, "meta"))


def on_node(
    cluster: Cluster, customers: Customers, node: RedisServer, *, there: bool
) -> Conversation:
    """Return a new customer whose conversation is kept there, or elsewhere."""
    while True:
        conversation = customers.new()
        if (node_of(cluster, conversation) is node) == there:
            return conversation


@pytest.mark.timeout(300)
async def test_a_node_that_is_killed_and_comes_back_loses_nothing(
    fleet: Fleet,
    platform: Platform,
    cluster: Cluster,
    clustered: Settings,
    full: bool,
) -> None:
    kills = 5 if full else 1
    for _ in range(PROCESSES):
        await fleet.start(clustered)
    customers = Customers(platform)
    offers: list[tuple[bool, str]] = []
    async with asyncio.TaskGroup() as asking:
        for _ in range(CUSTOMERS):
            asking.create_task(customers.keep_asking(8, 3))
        for number in range(kills):
            await arrivals(platform, 200)
            node = cluster.nodes[number % len(cluster.nodes)]
            node.kill()
            offers += await offered_while_down(
                cluster, node, Customers(platform, f"stranger{number}-"), platform
            )
            node.start()
            cluster.wait_until_ok()
            await arrivals(platform, 200)
        customers.stop()
    await customers.answered()

    elsewhere = [answer for there, answer in offers if not there]
    there = [answer for there, answer in offers if there]
    tell(
        f"cluster: nodes killed {kills}, {customers.tally()}; while down: accepted "
        f"{elsewhere.count('accepted')} of {len(elsewhere)} of the others' "
        f"conversations, {there.count('accepted')} of {len(there)} of its own"
    )
    assert set(elsewhere) == {"accepted"}
    assert "accepted" not in there
    assert customers.tally().faults == (0, 0, 0, 0)
    kept = await customers.kept(clustered.url, SHARDS)
    assert kept.faults == (0, 0, 0, 0)


async def arrivals(platform: Platform, number: int) -> None:
    wanted = len(platform.arrived) + number
    await platform.until(lambda: len(platform.arrived) >= wanted, "no answers came")


async def offered_while_down(
    cluster: Cluster, node: RedisServer, strangers: Customers, platform: Platform
) -> list[tuple[bool, str]]:
    """Offer a message of each of many; return whether the node keeps theirs."""
    conversations = [
        on_node(cluster, strangers, node, there=number % 2 == 0) for number in range(20)
    ]
    events = [one.next_event({}) for one in conversations]
    answers = await asyncio.gather(*map(platform.offer, events))
    return [
        (node_of(cluster, one) is node, answer)
        for one, answer in zip(conversations, answers, strict=True)
    ]


async def test_while_a_node_is_down_nothing_of_the_others_conversations_is_lost(
    fleet: Fleet, platform: Platform, cluster: Cluster, clustered: Settings
) -> None:
    """The processes hold lanes of both, and turns are longer than a lease."""
    slow = replace(clustered, answer_s=1.5)
    children = [await fleet.start(slow) for _ in range(PROCESSES)]
    node = cluster.nodes[0]
    there, elsewhere = customers_of(cluster, platform, node)
    await asyncio.gather(there.ask_each(), elsewhere.ask_each())
    await eventually(lambda: have_begun(children, 12), "not all turns began")

    node.kill()
    began = time.monotonic()
    try:
        await elsewhere.answered(10)
        answered = time.monotonic() - began
        lost = [await one.reading(LOST, of="lane") for one in children]
    finally:
        node.start()
    await there.answered()

    tell(
        f"a node is down during turns of 1.5 leases: {elsewhere.tally()} elsewhere, "
        f"after {answered:.2f} s, leases lost {lost}; {there.tally()} there"
    )
    assert lost == [0, 0]
    assert there.tally().faults == elsewhere.tally().faults == (0, 0, 0, 0)


async def test_while_a_node_is_down_the_others_replies_that_had_to_wait_are_sent(
    fleet: Fleet, platform: Platform, cluster: Cluster, clustered: Settings
) -> None:
    """For longer than a lease; the process holds outboxes of both."""
    await fleet.start(clustered)
    node = cluster.nodes[0]
    there, elsewhere = customers_of(cluster, platform, node)
    platform.retry_after_s = 2.0
    platform.treatments.extend(["later"] * 12)
    await asyncio.gather(there.ask_each(), elsewhere.ask_each())
    await eventually(lambda: all_were_sent_back(platform), "not all were sent once")

    node.kill()
    began = time.monotonic()
    try:
        await elsewhere.answered(10)
        answered = time.monotonic() - began
    finally:
        node.start()
    await there.answered()

    tell(
        f"a node is down while replies wait for 2 leases: {elsewhere.tally()} "
        f"elsewhere, after {answered:.2f} s; {there.tally()} there"
    )
    assert there.tally().faults == elsewhere.tally().faults == (0, 0, 0, 0)
    assert answered < platform.retry_after_s + SOON_S


async def all_were_sent_back(platform: Platform) -> bool:
    return not platform.treatments


async def test_while_a_node_is_down_a_dead_workers_other_conversations_are_taken_over(
    fleet: Fleet, platform: Platform, cluster: Cluster, clustered: Settings
) -> None:
    await fleet.start(replace(clustered, roles=["connectors"]))
    workers = replace(clustered, roles=["workers"])
    doomed = await fleet.start(replace(workers, answer_s=60.0))
    node = cluster.nodes[0]
    _, elsewhere = customers_of(cluster, platform, node)
    await elsewhere.ask_each()
    await eventually(lambda: have_begun([doomed], 6), "not all turns began")
    await fleet.start(workers)

    node.kill()
    doomed.kill()
    began = time.monotonic()
    try:
        await elsewhere.answered(10)
        answered = time.monotonic() - began
    finally:
        node.start()

    tell(f"a node and a worker are gone: taken over and answered in {answered:.2f} s")
    assert elsewhere.tally().faults == (0, 0, 0, 0)
    assert answered < SOON_S


def customers_of(
    cluster: Cluster, platform: Platform, node: RedisServer
) -> tuple[Customers, Customers]:
    """Return six customers whose conversations the node keeps, and six others."""
    both = Customers(platform, "here"), Customers(platform, "elsewhere")
    for customers, there in zip(both, (True, False), strict=True):
        customers.conversations = [
            on_node(cluster, customers, node, there=there) for _ in range(6)
        ]
    return both


async def have_begun(children: Sequence[Child], turns: int) -> bool:
    begun = [await one.reading("chorus_wait_seconds_count") for one in children]
    return sum(begun) == turns
