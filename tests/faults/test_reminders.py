"""
Reminders outlive what can go wrong: each is brought up, and none twice.

Processes are killed right before and right after the step that moves a reminder, and
the server is killed, restarted and started again on its files.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.config import ConversationConfig
from bot.conversation.patience import Patience
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.reminders import Reminders
from bot.conversation.state import EVENTS
from bot.conversation.store import Store
from bot.model import Event
from bot.testing.makers import an_address
from tests.conversation.redis_processes import RedisServer, a_cluster
from tests.conversation.test_reminders import PAST, a_reminder, turn_with

pytestmark = [pytest.mark.services, pytest.mark.timeout(120)]

MANY = 100
YEAR = timedelta(days=365)

# Takes up what is due and hangs where it is told to, saying so.
_FIRING = """
import asyncio, sys
from bot.config import ConversationConfig
from bot.conversation.patience import Patience
from bot.conversation.reminders import Reminders
from bot.conversation.store import Store

url, place = sys.argv[1:]

async def reached(now):
    if now == place:
        print(now, flush=True)
        await asyncio.Event().wait()

async def main():
    async with Store(url=url, settings=ConversationConfig()) as store:
        fire = store._fire
        async def firing(**sent):
            await reached("before")
            answer = await fire(**sent)
            await reached("after")
            return answer
        store._fire = firing
        await Reminders(store, ["memory"], Patience(asyncio.sleep, patient=True)).run()

asyncio.run(main())
"""


@asynccontextmanager
async def a_store(url: str, shards: int = 1) -> AsyncIterator[Store]:
    settings = ConversationConfig(messages_per_minute=10_000, lane_limit=10_000)
    async with Store(url=url, settings=settings, shards=shards) as store:
        yield store


@asynccontextmanager
async def looking(store: Store) -> AsyncIterator[None]:
    """Look for what is due, as a process with workers does."""
    patience = Patience(asyncio.sleep, patient=True)
    task = asyncio.create_task(Reminders(store, ["memory"], patience).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def in_lane(store: Store, chat: str = "c1") -> list[Event]:
    key = an_address(chat).key
    lane = store.shards.of(key).of(key, "lane")
    client: Any = store.connection.commands
    entries = await client.lrange(lane, 0, -1)
    return [EVENTS.read(entry[29:]) for entry in entries]


def names_of(events: Sequence[Event]) -> list[object]:
    return [event.data["name"] for event in events]


async def killed_while_firing(url: str, place: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FIRING, url, place, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == f"{place}\n".encode()
    process.kill()
    await process.wait()
    process._transport.close()  # type: ignore[attr-defined]  # or it warns, later


@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_process_killed_while_it_fires_loses_and_repeats_nothing(
    redis_server: RedisServer, place: str
) -> None:
    async with a_store(redis_server.url) as store:
        await turn_with(store, reminders=[a_reminder("one"), a_reminder("other")])

        await killed_while_firing(redis_server.url, place)
        there = len(await in_lane(store))
        await store.fire(store.shards.all[0], ["memory"])

        assert there == (0 if place == "before" else 2)
        assert names_of(await in_lane(store)) == ["one", "other"]


async def test_the_embedded_server_keeps_them_from_one_life_to_the_next(
    tmp_path: Path,
) -> None:
    due, far = a_reminder("due"), a_reminder("far", due=datetime.now(UTC) + YEAR)
    with EmbeddedRedis(tmp_path) as server:
        async with a_store(server.url) as store:
            await turn_with(store, reminders=[due, far])

    with EmbeddedRedis(tmp_path) as server:
        async with a_store(server.url) as store:
            next_s = await store.fire(store.shards.all[0], ["memory"])
            there = await in_lane(store)

    assert there == [due.event]
    assert next_s is not None
    assert YEAR - timedelta(minutes=2) < timedelta(seconds=next_s) <= YEAR


async def test_a_server_that_is_killed_again_and_again_loses_and_repeats_nothing(
    redis_server: RedisServer,
) -> None:
    async with a_store(redis_server.url) as store:
        start = datetime.now(UTC) + timedelta(seconds=0.5)
        steps = [start + number * timedelta(seconds=0.02) for number in range(MANY)]
        many = [a_reminder(str(number), due=due) for number, due in enumerate(steps)]
        await turn_with(store, reminders=many)

        async with looking(store):
            for kill in range(1, 4):
                await _until_fired(store, MANY * kill // 5)
                redis_server.kill()
                redis_server.start()
            await _until_fired(store, MANY)

        fired = names_of(await in_lane(store))
    assert fired == [str(number) for number in range(MANY)]


async def _until_fired(store: Store, number: int) -> None:
    async with asyncio.timeout(30):
        while len(await in_lane(store)) < number:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.005)


async def test_they_are_fired_in_a_cluster(tmp_path: Path) -> None:
    chats = [f"chat {number}" for number in range(20)]
    with a_cluster(tmp_path) as cluster:
        async with a_store(cluster.url, shards=8) as store:
            for chat in chats:
                address = an_address(chat)
                reminder = a_reminder(due=PAST, address=address)
                await turn_with(store, address=address, reminders=[reminder])

            async with looking(store):
                fired = [await _first(store, chat) for chat in chats]

    assert [event.address.chat for event in fired] == chats


async def _first(store: Store, chat: str) -> Event:
    async with asyncio.timeout(30):
        while not (there := await in_lane(store, chat)):  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.005)
    return there[0]
