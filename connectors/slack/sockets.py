"""
Sockets: Slack's Socket Mode, for a bot that nobody can reach from outside.

Two connections, because Slack ends each one now and then and what it tells meanwhile
goes down the other. slack_sdk connects, pings and connects anew; this hands on each
envelope, acknowledges it once everything in it is taken, and notices when both
connections have been gone for a while. Knows nothing about what is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import aiohttp
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

from bot.errors import ChorusError, StoreError, place_of
from connectors.slack.intake import Kind
from connectors.slack.payloads import Payload
from connectors.slack.web_api import WebApi, quiet

logger = logging.getLogger(__name__)

CONNECTIONS = 2
# Slack tells an envelope again that is not acknowledged, so a few too many do no harm.
MOST_AT_ONCE = 200
LOOK_S = 5.0
# Who connects anew at once disturbs slack_sdk, which does it by itself.
GRACE_S = 45.0
CLOSE_S = 2.0

_KINDS: Mapping[str, Kind] = {
    "events_api": "events_api",
    "interactive": "interactive",
    "slash_commands": "slash_commands",
}


class Takes(Protocol):
    async def take(self, kind: Kind, payload: Payload) -> None: ...


class Sockets:
    """The connections of one app; `clock` counts seconds."""

    def __init__(  # noqa: PLR0913 (all it works with comes in here)
        self,
        *,
        api: WebApi,
        app_token: str,
        takes: Takes,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        ping_s: float = 5.0,
    ) -> None:
        self._api = api
        self._app_token = app_token
        self._takes = takes
        self._clock = clock
        self._sleep = sleep
        self._ping_s = ping_s
        self._at_once = 0
        self._alive = clock()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        links = [_Link(self._connect) for _ in range(CONNECTIONS)]
        self._alive = self._clock()
        told = False
        try:
            while True:
                now = self._clock()
                for link in links:
                    await link.look(now)
                if any(link.is_open for link in links):
                    self._alive = now
                trouble = self.trouble()
                if trouble is not None and not told:
                    logger.error("%s", trouble)
                told = trouble is not None
                await self._sleep(LOOK_S)
        finally:
            await asyncio.gather(*(link.close() for link in links))

    def trouble(self) -> str | None:
        silent_s = self._clock() - self._alive
        if silent_s < GRACE_S:
            return None
        return (
            f"slack: no socket to Slack has been open for {silent_s:.0f} s; see to the "
            "network, and to `app_token`: an app-level token with connections:write"
        )

    def _connect(self) -> SocketModeClient:
        client = SocketModeClient(
            app_token=self._app_token,
            web_client=self._api.client(None),
            logger=quiet,
            ping_interval=self._ping_s,
        )
        client.socket_mode_request_listeners.append(self._take)
        return client

    async def _take(
        self, client: AsyncBaseSocketModeClient, request: SocketModeRequest
    ) -> None:
        """Take an envelope, then acknowledge it; slack_sdk gives each its own task."""
        if self._at_once >= MOST_AT_ONCE:
            logger.warning("too many envelopes at once; Slack tells one again")
            return
        self._at_once += 1
        try:
            await self._take_and_acknowledge(client, request)
        except StoreError:
            pass  # the core has said so; Slack tells it again
        except ChorusError as error:
            logger.warning("an envelope was not taken, Slack tells it again: %s", error)
        except (aiohttp.ClientError, ConnectionError):
            pass  # the connection went away: Slack tells it again, down another one
        # What one stranger wrote must not take the others' messages away. slack_sdk
        # would log what was raised, and that may quote it.
        except Exception as error:  # noqa: BLE001
            logger.error("an envelope could not be read: %s", place_of(error))  # noqa: TRY400
        finally:
            self._at_once -= 1

    async def _take_and_acknowledge(
        self, client: AsyncBaseSocketModeClient, request: SocketModeRequest
    ) -> None:
        kind, payload = _KINDS.get(request.type), request.payload
        if kind is not None and isinstance(payload, dict):
            await self._takes.take(kind, payload)
        await client.send_socket_mode_response({"envelope_id": request.envelope_id})


class _Link:
    """
    One connection. slack_sdk may hang for good while it connects; after a while
    without one everything of it is thrown away and begun anew.
    """

    def __init__(self, connect: Callable[[], SocketModeClient]) -> None:
        self._connect = connect
        self._client: SocketModeClient | None = None
        self._connecting: asyncio.Task[Any] | None = None
        self._alive = 0.0

    @property
    def is_open(self) -> bool:
        client = self._client
        return (
            client is not None
            and client.current_session is not None
            and not client.current_session.closed
            and not client.stale
        )

    async def look(self, now: float) -> None:
        if self.is_open:
            self._alive = now
        elif self._client is None or now - self._alive > GRACE_S:
            await self.close()
            self._alive = now
            self._client = self._connect()
            # It tries until it succeeds.
            self._connecting = asyncio.create_task(
                self._client.connect()  # type: ignore[no-untyped-call]  # slack_sdk's
            )

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        client, self._client = self._client, None
        if client is None:
            return
        # Who does not answer a goodbye in time is left without one.
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(CLOSE_S):
                await client.close()  # type: ignore[no-untyped-call]  # slack_sdk's
        for task in (
            client.message_processor,
            client.current_session_monitor,
            client.message_receiver,
        ):
            if task is not None:
                task.cancel()
        await client.aiohttp_client_session.close()
