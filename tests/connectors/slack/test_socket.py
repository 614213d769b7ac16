from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from bot.interfaces import Accepted
from bot.model import Event
from connectors.slack import sockets
from tests.connectors.slack.bot_on_slack import MemoryShelf, a_connector, running, until
from tests.connectors.slack.connected import Core, Time, made
from tests.connectors.slack.faults import Error
from tests.connectors.slack.service import SlackService


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "LOOK_S", 0.02)


def listening(slack: SlackService, core: Core) -> AbstractAsyncContextManager[None]:
    connector = a_connector(slack, mode="socket")
    connector.keep_on(MemoryShelf())
    return running(connector, core.accept)


async def test_two_sockets_are_open_and_what_comes_is_taken_once(
    slack: SlackService,
) -> None:
    core = Core()

    async with asyncio.timeout(10), listening(slack, core):
        await slack.links.connected(2)
        envelopes = [slack.push(slack.customer.message(f"Hi {n}")) for n in range(4)]
        for envelope in envelopes:
            await envelope.over.wait()

    assert [envelope.acked for envelope in envelopes] == [True] * 4
    assert sorted(core.texts) == [f"Hi {n}" for n in range(4)]


async def test_commands_and_buttons_come_down_a_socket_too(slack: SlackService) -> None:
    core = Core()

    async with asyncio.timeout(10), listening(slack, core):
        envelope = slack.push(slack.customer.slash("why"))
        await envelope.over.wait()

    assert envelope.acked
    assert [event.kind for event in core.events] == ["command"]


async def test_an_envelope_is_acknowledged_after_it_was_taken(
    slack: SlackService,
) -> None:
    core = Core()
    core.gate = asyncio.Event()
    slack.links.ack_s = 5

    async with asyncio.timeout(10), listening(slack, core):
        envelope = slack.push(slack.customer.message("Hi"))
        await core.came.wait()
        early = envelope.acked
        core.gate.set()
        await envelope.over.wait()

    assert not early
    assert envelope.acked


async def test_what_cannot_be_kept_is_told_again(slack: SlackService) -> None:
    core = Core()
    core.away = True
    slack.links.ack_s = 0.2

    async with asyncio.timeout(10), listening(slack, core):
        envelope = slack.push(slack.customer.message("Hi"))
        await until(lambda: envelope.attempts == 2, "it was not told again")
        core.away = False
        await envelope.over.wait()

    assert envelope.acked
    assert core.texts == ["Hi"]


async def test_a_payload_that_breaks_something_stops_nobody(
    slack: SlackService, caplog: pytest.LogCaptureFixture
) -> None:
    core = Core()
    slack.links.ack_s = 0.1

    async def accept(event: Event) -> Accepted:
        if event.text == "secret":
            raise KeyError(event.text)
        return await core.accept(event)

    connector = a_connector(slack, mode="socket")
    connector.keep_on(MemoryShelf())
    async with asyncio.timeout(10), running(connector, accept):
        broken = slack.push(slack.customer.message("secret"))
        fine = slack.push(slack.customer.message("Hi"))
        await fine.over.wait()
        await broken.over.wait()

    assert fine.acked
    assert not broken.acked
    assert "secret" not in caplog.text


async def test_connections_that_slack_ends_are_opened_again(
    slack: SlackService,
) -> None:
    core = Core()

    async with asyncio.timeout(20), listening(slack, core):
        await slack.links.connected(2)
        await slack.links.disconnect()
        await until(lambda: slack.links.opened >= 4, "no new sockets")
        await slack.links.connected(2)
        envelope = slack.push(slack.customer.message("Hi"))
        await envelope.over.wait()

    assert envelope.acked


async def test_too_many_envelopes_at_once_are_left_to_slack(
    slack: SlackService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MOST_AT_ONCE", 1)
    core = Core()
    core.gate = asyncio.Event()
    slack.links.ack_s = 0.3

    async with asyncio.timeout(10), listening(slack, core):
        first = slack.push(slack.customer.message("One"))
        await core.came.wait()
        second = slack.push(slack.customer.message("Two"))
        await until(lambda: second.attempts == 2, "it was not told again")
        core.gate.set()
        await first.over.wait()
        await second.over.wait()

    assert first.acked
    assert second.acked


async def test_a_silence_that_lasts_is_trouble(slack: SlackService) -> None:
    time = Time()
    connector = made(slack, time, mode="socket")
    connector.keep_on(MemoryShelf())
    early = connector.trouble()
    time.pass_(46)

    told = connector.trouble()

    assert early is None
    assert told is not None
    assert "app_token" in told


async def test_a_slack_that_lets_nobody_in_is_asked_again(slack: SlackService) -> None:
    core = Core()
    slack.fail("apps.connections.open", Error("internal_error"))

    async with asyncio.timeout(20), listening(slack, core):
        await slack.links.connected(2)
        envelope = slack.push(slack.customer.message("Hi"))
        await envelope.over.wait()

    assert envelope.acked
