"""
Settings: what an operator writes about Slack, and what is wrong with it.

Knows no calls. `problems_of` says what no single field can tell: which of them belong
together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

from connectors.slack.oauth import OAuthSettings
from connectors.slack.payloads import is_id

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _secret(secret: SecretStr) -> SecretStr:
    # Files and shells leave a line's end.
    value = secret.get_secret_value().strip()
    if not (value and value.isascii() and value.isprintable()):
        raise PydanticCustomError(
            "api_key", "empty, or with a character that no secret of Slack's has"
        )
    return SecretStr(value)


def _api_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise ValueError("not https; a token is sent there")
    return url if url.endswith("/") else f"{url}/"


def _path(path: str) -> str:
    plain = path.replace("/", "").replace("-", "").replace("_", "")
    if not (path.startswith("/") and plain.isascii() and plain.isalnum()):
        raise ValueError("not a plain path; write one such as /slack/events")
    return path


def _id(name: str) -> str:
    if not is_id(name):
        raise ValueError("not an id; a bot's begins with B or U")
    return name


Secret = Annotated[SecretStr, AfterValidator(_secret)]


class Prompt(BaseModel):
    """Something to press instead of writing it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1, max_length=75, description="what is shown")
    message: str = Field(min_length=1, max_length=1000, description="what it says")


class SlackSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["http", "socket"] = Field(
        "socket",
        description="socket: Chorus connects to Slack; http: Slack comes to a public "
        "address",
    )
    bot_token: Secret | None = Field(
        None,
        description="Bot User OAuth Token, xoxb-… (OAuth & Permissions), for one "
        "workspace",
    )
    oauth: OAuthSettings | None = Field(
        None, description="for an app that many workspaces install, in place of a token"
    )
    app_token: Secret | None = Field(
        None,
        description="app-level token, xapp-…, with connections:write (Basic "
        "Information), for mode socket",
    )
    signing_secret: Secret | None = Field(
        None,
        description="Signing Secret (Basic Information > App Credentials), for mode "
        "http",
    )
    path: Annotated[str, AfterValidator(_path)] = Field(
        "/slack/events",
        max_length=200,
        description="where Slack comes to: events, interactivity and commands",
    )
    feedback: bool = Field(
        default=True, description="ask under each answer whether it helped"
    )
    bots: tuple[Annotated[str, AfterValidator(_id)], ...] = Field(
        (),
        max_length=100,
        description="ids of other bots that are answered; two that answer each other "
        "never stop",
    )
    prompts: tuple[Prompt, ...] = Field(
        (), max_length=4, description="suggested to who opens a conversation"
    )
    greeting: str = Field(
        "How can I help?",
        min_length=1,
        max_length=1000,
        description="heads the suggestions and the Home tab",
    )
    api_url: Annotated[str, AfterValidator(_api_url)] = Field(
        "https://slack.com/api/",
        max_length=500,
        description="Slack's Web API; another one for GovSlack, or for tests",
    )


def problems_of(settings: SlackSettings) -> Iterable[str]:
    """Say what does not go together, one sentence each."""
    yield from _whose(settings)
    yield from _how(settings)


def _whose(settings: SlackSettings) -> Iterable[str]:
    token = settings.bot_token
    if token is None and settings.oauth is None:
        yield (
            "slack.bot_token: missing; write {env: SLACK_BOT_TOKEN} and set that to "
            "the Bot User OAuth Token of OAuth & Permissions, or `oauth` for many "
            "workspaces"
        )
    elif token is not None and settings.oauth is not None:
        yield (
            "slack.oauth: there is a bot_token, too; remove one, as a token is for one "
            "workspace and oauth for many"
        )
    elif token is not None and not token.get_secret_value().startswith("xoxb-"):
        yield (
            "slack.bot_token: it does not begin with xoxb-; copy the Bot User OAuth "
            "Token from OAuth & Permissions"
        )


def _how(settings: SlackSettings) -> Iterable[str]:
    app_token, secret = settings.app_token, settings.signing_secret
    if settings.mode == "http" and secret is None:
        yield (
            "slack.signing_secret: missing, mode http needs it; copy it from Basic "
            "Information > App Credentials"
        )
    if settings.mode == "socket" and app_token is None:
        yield (
            "slack.app_token: missing, mode socket needs it; make one with "
            "connections:write under Basic Information > App-Level Tokens"
        )
    if app_token is not None and not app_token.get_secret_value().startswith("xapp-"):
        yield (
            "slack.app_token: it does not begin with xapp-; copy it from Basic "
            "Information > App-Level Tokens"
        )
    if settings.mode == "socket" and secret is not None:
        yield "slack.signing_secret: mode socket has no use for it; remove it"
    if settings.mode == "http" and app_token is not None:
        yield "slack.app_token: mode http has no use for it; remove it"
    if settings.oauth is not None and settings.path in {
        settings.oauth.install_path,
        settings.oauth.redirect_path,
    }:
        yield "slack.path: oauth has the same one; change one of them"
