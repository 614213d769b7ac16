"""
Workspaces: by which token a team is spoken to, and who the bot is there.

Says nothing about how a token was come by: there is one in the settings, or one for
each team that installed the app. Knows neither events nor replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from bot.errors import DeliveryError


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """One team that has the app: `team` is an address's account."""

    team: str
    # Whoever logs a workspace must not log its token.
    token: str = field(repr=False)
    bot_user: str
    bot_id: str


class Workspaces(Protocol):
    """All the teams that have the app."""

    async def of(self, account: str) -> Workspace:
        """Raise DeliveryError where the app is not installed, or not any more."""
        ...

    async def forget(self, account: str) -> None:
        """Drop what is known of a team: it uninstalled the app or revoked a token."""
        ...


class OneWorkspace:
    """
    The team of a bot token. `identify` asks Slack whose it is: once, when it is first
    needed, because no connector may wait for its service before it runs.
    """

    def __init__(
        self, token: str, identify: Callable[[str], Awaitable[Workspace]]
    ) -> None:
        self._token = token
        self._identify = identify
        self._known: Workspace | None = None
        self._asking = asyncio.Lock()

    async def of(self, account: str) -> Workspace:
        workspace = await self.only()
        if account != workspace.team:
            raise DeliveryError(
                f"slack: the bot token belongs to team {workspace.team}, not to "
                f"{account}; use the token of that team, or `oauth` for many teams",
                retryable=False,
            )
        return workspace

    async def only(self) -> Workspace:
        """Return the team, whichever it is."""
        async with self._asking:
            if self._known is None:
                self._known = await self._identify(self._token)
            return self._known

    async def forget(self, account: str) -> None:
        if self._known is not None and self._known.team == account:
            self._known = None
