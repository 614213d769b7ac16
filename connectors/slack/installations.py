"""
Installations: which teams have the app, and a token for each that has not ended.

An entry on the shelf for each team, or organisation, encrypted. A token that ends is
renewed two hours before, by one process at a time. Knows neither how a person installs
the app nor what a token is used for.

A refresh token is spent when Slack answers it, so the new pair is kept before it is
used. Should Redis be away just then, this process holds the pair and keeps it as soon
as it can; until then the others go on with the old token, which lives for up to two
hours more. What is lost: should the process end before, or Slack's answer never
arrive, nobody has the new refresh token, and once the old token has ended, an
administrator has to install the app again.

slack_sdk's AsyncInstallationStore is not implemented: its callers are Bolt's OAuth flow
and authorize, which are not used (see `connectors.slack.oauth`). AsyncTokenRotator is
not used either: it takes no lock, has a clock of its own, and its client sends a spent
refresh token again after a lost connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from bot.errors import DeliveryError
from bot.interfaces import Shelf
from connectors.slack.cipher import Cipher, Unreadable
from connectors.slack.grants import Installation, NoGrant
from connectors.slack.workspaces import Workspace

logger = logging.getLogger(__name__)

KNOWN_S = 60.0  # after which another process's uninstall is noticed
RENEW_S = 2 * 60 * 60.0  # before a token ends; it lives for twelve hours
LOCK_S = 30.0  # longer than a renewal takes, ten seconds at most and Redis
OPERATOR_S = 60.0  # between two attempts that wait for an operator

_json = TypeAdapter(Installation)


class Renews(Protocol):
    """Exchanges a refresh token; see `connectors.slack.grants.Grants`."""

    async def next(self, installation: Installation) -> Installation: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    installation: Installation
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    installation: Installation
    newest_key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unsaved:
    """An installation whose tokens replace the ones with the refresh token `spent`."""

    installation: Installation
    spent: str


class Installations:
    """The teams that installed the app; see `connectors.slack.workspaces.Workspaces`"""

    def __init__(
        self,
        *,
        cipher: Cipher,
        grants: Renews,
        install_url: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cipher = cipher
        self._grants = grants
        self._install_url = install_url
        self._clock = clock
        self._shelf: Shelf | None = None
        self._known: dict[str, _Known] = {}
        self._unsaved: dict[str, _Unsaved] = {}
        self._renewals: dict[str, asyncio.Task[Installation]] = {}

    def keep_on(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def of(self, account: str) -> Workspace:
        known = self._known.get(account)
        if known is None or not self._is_fresh(known):
            since = self._clock()
            installation = await self._current(account)
            known = _Known(installation=installation, since=since)
            self._known[account] = known
        return known.installation.workspace

    async def keep(self, installation: Installation) -> None:
        """Keep what a person has just installed, in place of what was there."""
        async with self._lock(installation.account):
            await self._save(installation)
            self._known.pop(installation.account, None)

    async def forget(self, account: str) -> None:
        # Under the lock, or a renewal on its way would put the entry back.
        async with self._lock(account):
            await self._on_shelf().remove(_name(account))
            self._known.pop(account, None)
            self._unsaved.pop(account, None)

    def _is_fresh(self, known: _Known) -> bool:
        # A clock that was set back makes nothing fresh for longer.
        age = self._clock() - known.since
        return 0 <= age < KNOWN_S and not self._has_ended(known.installation)

    async def _current(self, account: str) -> Installation:
        kept = await self._read(account)
        if kept.newest_key and not self._is_due(kept.installation):
            return kept.installation
        return await self._together(account)

    async def _together(self, account: str) -> Installation:
        """
        Renew or encrypt anew, once for all who ask meanwhile. In a task of its own,
        because a caller whose time is up must not take Slack's answer with him.
        """
        renewal = self._renewals.get(account)
        if renewal is None:
            renewal = asyncio.create_task(self._settle(account))
            self._renewals[account] = renewal
            renewal.add_done_callback(partial(self._settled, account))
        return await asyncio.shield(renewal)

    def _settled(self, account: str, renewal: asyncio.Task[Installation]) -> None:
        del self._renewals[account]
        if not renewal.cancelled():
            renewal.exception()  # every caller may have left before it failed

    async def _settle(self, account: str) -> Installation:
        async with self._lock(account):
            # Again, because another process may have done it while we waited.
            kept = await self._read(account)
            newest = await self._newest(kept.installation)
            if newest != kept.installation or not kept.newest_key:
                await self._save(newest)
            return newest

    async def _newest(self, kept: Installation) -> Installation:
        """Return the installation with a token that has not ended, or raise."""
        newest = self._made_up_for(kept)
        if not self._is_due(newest):
            return newest
        try:
            renewed = await self._grants.next(newest)
        except NoGrant as error:
            return self._without_grant(newest, error)
        self._unsaved[kept.account] = _Unsaved(
            installation=renewed, spent=kept.refresh_token
        )
        return renewed

    def _made_up_for(self, kept: Installation) -> Installation:
        """Return what should have been kept; another refresh token is a newer one."""
        unsaved = self._unsaved.get(kept.account)
        if unsaved is not None and unsaved.spent == kept.refresh_token:
            return unsaved.installation
        return kept

    def _without_grant(self, newest: Installation, error: NoGrant) -> Installation:
        if not self._has_ended(newest):
            logger.warning(
                "slack: the token of %s was not renewed (%s); it ends in %d min, and "
                "the next attempt is in one",
                newest.account,
                error.reason,
                ((newest.ends_at or 0) - self._clock()) // 60,
            )
            return newest
        todo = (
            f"install the app again at {self._install_url}"
            if error.final
            else "it is tried again"
        )
        raise DeliveryError(
            f"slack: the token of {newest.account} has ended and was not renewed "
            f"({error.reason}); {todo}",
            retryable=not error.final,
            retry_after_s=error.retry_after_s,
        ) from error

    def _is_due(self, installation: Installation) -> bool:
        ends_at = installation.ends_at
        return ends_at is not None and ends_at - self._clock() <= RENEW_S

    def _has_ended(self, installation: Installation) -> bool:
        return (
            installation.ends_at is not None and installation.ends_at <= self._clock()
        )

    # On the shelf

    async def _read(self, account: str) -> _Kept:
        sealed = await self._on_shelf().get(_name(account))
        if sealed is None:
            raise DeliveryError(
                f"slack: the app is not installed in {account}, or not any more; "
                f"install it at {self._install_url}",
                retryable=False,
            )
        try:
            opened = self._cipher.open(sealed)
            installation = _json.validate_json(opened.plain)
        except (Unreadable, ValidationError):
            raise self._unreadable(account) from None
        # Whoever can write to Redis could have put one team's entry in another's place.
        if installation.account != account:
            raise self._unreadable(account)
        return _Kept(installation=installation, newest_key=opened.newest_key)

    def _unreadable(self, account: str) -> DeliveryError:
        return DeliveryError(
            f"slack: oauth.encryption_key: what is kept of {account} cannot be read "
            "with this key; add the key it was kept with, after a comma, or install "
            f"the app again at {self._install_url}",
            retryable=True,
            retry_after_s=OPERATOR_S,
        )

    async def _save(self, installation: Installation) -> None:
        sealed = self._cipher.seal(_json.dump_json(installation))
        await self._on_shelf().put(_name(installation.account), sealed)
        self._unsaved.pop(installation.account, None)

    def _lock(self, account: str) -> AbstractAsyncContextManager[None]:
        return self._on_shelf().lock(_name(account), LOCK_S)

    def _on_shelf(self) -> Shelf:
        assert self._shelf is not None  # noqa: S101 (keep_on comes before run and send)
        return self._shelf


def _name(account: str) -> str:
    return f"installation {account}"
