"""Tokens of the stand-in: who holds which, until when, and how OAuth hands them out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.connectors.slack.blocks import Json, SlackError
from tests.connectors.slack.state import State, Workspace

SCOPES = (
    "app_mentions:read",
    "assistant:write",
    "channels:history",
    "chat:write",
    "commands",
    "groups:history",
    "im:history",
    "im:read",
    "im:write",
    "mpim:history",
    "reactions:read",
    "users:read",
)
LIFE_S = 43_200  # of a token that is rotated

TokenState = Literal["good", "revoked", "expired"]


@dataclass(slots=True, kw_only=True)
class _Code:
    team: str
    enterprise: str | None
    org_wide: bool
    user: str
    redirect_uri: str | None
    used: bool = False


@dataclass(slots=True)
class Grants:
    """The app's own secrets, and every token that was handed out."""

    state: State
    client_id: str = "11.22"
    client_secret: str = "client-secret"  # noqa: S105 (of a stand-in)
    app_token: str = "xapp-1-A1-token"  # noqa: S105 (of a stand-in)
    app_id: str = "A1"
    rotates: bool = False
    tokens: dict[str, TokenState] = field(default_factory=dict)
    _teams: dict[str, str] = field(default_factory=dict)
    _codes: dict[str, _Code] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def install(
        self, team: str, token: str, *, scopes: tuple[str, ...] = SCOPES, **more: Any
    ) -> Workspace:
        """Give a team the app, its bot's ids made from the team's."""
        known = self.state.workspaces.get(team)
        workspace = known or Workspace(
            team=team,
            token=token,
            bot_user=f"UBOT{team}",
            bot_id=f"BBOT{team}",
            scopes=scopes,
            **more,
        )
        workspace.token, workspace.scopes, workspace.installed = token, scopes, True
        self.state.workspaces[team] = workspace
        self.tokens[token] = "good"
        self._teams[token] = team
        return workspace

    def uninstall(self, team: str) -> None:
        """The team threw the app out: every token of it is worthless."""
        self.state.workspaces[team].installed = False
        for token, owner in self._teams.items():
            if owner == team:
                self.tokens[token] = "revoked"

    def workspace(self, token: str | None) -> Workspace:
        """Return whose token it is, or say what is wrong with it."""
        if not token:
            raise SlackError("not_authed")
        if token == self.app_token:
            raise SlackError("not_allowed_token_type")
        if token not in self.tokens:
            raise SlackError("invalid_auth")
        workspace = self.state.workspaces[self._teams[token]]
        if not workspace.installed:
            raise SlackError("account_inactive")
        match self.tokens[token]:
            case "revoked":
                raise SlackError("token_revoked")
            case "expired":
                raise SlackError("token_expired")
        return workspace

    def authorize(
        self,
        team: str = "T2",
        *,
        user: str = "U1",
        enterprise: str | None = None,
        org_wide: bool = False,
        redirect_uri: str | None = None,
    ) -> str:
        """Do what somebody does who presses Allow, and return the code of it."""
        code = f"code-{next(self._numbers)}"
        self._codes[code] = _Code(
            team=team,
            enterprise=enterprise,
            org_wide=org_wide,
            user=user,
            redirect_uri=redirect_uri,
        )
        return code

    def access(self, arguments: Json, client: tuple[str, str]) -> Json:
        """Answer oauth.v2.access: a code, or a refresh token, for a token."""
        client_id, client_secret = client
        if client_id != self.client_id:
            raise SlackError("invalid_client_id")
        if client_secret != self.client_secret:
            raise SlackError("bad_client_secret")
        if arguments.get("grant_type") == "refresh_token":
            return self._refreshed(str(arguments.get("refresh_token")))
        return self._exchanged(arguments)

    def _exchanged(self, arguments: Json) -> Json:
        code = self._codes.get(str(arguments.get("code")))
        if code is None:
            raise SlackError("invalid_code")
        if code.used:
            raise SlackError("code_already_used")
        if code.redirect_uri not in {None, arguments.get("redirect_uri")}:
            raise SlackError("bad_redirect_uri")
        code.used = True
        workspace = self.install(
            code.team, self._new_token(code.team), enterprise=code.enterprise
        )
        answer = self._granted(workspace)
        answer["authed_user"] = {"id": code.user}
        answer["is_enterprise_install"] = code.org_wide
        if code.org_wide:
            answer["team"] = None
        return answer

    def _refreshed(self, refresh_token: str) -> Json:
        workspace = next(
            (
                known
                for known in self.state.workspaces.values()
                if known.refresh_token == refresh_token and known.installed
            ),
            None,
        )
        if workspace is None:
            raise SlackError("invalid_refresh_token")
        # The token before goes on until its own end: Slack lets two live at a time.
        self.install(
            workspace.team, self._new_token(workspace.team), scopes=workspace.scopes
        )
        return self._granted(workspace)

    def _granted(self, workspace: Workspace) -> Json:
        enterprise = workspace.enterprise
        answer: Json = {
            "app_id": self.app_id,
            "token_type": "bot",
            "access_token": workspace.token,
            "scope": ",".join(workspace.scopes),
            "bot_user_id": workspace.bot_user,
            "team": {"id": workspace.team, "name": f"Team {workspace.team}"},
            "enterprise": enterprise and {"id": enterprise, "name": enterprise},
            "is_enterprise_install": False,
        }
        if self.rotates:
            workspace.refresh_token = f"xoxe-1-{next(self._numbers)}"
            answer |= {
                "refresh_token": workspace.refresh_token,
                "expires_in": LIFE_S,
            }
        return answer

    def _new_token(self, team: str) -> str:
        form = "xoxe.xoxb" if self.rotates else "xoxb"
        return f"{form}-{team}-{next(self._numbers)}"
