"""A real Redis, a clock, and two processes' views of what is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from bot.config import ConversationConfig
from bot.conversation.redis_server import EmbeddedRedis
from bot.conversation.shelf import RedisShelf
from bot.conversation.store import Store
from connectors.slack.installations import Installations
from connectors.slack.oauth import OAuth
from tests.connectors.slack.many_workspaces.world import (
    Browser,
    Clock,
    an_app,
    an_installation,
    some_installations,
)
from tests.connectors.slack.service import SlackService


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def client(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
async def shelf(
    server: EmbeddedRedis, client: redis.Redis
) -> AsyncIterator[RedisShelf]:
    settings = ConversationConfig()
    async with Store(url=server.url, settings=settings, embedded=True) as store:
        yield store.shelf("slack")


@pytest.fixture
async def other_shelf(
    server: EmbeddedRedis, client: redis.Redis
) -> AsyncIterator[RedisShelf]:
    """The same shelf, as another process has it: by connections of its own."""
    settings = ConversationConfig()
    async with Store(url=server.url, settings=settings, embedded=True) as store:
        yield store.shelf("slack")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def installations(
    slack: SlackService, shelf: RedisShelf, clock: Clock
) -> Installations:
    return some_installations(slack, shelf, clock)


@pytest.fixture
def another(
    slack: SlackService, other_shelf: RedisShelf, clock: Clock
) -> Installations:
    return some_installations(slack, other_shelf, clock)


@pytest.fixture
async def rotating(slack: SlackService, installations: Installations) -> str:
    """Return the first token of T2: it ends twelve hours after NOW."""
    slack.grants.rotates = True
    installed = an_installation(slack)
    await installations.keep(installed)
    return installed.token


@pytest.fixture
def app(slack: SlackService, shelf: RedisShelf) -> OAuth:
    return an_app(slack, shelf)


@pytest.fixture
def browser(app: OAuth) -> Browser:
    return Browser(app)
