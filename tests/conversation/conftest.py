"""A real server for the tests of a module, and an empty one for each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from bot.config import ConversationConfig
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.store import Store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def client(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """Look at an empty server, past the store."""
    with redis.Redis.from_url(server.url, decode_responses=True) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
async def store(server: EmbeddedRedis, client: redis.Redis) -> AsyncIterator[Store]:
    settings = ConversationConfig(
        window_events=4, max_events=10, messages_per_minute=10_000
    )
    async with Store(url=server.url, settings=settings, embedded=True) as opened:
        yield opened
