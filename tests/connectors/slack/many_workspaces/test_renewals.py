"""Tokens that end, and are renewed by one process at a time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from bot.conversation.shelf import RedisShelf
from bot.errors import DeliveryError, StoreError
from connectors.slack.installations import Installations
from tests.connectors.slack.faults import (
    DropAfter,
    DropBefore,
    Error,
    Fault,
    Held,
    RateLimited,
    Status,
)
from tests.connectors.slack.many_workspaces.world import (
    HOUR_S,
    INSTALL,
    NOW,
    SITE,
    Clock,
    Unwell,
    an_installation,
    some_installations,
)
from tests.connectors.slack.service import SlackService

pytestmark = pytest.mark.services


async def test_a_token_that_does_not_end_is_never_renewed(
    slack: SlackService, installations: Installations, clock: Clock
) -> None:
    installed = an_installation(slack)
    await installations.keep(installed)
    clock.now += 10_000 * HOUR_S

    workspace = await installations.of("T2")

    assert (workspace.token, slack.calls) == (installed.token, [])


async def test_a_token_is_renewed_two_hours_before_it_ends(
    slack: SlackService, rotating: str, installations: Installations, clock: Clock
) -> None:
    clock.now += 10 * HOUR_S - 61
    before = (await installations.of("T2")).token
    clock.now += 61

    after = (await installations.of("T2")).token

    assert before == rotating
    assert after == slack.state.workspaces["T2"].token != before
    assert len(slack.calls_of("oauth.v2.access")) == 1


async def test_a_new_token_is_kept_before_it_is_used_and_lives_as_long(
    slack: SlackService,
    rotating: str,
    installations: Installations,
    another: Installations,
    clock: Clock,
) -> None:
    clock.now += 11 * HOUR_S
    mine = (await installations.of("T2")).token

    theirs = [(await another.of("T2")).token]
    clock.now += 9 * HOUR_S
    theirs.append((await another.of("T2")).token)

    assert theirs == [mine, mine]
    assert len(slack.calls_of("oauth.v2.access")) == 1


async def test_a_token_is_renewed_again_and_again(
    slack: SlackService, rotating: str, installations: Installations, clock: Clock
) -> None:
    tokens = {rotating}
    for _ in range(4):
        clock.now += 11 * HOUR_S
        tokens.add((await installations.of("T2")).token)

    assert len(tokens) == 5
    assert len(slack.calls_of("oauth.v2.access")) == 4


async def test_two_processes_at_once_use_a_refresh_token_once(
    slack: SlackService,
    rotating: str,
    installations: Installations,
    another: Installations,
    clock: Clock,
) -> None:
    clock.now += 11 * HOUR_S

    found = await asyncio.gather(
        *(one.of("T2") for one in (installations, another) for _ in range(10))
    )

    assert {workspace.token for workspace in found} == {
        slack.state.workspaces["T2"].token
    }
    assert len(slack.calls_of("oauth.v2.access")) == 1


async def test_whose_time_is_up_takes_no_token_with_him(
    slack: SlackService, rotating: str, installations: Installations, clock: Clock
) -> None:
    clock.now += 11 * HOUR_S
    held = Held()
    slack.fail("oauth.v2.access", held)
    asking = asyncio.create_task(installations.of("T2"))
    await held.came.wait()
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    held.go.set()

    workspace = await installations.of("T2")

    assert workspace.token == slack.state.workspaces["T2"].token != rotating
    assert len(slack.calls_of("oauth.v2.access")) == 1


# When Redis is away


async def test_a_token_that_could_not_be_kept_is_kept_next_time(
    slack: SlackService, shelf: RedisShelf, rotating: str, clock: Clock
) -> None:
    unwell = Unwell(shelf)
    installations = some_installations(slack, unwell, clock)
    clock.now += 11 * HOUR_S
    unwell.failures["put"] = 2
    for _ in range(2):
        with pytest.raises(StoreError):
            await installations.of("T2")

    mine = (await installations.of("T2")).token

    theirs = (await some_installations(slack, shelf, clock).of("T2")).token
    assert mine == theirs == slack.state.workspaces["T2"].token != rotating
    assert len(slack.calls_of("oauth.v2.access")) == 1


async def test_meanwhile_others_go_on_with_the_old_token(
    slack: SlackService,
    shelf: RedisShelf,
    rotating: str,
    another: Installations,
    clock: Clock,
) -> None:
    unwell = Unwell(shelf)
    installations = some_installations(slack, unwell, clock)
    clock.now += 11 * HOUR_S
    unwell.failures["put"] = 1
    with pytest.raises(StoreError):
        await installations.of("T2")

    theirs = (await another.of("T2")).token
    mine = (await installations.of("T2")).token
    clock.now += 61
    later = (await another.of("T2")).token

    assert theirs == rotating
    assert later == mine == slack.state.workspaces["T2"].token


async def test_a_pair_that_waited_until_it_is_due_is_renewed_in_its_turn(
    slack: SlackService, shelf: RedisShelf, rotating: str, clock: Clock
) -> None:
    unwell = Unwell(shelf)
    installations = some_installations(slack, unwell, clock)
    clock.now += 11 * HOUR_S
    unwell.failures["put"] = 1
    with pytest.raises(StoreError):
        await installations.of("T2")
    clock.now += 11 * HOUR_S

    workspace = await installations.of("T2")

    assert workspace.token == slack.state.workspaces["T2"].token
    assert len(slack.calls_of("oauth.v2.access")) == 2


async def test_who_installs_meanwhile_is_not_overwritten(
    slack: SlackService,
    shelf: RedisShelf,
    rotating: str,
    another: Installations,
    clock: Clock,
) -> None:
    unwell = Unwell(shelf)
    installations = some_installations(slack, unwell, clock)
    clock.now += 11 * HOUR_S
    unwell.failures["put"] = 1
    with pytest.raises(StoreError):
        await installations.of("T2")
    installed = an_installation(slack)
    await another.keep(installed)
    clock.now = NOW + HOUR_S  # the new token is not due

    found = [(await one.of("T2")).token for one in (installations, another)]

    assert found == [installed.token] * 2


@pytest.mark.parametrize("method", ["get", "remove"])
async def test_a_store_that_is_away_is_not_hidden(
    slack: SlackService, shelf: RedisShelf, clock: Clock, method: str
) -> None:
    unwell = Unwell(shelf)
    installations = some_installations(slack, unwell, clock)
    unwell.failures[method] = 1

    with pytest.raises(StoreError):
        await (installations.of if method == "get" else installations.forget)("T2")


# When Slack gives nothing


@pytest.mark.parametrize(
    "fault",
    [
        Status(503),
        RateLimited(30),
        DropBefore(),
        DropAfter(),
        Error("internal_error"),
        Error("invalid_refresh_token"),
    ],
    ids=str,
)
async def test_while_the_old_token_is_good_it_goes_on(
    slack: SlackService,
    rotating: str,
    installations: Installations,
    clock: Clock,
    fault: Fault,
) -> None:
    clock.now += 11 * HOUR_S
    slack.fail("oauth.v2.access", fault)

    found = [(await installations.of("T2")).token for _ in range(3)]

    assert found == [rotating] * 3
    assert len(slack.calls_of("oauth.v2.access")) == 1


async def test_a_renewal_that_failed_is_tried_again_after_a_minute(
    slack: SlackService,
    rotating: str,
    installations: Installations,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock.now += 11 * HOUR_S
    slack.fail("oauth.v2.access", Status(503))
    await installations.of("T2")
    clock.now += 61

    workspace = await installations.of("T2")

    assert workspace.token == slack.state.workspaces["T2"].token != rotating
    assert "the token of T2 was not renewed (HTTP 503)" in caplog.text


async def test_a_token_that_ends_within_the_minute_is_not_remembered_beyond_it(
    slack: SlackService, rotating: str, installations: Installations, clock: Clock
) -> None:
    clock.now += 12 * HOUR_S - 30
    slack.fail("oauth.v2.access", Status(503))
    before = (await installations.of("T2")).token
    clock.now += 31

    after = (await installations.of("T2")).token

    assert before == rotating
    assert after == slack.state.workspaces["T2"].token != rotating


@pytest.mark.parametrize("fault", [Status(503), RateLimited(30), DropBefore()], ids=str)
async def test_without_a_good_token_a_reply_waits_for_slack(
    slack: SlackService,
    rotating: str,
    installations: Installations,
    clock: Clock,
    fault: Fault,
) -> None:
    clock.now += 13 * HOUR_S
    slack.fail("oauth.v2.access", fault)

    with pytest.raises(DeliveryError) as caught:
        await installations.of("T2")

    assert caught.value.retryable
    assert caught.value.retry_after_s == getattr(fault, "seconds", None)
    assert (await installations.of("T2")).token != rotating


async def test_with_a_refresh_token_that_is_spent_it_is_told_to_install_again(
    slack: SlackService, rotating: str, installations: Installations, clock: Clock
) -> None:
    clock.now += 13 * HOUR_S
    slack.fail("oauth.v2.access", DropAfter())
    with pytest.raises(DeliveryError) as lost:
        await installations.of("T2")

    with pytest.raises(DeliveryError) as refused:
        await installations.of("T2")

    assert lost.value.retryable
    assert not refused.value.retryable
    assert "invalid_refresh_token" in str(refused.value)
    assert f"install the app again at {SITE}{INSTALL}" in str(refused.value)


async def test_no_log_and_no_error_shows_a_token(
    slack: SlackService,
    rotating: str,
    installations: Installations,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    clock.now += 13 * HOUR_S
    slack.fail("oauth.v2.access", Error("no_good", {"access_token": "xoxb-leak"}))
    with pytest.raises(DeliveryError) as caught:
        await installations.of("T2")

    await installations.of("T2")

    assert "xox" not in caplog.text
    assert "xox" not in _whole(caught.value)


def _whole(error: BaseException | None) -> str:
    """Everything that a traceback would print of an error and what led to it."""
    told = ""
    while error is not None:
        told += f"{error!r}\n"
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)
    return told
