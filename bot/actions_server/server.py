"""
The action server: the service over HTTP, and over gRPC where a port is named for it.

Knows no protocol. Trust that what can be reached from elsewhere asks for a token, and
that nothing is listened on but `host`.
"""

from __future__ import annotations

import ipaddress
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from bot.actions_config import ActionsServerConfig
from bot.actions_server.service import Service
from bot.actions_server.webhook import LIMITS, Webhook
from bot.errors import ConfigError
from bot.serving import Serving

PORTS = "name another port, or 0 for any free one"


def check(settings: ActionsServerConfig) -> None:
    """Raise ConfigError where anybody in the network could run actions."""
    if settings.token is None and not _is_loopback(settings.host):
        raise ConfigError(
            f"actions.server.token: {settings.host!r} can be reached from other "
            "machines, so callers have to show a token; set one, or write 127.0.0.1 as "
            "actions.server.host"
        )


class ActionsServer:
    """
    A context manager; inside it Rasa finds the webhook and the NLG server at `url`, and
    the gRPC service at `grpc_address`, which is empty where it is not served. Raises
    ConfigError for what the operator has to change.
    """

    def __init__(self, *, settings: ActionsServerConfig, service: Service) -> None:
        check(settings)
        self.url = ""
        self.grpc_address = ""
        self._settings = settings
        self._service = service
        self._open = AsyncExitStack()

    async def names(self) -> list[str]:
        """Return the actions that are served."""
        return await self._service.names()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            await self._serve(opened)
            self._open = opened.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def _serve(self, opened: AsyncExitStack) -> None:
        settings = self._settings
        secret = settings.token
        token = None if secret is None else secret.get_secret_value()
        serving = Serving(
            section="actions.server",
            host=settings.host,
            port=settings.port,
            ports=PORTS,
            respond=Webhook(service=self._service, token=token).respond,
            limits=LIMITS,
        )
        self.url = (await opened.enter_async_context(serving)).url
        if settings.grpc_port is None:
            return
        # gRPC takes a quarter of a second, which HTTP alone need not wait for.
        from bot.actions_server.grpc_service import GrpcServing  # noqa: PLC0415

        speaking = GrpcServing(
            service=self._service,
            token=token,
            host=settings.host,
            port=settings.grpc_port,
        )
        self.grpc_address = (await opened.enter_async_context(speaking)).address


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may mean anything
        return False
