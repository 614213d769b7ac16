from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bot.errors import ConfigError
from bot.interfaces import AnswersRequests, Finds, Inspects, Keeps, ShowsFrames
from bot.model import Reply
from connectors.slack import Slack
from connectors.slack.scopes import EVENTS, SCOPES
from tests.connectors.slack.connected import KEY, Time, connected, made, thread
from tests.connectors.slack.faults import Error
from tests.connectors.slack.grants import SCOPES as GRANTED
from tests.connectors.slack.service import SlackService

PROMPTS = [{"title": "Refunds", "message": "How long does a refund take?"}]
TOKENS = {"bot_token": "xoxb-1", "app_token": "xapp-1"}


async def test_opening_the_messages_tab_suggests_what_to_ask(
    slack: SlackService,
) -> None:
    async with connected(slack, prompts=PROMPTS, greeting="Hello!") as bot:
        await bot.tell(slack.customer.home_opened("messages"))
        await bot.errands()

    assert slack.state.prompts["D1", None] == PROMPTS
    (call,) = slack.calls_of("assistant.threads.setSuggestedPrompts")
    assert call.arguments["title"] == "Hello!"


@pytest.mark.parametrize("changed", [False, True])
async def test_the_older_panel_gets_its_suggestions_in_its_thread(
    slack: SlackService, *, changed: bool
) -> None:
    told = slack.customer.assistant_thread_started(changed=changed)
    stamp = told.content["event"]["assistant_thread"]["thread_ts"]

    async with connected(slack, prompts=PROMPTS) as bot:
        await bot.tell(told)
        await bot.errands()

    assert slack.state.prompts["D1", stamp] == PROMPTS


async def test_the_home_tab_greets_and_helps(slack: SlackService) -> None:
    async with connected(slack, greeting="Hello!") as bot:
        await bot.tell(slack.customer.home_opened("home"))
        await bot.errands()

    told = str(slack.state.homes["U1"])
    assert "Hello!" in told
    assert "/chorus why" in told
    assert not bot.core.events


async def test_a_thread_is_named_after_its_first_question(slack: SlackService) -> None:
    root = slack.customer.message("New chat").ts

    async with connected(slack) as bot:
        for text in ("How long does a refund take?", "And then?"):
            await bot.tell(slack.customer.message(text, thread_ts=root))
            await bot.errands()

    assert slack.state.titles["D1", root] == "How long does a refund take?"
    assert len(slack.calls_of("assistant.threads.setTitle")) == 1


async def test_a_status_comes_and_goes(slack: SlackService) -> None:
    stamp = slack.customer.message("Hi", channel="C1").ts

    async with connected(slack) as bot:
        await bot.connector.status(thread("C1", stamp), "Thinking …")
        shown = dict(slack.state.statuses)
        await bot.connector.status(thread("C1", stamp), "")

    assert shown == {("C1", stamp): "Thinking …"}
    assert not slack.state.statuses


async def test_a_status_that_lasts_is_told_again(slack: SlackService) -> None:
    stamp = slack.customer.message("Hi", channel="C1").ts

    async with connected(slack) as bot:
        await bot.connector.status(thread("C1", stamp), "Thinking …")
        await slack.called("assistant.threads.setStatus", 3)

        assert bot.time.slept[:2] == [90, 90]


async def test_a_reply_ends_the_status_by_itself(slack: SlackService) -> None:
    stamp = slack.customer.message("Hi", channel="C1").ts

    async with connected(slack) as bot:
        await bot.connector.status(thread("C1", stamp), "Thinking …")
        await bot.connector.send(thread("C1", stamp), Reply(text="Yes."), KEY)
        await bot.connector.status(thread("C1", stamp), "")

    calls = slack.calls_of("assistant.threads.setStatus")
    assert {call.arguments["status"] for call in calls} == {"Thinking …"}
    assert not slack.state.statuses


@pytest.mark.parametrize("code", ["missing_scope", "channel_not_found", "ratelimited"])
async def test_a_status_that_is_refused_is_no_trouble(
    slack: SlackService, code: str
) -> None:
    slack.fail("assistant.threads.setStatus", Error(code), Error(code))

    async with connected(slack) as bot:
        await bot.connector.status(thread("C1", "17.5"), "Thinking …")
        await bot.connector.status(thread("D1", None), "Thinking …")


async def test_a_good_setup_is_found_good(slack: SlackService) -> None:
    slack.install("T1", slack.token, scopes=(*GRANTED, "chat:write"))

    found = await made(slack, Time(), mode="socket").inspect()

    assert all(finding.well for finding in found)
    told = " ".join(finding.told for finding in found)
    assert "T1" in told
    assert "message.channels" in told


async def test_each_missing_scope_is_named_with_where_to_add_it(
    slack: SlackService,
) -> None:
    slack.install("T1", slack.token, scopes=("chat:write", "im:history"))

    found = await made(slack, Time()).inspect()

    missing = [finding.told for finding in found if not finding.well]
    assert len(missing) == 7
    assert all("Bot Token Scopes" in told for told in missing)
    assert any("reactions:read" in told for told in missing)


async def test_wrong_tokens_and_no_network_are_findings(slack: SlackService) -> None:
    wrong = made(slack, Time(), mode="socket", bot_token="xoxb-2", app_token="xapp-2")  # noqa: S106 (of nobody)
    away = made(slack, Time(), api_url="http://127.0.0.1:9/api/")

    for connector in (wrong, away):
        found = await connector.inspect()
        assert not found[0].well
        assert "bot_token" in found[0].told
    assert not (await wrong.inspect())[1].well


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "slack.bot_token: missing"),
        ({**TOKENS, "bot_token": "xoxp-1"}, "slack.bot_token: it does not begin"),
        ({"bot_token": "xoxb-1"}, "slack.app_token: missing"),
        ({**TOKENS, "app_token": "xoxb-1"}, "slack.app_token: it does not begin"),
        ({"bot_token": "xoxb-1", "mode": "http"}, "slack.signing_secret: missing"),
        ({**TOKENS, "signing_secret": "s"}, "slack.signing_secret: mode socket"),
        (
            {**TOKENS, "mode": "http", "signing_secret": "s"},
            "slack.app_token: mode http",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_told(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as told:
        Slack(Slack.Settings.model_validate(settings))

    for secret in ("xoxp-1", "xapp-1"):
        assert secret not in str(told.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"bot_token": "xoxb-1\u2028é"},
        {"bot_token": " "},
        {"api_url": "http://slack.com/api/"},
        {"path": "slack"},
        {"path": "/a b"},
        {"bots": ["a b"]},
        {"prompts": [{"title": "t", "message": "m"}] * 5},
        {"greeting": ""},
        {"tokens": "x"},
    ],
)
def test_settings_that_are_wrong_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Slack.Settings.model_validate({**TOKENS, **settings})


def test_it_is_all_that_the_core_asks_for() -> None:
    connector = Slack(Slack.Settings.model_validate(TOKENS))

    for protocol in (AnswersRequests, Finds, Inspects, Keeps, ShowsFrames):
        assert isinstance(connector, protocol)
    assert connector.paths == []
    assert "xoxb-1" not in repr(connector._settings)


def test_the_documents_manifests_and_settings_are_right() -> None:
    page = Path(__file__).parents[3] / "docs" / "slack.md"
    fenced = page.read_text(encoding="utf-8").split("```yaml\n")[1:]
    blocks = [yaml.safe_load(block.split("```")[0]) for block in fenced]

    # Parts of one are shown further down, for those who have one.
    manifests = [block for block in blocks if "display_information" in block]
    used = [block["connectors"][0] for block in blocks if "connectors" in block]

    assert len(manifests) == 2
    for manifest in manifests:
        assert set(manifest["oauth_config"]["scopes"]["bot"]) == set(SCOPES)
        subscribed = manifest["settings"]["event_subscriptions"]["bot_events"]
        assert set(subscribed) == set(EVENTS)
    for one in (one for one in used if "oauth" not in one["settings"]):
        settings = {
            name: {"bot_token": "xoxb-1", "app_token": "xapp-1"}.get(name, "s")
            if isinstance(value, dict)
            else value
            for name, value in one["settings"].items()
        }
        Slack(Slack.Settings.model_validate(settings))
