"""The whole connector, installed by teams: events in, replies out, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from bot.conversation.shelf import RedisShelf
from bot.errors import DeliveryError
from bot.model import Address, Reply
from connectors.slack import Slack
from tests.connectors.slack.connected import Core, Time, made
from tests.connectors.slack.many_workspaces.world import (
    INSTALL,
    KEY,
    REDIRECT,
    SITE,
    Browser,
)
from tests.connectors.slack.payloads import request_of
from tests.connectors.slack.service import SlackService

pytestmark = pytest.mark.services

TURN = "0123456789abcdef"


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
async def connector(
    slack: SlackService, shelf: RedisShelf, core: Core
) -> AsyncIterator[Slack]:
    oauth = {
        "client_id": "11.22",
        "client_secret": "client-secret",
        "encryption_key": KEY,
        "url": SITE,
    }
    connector = made(slack, Time(), bot_token=None, oauth=oauth)
    connector.keep_on(shelf)
    running = asyncio.create_task(connector.run(core.accept))
    await asyncio.sleep(0)
    yield connector
    connector.close()
    await running


async def test_the_connector_answers_the_pages(connector: Slack) -> None:
    assert {INSTALL, REDIRECT} < set(connector.paths)


async def test_a_team_is_heard_once_it_has_installed(
    slack: SlackService, connector: Slack, core: Core
) -> None:
    slack.install("T2", "xoxb-not-ours")
    slack.channel("D9", "im", team="T2")
    told = slack.customer.message("Hello", channel="D9")
    before = await connector.respond(request_of(told))
    assert (before.status, core.texts) == (200, [])

    page = await Browser(connector).install(slack, "T2")
    after = await connector.respond(request_of(told))

    assert (page.status, after.status, core.texts) == (200, 200, ["Hello"])
    assert core.events[0].address.account == "T2"


async def test_each_team_is_answered_with_its_own_token(
    slack: SlackService, connector: Slack
) -> None:
    browser = Browser(connector)
    for team, chat in (("T2", "D8"), ("T3", "D9")):
        await browser.install(slack, team)
        slack.channel(chat, "im", team=team)

    for team, chat in (("T2", "D8"), ("T3", "D9")):
        reply = Reply(text=f"For {team}")
        await connector.send(_address(team, chat), reply, f"{TURN[:-2]}{team}")

    assert [slack.shown("D8"), slack.shown("D9")] == [["For T2"], ["For T3"]]


@pytest.mark.parametrize("told", ["app_uninstalled", "tokens_revoked"])
async def test_after_the_end_nothing_is_kept_and_nothing_sent(
    slack: SlackService, connector: Slack, client: redis.Redis, told: str
) -> None:
    await Browser(connector).install(slack, "T2")
    kept = len(_entries(client))
    payload = slack.uninstall("T2")
    if told == "tokens_revoked":
        payload = slack.customer.tokens_revoked("T2")

    answer = await connector.respond(request_of(payload))

    assert (answer.status, kept, len(_entries(client))) == (200, 1, 0)
    with pytest.raises(DeliveryError, match="not installed") as caught:
        await connector.send(_address("T2", "D8"), Reply(text="Hello?"), TURN)
    assert not caught.value.retryable


def _address(team: str, chat: str) -> Address:
    return Address(platform="slack", account=team, chat=chat, user="U1")


def _entries(client: redis.Redis) -> list[bytes]:
    return [key for key in client.scan_iter("*shelf*") if client.ttl(key) == -1]
