"""Where the action server listens, and what it refuses to start with."""

from __future__ import annotations

import re
import socket

import pytest

from bot.actions_config import ActionsServerConfig
from bot.actions_server.server import ActionsServer, check
from bot.errors import ConfigError
from tests.actions_server.rasa import TOKEN, a_call, a_service, served


def settings(**more: object) -> ActionsServerConfig:
    return ActionsServerConfig.model_validate({"port": 0, **more})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])  # noqa: S104
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    told = re.escape(f"actions.server.token: {host!r} can be reached")

    with pytest.raises(ConfigError, match=told):
        ActionsServer(settings=settings(host=host), service=a_service())
    check(settings(host=host, token=TOKEN))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    check(settings(host=host))


async def test_http_alone_is_served_unless_a_port_is_named_for_grpc() -> None:
    async with served(a_service()) as rasa:
        assert rasa.server.url.startswith("http://127.0.0.1:")
        assert rasa.server.grpc_address == ""


async def test_a_port_that_is_taken_is_a_sentence_for_the_operator() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"actions.server.port: .*:{port} is in"):
            async with served(a_service(), port=port):
                pass


async def test_http_is_not_left_open_when_grpc_cannot_be_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        with pytest.raises(ConfigError, match="grpc_port"):
            async with served(a_service(), port=port, grpc_port=taken.getsockname()[1]):
                pass

    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


async def test_a_server_may_be_started_again() -> None:
    service = a_service()

    for _ in range(2):
        async with served(service, grpc_port=0) as rasa:
            status, _ = await rasa.post("/webhook", a_call())

            assert status == 200
