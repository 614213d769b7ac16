"""
Checks: what Slack says about how the app is set up, for `chorus check --connect`.

Asks and changes nothing; apps.connections.open only hands out an address, to which
nobody connects. What a bot token cannot see is said, with where to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bot.errors import DeliveryError
from bot.interfaces import Finding
from bot.pacing import Pace
from connectors.slack.refusals import REINSTALL
from connectors.slack.scopes import EVENTS, SCOPES
from connectors.slack.settings import SlackSettings
from connectors.slack.web_api import Unanswered, WebApi

_UNANSWERED = "slack: {} had no answer; see to the network and try again"


async def of(settings: SlackSettings) -> list[Finding]:
    """Look at everything that the settings name."""
    api = WebApi(settings.api_url, Pace())
    found: list[Finding] = []
    if settings.bot_token is not None:
        found += await of_token(api, settings.bot_token.get_secret_value())
    if settings.app_token is not None:
        found += await of_sockets(api, settings.app_token.get_secret_value())
    return [*found, *unseen(settings.mode, settings.path)]


async def of_token(api: WebApi, token: str) -> list[Finding]:
    """Look at a bot token and at what it may do."""
    try:
        answer, headers = await api.asked(token, "auth.test", {})
    except DeliveryError as error:
        return [Finding(well=False, told=f"slack.bot_token: {error}")]
    except Unanswered:
        return [Finding(well=False, told=_UNANSWERED.format("auth.test"))]
    known = f"{answer.get('user')} in {answer.get('team')} ({answer.get('team_id')})"
    granted = {scope.strip() for scope in headers.get("x-oauth-scopes", "").split(",")}
    missing = [(scope, why) for scope, why in SCOPES.items() if scope not in granted]
    return [
        Finding(well=True, told=f"slack: the bot token is good: {known}"),
        *(
            Finding(
                well=False,
                told=f"slack: the scope {scope} is missing, to {why}; add it under "
                f"{REINSTALL}",
            )
            for scope, why in missing
        ),
        *([] if missing else [Finding(well=True, told="slack: all scopes are there")]),
    ]


async def of_sockets(api: WebApi, app_token: str) -> list[Finding]:
    """Look whether Slack would open a socket."""
    try:
        await api.ask(app_token, "apps.connections.open")
    except DeliveryError as error:
        told = (
            f"slack.app_token: {error}; Socket Mode has to be on, and the token to "
            "have connections:write (Basic Information > App-Level Tokens)"
        )
        return [Finding(well=False, told=told)]
    return [Finding(well=True, told="slack: Socket Mode is on and the token opens it")]


def unseen(mode: Literal["http", "socket"], path: str) -> Sequence[Finding]:
    """Say what Slack does not show to a bot, and how to see it."""
    events = (
        "slack: not visible to a bot: under Event Subscriptions > Subscribe to bot "
        f"events there must be {', '.join(EVENTS)}"
    )
    if mode == "socket":
        return [Finding(well=True, told=events)]
    secret = (
        "slack: not visible to a bot: the signing secret; enter the public address "
        f"with {path} under Event Subscriptions > Request URL while Chorus runs: "
        "Verified says that it is right"
    )
    return [Finding(well=True, told=events), Finding(well=True, told=secret)]
