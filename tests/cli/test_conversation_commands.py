"""feedback and handoff, on a real server."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path

import pytest

from bot.app import App
from bot.channels import ChannelPlugins
from bot.config import Config
from bot.conversation.state import turn_id
from bot.model import Event
from bot.plugin_manager import Plugins
from bot.testing.makers import an_address, an_event
from tests.cli.test_operations_commands import SETTINGS, after, invoke, working

pytestmark = pytest.mark.services

TURN = turn_id(an_event("hello"))
DIGEST = an_address().digest


@pytest.fixture
def app(tmp_path: Path) -> App:
    given = {"data": tmp_path, "replies": {"handed_over": "Wait.", "resumed": "Back."}}
    config = Config.model_validate({**given, **SETTINGS})
    return App(config, ChannelPlugins(everywhere=Plugins()), lambda *_: None)


def accepted(app: App, *events: Event) -> None:
    async def all_accepted() -> None:
        async with app.store() as store, working(app, store) as manager:
            for event in events:
                await manager.accept(event)
            await manager.idle()

    asyncio.run(all_accepted())


def judging(rating: int, user: str) -> Event:
    return an_event(
        user,
        "feedback",
        address=an_address(user=user),
        data={"turn": TURN, "rating": rating},
    )


def test_judged_turns_are_listed_with_totals(app: App) -> None:
    after(app, "hello")
    accepted(app, judging(1, "ada"), judging(1, "bob"), judging(-1, "eve"))

    lines = invoke(app, "feedback").stdout.splitlines()
    (line,) = invoke(app, "feedback", "--json").stdout.splitlines()

    told = json.loads(line)
    assert lines[1].split()[2:6] == [TURN, "+1", "2", "1"]
    assert lines[1].endswith("memory    no candidate  yes")
    assert lines[-1].split() == ["no", "candidate", "1", "2", "1"]
    assert datetime.fromisoformat(told.pop("time")).tzinfo is not None
    assert told == {
        "turn": TURN,
        "digest": DIGEST,
        "platform": "memory",
        "good": 2,
        "bad": 1,
        "rating": 1,
        "candidate": None,
        "origin": "",
        "recorded": True,
        "arm": "",
    }


def test_feedback_can_be_bounded_in_time(app: App) -> None:
    after(app, "hello")
    accepted(app, judging(1, "ada"))

    listed = [
        len(invoke(app, "feedback", "--json", "--since", span).stdout.splitlines())
        for span in ("0m", "5m", "12h", "999999999d")
    ]

    assert listed == [0, 1, 1, 1]


@pytest.mark.parametrize("span", ["7", "d", "7w", "-7d", "7.5d", "\u0667d"])
def test_a_time_span_that_is_none_is_for_the_operator(app: App, span: str) -> None:
    result = invoke(app, "feedback", "--since", span)

    assert result.exit_code == 2
    assert "write 7d, 12h or 30m" in result.stderr


def test_explain_says_how_a_turn_was_judged(app: App) -> None:
    after(app, "hello")
    before = invoke(app, "explain", TURN).stdout
    accepted(app, judging(1, "ada"), judging(-1, "bob"))

    shown = invoke(app, "explain", TURN).stdout
    printed = invoke(app, "explain", TURN, "--json").stdout

    assert "Judged" not in before
    assert "**Judged** good by 1, bad by 1" in shown
    assert sorted(json.loads(printed)["ratings"]) == [-1, 1]


def test_an_operator_pauses_a_conversation_and_has_it_resumed(app: App) -> None:
    after(app, "hello")

    paused = invoke(app, "handoff", "--pause", DIGEST)
    again = invoke(app, "handoff", "--pause", an_address().key)
    table = invoke(app, "handoff").stdout.splitlines()
    (line,) = invoke(app, "handoff", "--json").stdout.splitlines()
    conversations = invoke(app, "conversations").stdout
    resumed = invoke(app, "handoff", "--resume", an_address().key)
    none = invoke(app, "handoff")

    assert f"{DIGEST}: the bot is silent there" in paused.stderr
    assert f"{DIGEST}: people have it already" in again.stderr
    assert table[1].startswith(DIGEST)
    assert "an operator took it over" in table[1]
    assert json.loads(line)["key"] == an_address().key
    assert conversations.count("  for ") == 1
    assert f"{DIGEST}: the bot answers there again" in resumed.stderr
    assert none.stdout == ""
    assert "people have no conversation" in none.stderr


def test_the_customer_is_told_in_the_operators_words(app: App) -> None:
    after(app, "hello")
    invoke(app, "handoff", "--pause", DIGEST)
    invoke(app, "handoff", "--resume", DIGEST)

    async def read() -> list[str]:
        async with app.store() as store:
            client = store.connection.commands
            outbox = "chorus:{s0}:c:memory:a1:c1:outbox"
            entries = [entry[29:] for entry in await client.lrange(outbox, 0, -1)]
        return [json.loads(entry)["reply"]["text"] for entry in entries]

    assert asyncio.run(read()) == ["Wait.", "Back."]


def test_what_cannot_be_handed_over_is_for_the_operator(app: App) -> None:
    unknown = invoke(app, "handoff", "--resume", "nobody")
    both = invoke(app, "handoff", "--resume", "a", "--pause", "a")

    assert unknown.exit_code == 2
    assert "no conversation 'nobody'" in unknown.stderr
    assert both.exit_code == 2
    assert "name one of them" in both.stderr


def test_without_feedback_the_command_says_so(app: App) -> None:
    result = invoke(app, "feedback")

    assert result.exit_code == 0
    assert result.stdout == ""
    assert "nobody has judged a reply" in result.stderr
