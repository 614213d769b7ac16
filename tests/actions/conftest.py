"""What the tests of running actions share: calls, places and a server of rasa-sdk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from bot.actions import tracker
from bot.actions.calls import ActionCall
from bot.actions.domain import domain_of
from bot.actions.in_process import InProcess
from bot.actions.rules import understood
from bot.actions.state import DialogueState
from bot.actions.threads import ActionThreads
from bot.actions_config import ActionsConfig
from bot.model import Event, Turn
from bot.testing.makers import a_turn, an_event

HARD = "tests.actions.demo_actions"

Call = Callable[..., ActionCall]
Place = Callable[..., InProcess]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Answer], Awaitable[str]]


@pytest.fixture
def threads() -> Iterator[ActionThreads]:
    """Threads for actions; what a test left hanging there is let go at its end."""
    made = ActionThreads()
    yield made
    made.close()


@pytest.fixture
def place(threads: ActionThreads) -> Place:
    """Make an action of `demo_actions` a place."""

    def made(name: str, timeout_s: float = 10.0, module: str = HARD) -> InProcess:
        return InProcess(
            f"{module}:{name}", timeout_s=timeout_s, reword=False, threads=threads
        )

    return made


@pytest.fixture
def call() -> Call:
    """Make a call of an action, in a conversation with these slots and events."""

    def made(
        name: str,
        message: Event | str = "where is order 12?",
        config: ActionsConfig | None = None,
        state: DialogueState | None = None,
    ) -> ActionCall:
        event = an_event(message) if isinstance(message, str) else message
        turn: Turn = a_turn(message=event)
        domain = tracker.as_json(domain_of(config or ActionsConfig(), [name]))
        state = state or DialogueState(events=tracker.events_of([event]))
        request = tracker.request(name, turn, state, domain, understood(event))
        return ActionCall(name=name, turn=turn, request=request)

    return made


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve whatever a test writes onto a connection; give the address."""
    servers: list[asyncio.Server] = []

    async def started(answer: Answer) -> str:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    yield started
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture
def never() -> threading.Event:
    """A stop that nobody presses."""
    return threading.Event()
