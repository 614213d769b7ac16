from __future__ import annotations

import asyncio

import pytest

from bot.conversation.shelf import RedisShelf
from bot.conversation.store import Store

pytestmark = pytest.mark.services


@pytest.fixture
def shelf(store: Store) -> RedisShelf:
    return store.shelf("slack")


async def test_what_is_put_is_there_until_it_is_removed(shelf: RedisShelf) -> None:
    await shelf.put("stream", b"17.5")
    before = await shelf.get("stream")

    await shelf.remove("stream")

    assert (before, await shelf.get("stream")) == (b"17.5", None)


async def test_a_shelf_is_one_platforms(store: Store, shelf: RedisShelf) -> None:
    await shelf.put("stream", b"17.5")

    assert await store.shelf("telegram").get("stream") is None


async def test_what_is_there_is_not_replaced_by_what_must_be_absent(
    shelf: RedisShelf,
) -> None:
    first = await shelf.put("offer", b"mine", absent=True)
    again = await shelf.put("offer", b"mine", absent=True)
    other = await shelf.put("offer", b"theirs", absent=True)

    assert (first, again, other) == (True, True, False)
    assert await shelf.get("offer") == b"mine"


async def test_what_is_taken_is_given_to_one_only(shelf: RedisShelf) -> None:
    await shelf.put("state", b"abc")

    taken = await asyncio.gather(*(shelf.take("state") for _ in range(5)))

    assert [one for one in taken if one] == [b"abc"]


async def test_what_has_a_time_to_live_goes_away(shelf: RedisShelf) -> None:
    await shelf.put("brief", b"x", ttl_s=0.02)

    async with asyncio.timeout(5):
        while await shelf.get("brief") is not None:  # noqa: ASYNC110 (Redis tells nobody)
            await asyncio.sleep(0.01)


async def test_a_lock_lets_one_in_after_the_other(shelf: RedisShelf) -> None:
    inside, most = 0, 0

    async def refresh() -> None:
        nonlocal inside, most
        async with shelf.lock("T1", ttl_s=5):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(refresh() for _ in range(5)))

    assert most == 1


async def test_a_lock_held_too_long_is_given_up_quietly(shelf: RedisShelf) -> None:
    async with (
        asyncio.timeout(5),
        shelf.lock("T1", ttl_s=0.05),
        shelf.lock("T1", ttl_s=5),
    ):
        pass


async def test_a_name_cannot_be_read_in_redis(store: Store, shelf: RedisShelf) -> None:
    await shelf.put("chat {U123}", b"x")

    keys = await store.connection.commands.keys("*shelf*")

    assert len(keys) == 1
    assert b"U123" not in keys[0]
