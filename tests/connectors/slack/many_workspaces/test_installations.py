"""What is kept of installations, and for how long it is believed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from bot.conversation.shelf import RedisShelf
from bot.errors import DeliveryError
from connectors.slack.installations import Installations
from tests.connectors.slack.faults import (
    Held,
)
from tests.connectors.slack.many_workspaces.world import (
    HOUR_S,
    INSTALL,
    KEY,
    NEWER_KEY,
    NOW,
    SITE,
    Clock,
    Unwell,
    an_installation,
    some_installations,
)
from tests.connectors.slack.service import SlackService

pytestmark = pytest.mark.services


# What is kept


async def test_what_is_kept_shows_neither_token_nor_team(
    slack: SlackService, installations: Installations, client: redis.Redis
) -> None:
    slack.grants.rotates = True
    installed = an_installation(slack)

    await installations.keep(installed)

    (key,) = _entries(client)
    kept = key + (client.get(key) or b"")  # type: ignore[operator]
    for shown in (installed.token, installed.refresh_token, '"T2"', "account"):
        assert shown.encode() not in kept


async def test_a_workspace_of_another_process_is_found(
    slack: SlackService, installations: Installations, another: Installations
) -> None:
    installed = an_installation(slack)
    await installations.keep(installed)

    workspace = await another.of("T2")

    assert workspace == installed.workspace


async def test_nothing_that_can_be_printed_holds_a_token(
    slack: SlackService, installations: Installations
) -> None:
    slack.grants.rotates = True
    installed = an_installation(slack)
    await installations.keep(installed)

    printed = repr([installed, await installations.of("T2"), vars(installations)])

    assert "xox" not in printed


async def test_a_team_that_never_installed_is_told_where_to(
    installations: Installations,
) -> None:
    with pytest.raises(DeliveryError, match=SITE + INSTALL) as caught:
        await installations.of("T9")

    assert not caught.value.retryable


# Keys


async def test_with_a_wrong_key_a_sentence_says_so_and_nothing_is_lost(
    slack: SlackService,
    shelf: RedisShelf,
    clock: Clock,
    installations: Installations,
) -> None:
    installed = an_installation(slack)
    await installations.keep(installed)
    mistaken = some_installations(slack, shelf, clock, NEWER_KEY)

    with pytest.raises(DeliveryError) as caught:
        await mistaken.of("T2")

    assert caught.value.retryable
    assert "oauth.encryption_key" in str(caught.value)
    assert "add the key it was kept with" in str(caught.value)
    again = some_installations(slack, shelf, clock)
    assert (await again.of("T2")).token == installed.token


async def test_a_newer_key_takes_over_team_by_team(
    slack: SlackService,
    shelf: RedisShelf,
    clock: Clock,
    installations: Installations,
) -> None:
    installed = an_installation(slack)
    await installations.keep(installed)

    during = await some_installations(slack, shelf, clock, NEWER_KEY, KEY).of("T2")

    after = await some_installations(slack, shelf, clock, NEWER_KEY).of("T2")
    assert during.token == after.token == installed.token
    assert slack.calls == []


async def test_another_teams_entry_in_a_teams_place_is_refused(
    slack: SlackService,
    shelf: RedisShelf,
    installations: Installations,
    client: redis.Redis,
) -> None:
    await installations.keep(an_installation(slack, "T2"))
    (first,) = _entries(client)
    await installations.keep(an_installation(slack, "T3"))
    (second,) = set(_entries(client)) - {first}
    client.set(first, client.get(second) or b"")

    with pytest.raises(DeliveryError, match="cannot be read"):
        await installations.of("T2")


async def test_garbage_in_a_teams_place_is_refused(
    slack: SlackService, installations: Installations, client: redis.Redis
) -> None:
    await installations.keep(an_installation(slack))
    (key,) = _entries(client)
    for garbage in (b"", b"\xff\x00", b"gAAAAA", b"{}"):
        client.set(key, garbage)

        with pytest.raises(DeliveryError, match="cannot be read"):
            await installations.of("T2")


# Memory


async def test_a_workspace_is_known_for_a_minute(
    slack: SlackService, shelf: RedisShelf, clock: Clock, another: Installations
) -> None:
    counted = Unwell(shelf)
    installations = some_installations(slack, counted, clock)
    await another.keep(an_installation(slack))

    for clock.now in (NOW, NOW + 1, NOW + 59):
        await installations.of("T2")
    within = counted.calls.count("get")
    clock.now = NOW + 61
    await installations.of("T2")

    assert (within, counted.calls.count("get")) == (1, 2)


async def test_a_clock_that_was_set_back_makes_nobody_known_for_longer(
    slack: SlackService, shelf: RedisShelf, clock: Clock, another: Installations
) -> None:
    installations = some_installations(slack, shelf, clock)
    await another.keep(an_installation(slack))
    await installations.of("T2")
    await another.forget("T2")
    clock.now -= HOUR_S

    with pytest.raises(DeliveryError):
        await installations.of("T2")


# Uninstalled


async def test_who_uninstalled_is_forgotten(
    slack: SlackService, installations: Installations, client: redis.Redis
) -> None:
    await installations.keep(an_installation(slack))
    await installations.of("T2")

    await installations.forget("T2")

    with pytest.raises(DeliveryError, match="not installed") as caught:
        await installations.of("T2")
    assert not caught.value.retryable
    assert client.keys("*shelf*") == []


async def test_forgetting_one_team_leaves_the_others(
    slack: SlackService, installations: Installations
) -> None:
    await installations.keep(an_installation(slack, "T2"))
    await installations.keep(an_installation(slack, "T3"))

    await installations.forget("T2")

    assert (await installations.of("T3")).team == "T3"


async def test_what_another_process_forgot_is_noticed_within_a_minute(
    slack: SlackService,
    installations: Installations,
    another: Installations,
    clock: Clock,
) -> None:
    await installations.keep(an_installation(slack))
    await installations.of("T2")

    await another.forget("T2")

    clock.now += 61
    with pytest.raises(DeliveryError, match="not installed"):
        await installations.of("T2")


async def test_who_is_forgotten_twice_and_installs_again_is_there(
    slack: SlackService, installations: Installations
) -> None:
    await installations.keep(an_installation(slack))
    await installations.forget("T2")
    await installations.forget("T2")
    installed = an_installation(slack)

    await installations.keep(installed)

    assert (await installations.of("T2")).token == installed.token


async def test_a_renewal_on_its_way_does_not_bring_back_who_uninstalled(
    slack: SlackService,
    rotating: str,
    installations: Installations,
    another: Installations,
    clock: Clock,
) -> None:
    clock.now += 11 * HOUR_S
    held = Held()
    slack.fail("oauth.v2.access", held)
    asking = asyncio.create_task(installations.of("T2"))
    await held.came.wait()

    forgetting = asyncio.create_task(another.forget("T2"))
    held.go.set()
    await asyncio.gather(asking, forgetting)

    with pytest.raises(DeliveryError, match="not installed"):
        await another.of("T2")


def _entries(client: redis.Redis) -> list[bytes]:
    found: Any = client.keys("*shelf*")
    return list(found)
