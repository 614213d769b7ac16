"""What stands in for Rasa and for what is served to it: requests, actions, answers."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from bot.actions.calls import ActionAnswer, ActionCall, ActionPlace
from bot.actions.responses import Responses
from bot.actions.runner import Runner
from bot.actions_config import ActionsServerConfig, ResponseConfig
from bot.actions_server.replying import Replying
from bot.actions_server.requests import ActionRequest
from bot.actions_server.server import ActionsServer
from bot.actions_server.service import Service
from bot.actions_server.wording import Wordings
from bot.config import Config
from bot.model import Record, Reply, Turn

CONFIG = Config.model_validate(
    {
        "knowledge": {"model": "m"},
        "generation": {"model": "m"},
        "conversation": {"window_events": 4, "max_message_characters": 100},
    }
)

SECRET = "the customer's own words"  # noqa: S105 (what no error may repeat)

TOKEN = "t-1"  # noqa: S105 (opens nothing)


def user(text: str | None, **more: Any) -> dict[str, Any]:
    return {"event": "user", "timestamp": 1.5, "text": text, **more}


def bot(text: str | None, **more: Any) -> dict[str, Any]:
    return {"event": "bot", "timestamp": 2.5, "text": text, **more}


def a_tracker(text: str = "How long?", **more: Any) -> dict[str, Any]:
    return {
        "sender_id": "ann",
        "slots": {"size": None},
        "latest_message": {
            "text": text,
            "message_id": f"id of {text}",
            "intent": {"name": "nlu_fallback", "confidence": 0.3},
            "entities": [],
        },
        "events": [user(text)],
        "latest_input_channel": "rest",
        **more,
    }


def a_call(
    action: str | None = "action_generate_reply",
    tracker: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Make the body of a webhook's request, with the domain left out."""
    return {
        "next_action": action,
        "sender_id": "ann",
        "version": "3.6.21",
        "tracker": a_tracker() if tracker is None else tracker,
        **more,
    }


@dataclass
class FakeAnswers:
    """
    Answers with `record`, with its turn in it. With `hangs`, it waits until it is
    cancelled. `shows` is what the reply is shown as before that.
    """

    record: Record
    hangs: bool = False
    shows: Sequence[str] = ()
    turns: list[Turn] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    event: threading.Event | None = None

    async def answer(
        self, turn: Turn, cancelled: threading.Event, show: Callable[[str], None]
    ) -> Record:
        self.turns.append(turn)
        self.event = cancelled
        self.begun.set()
        for text in self.shows:
            await asyncio.to_thread(show, text)  # as the generator's thread does
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        return replace(self.record, turn=turn)

    async def reworded(
        self, turn: Turn, text: str, cancelled: threading.Event
    ) -> Reply:
        self.turns.append(turn)
        return Reply(text=f"In other words: {text}")


@dataclass
class FakeActions:
    """A place with functions for actions; what one returns as an error is raised."""

    by_name: Mapping[str, Callable[[ActionCall], ActionAnswer | Exception]]
    streams: Sequence[str] = ()
    calls: list[ActionCall] = field(default_factory=list)
    where: str = "a fake"
    timeout_s: float = 10.0
    reword: bool = False

    async def names(self) -> Sequence[str]:
        return list(self.by_name)

    async def run(
        self, call: ActionCall, stream: Callable[[str], None]
    ) -> ActionAnswer:
        self.calls.append(call)
        for text in self.streams:
            stream(text)
        answer = self.by_name[call.name](call)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """There is nothing to end."""


def a_record(text: str = "Five days.", **more: Any) -> Record:
    turn = Turn(id="t1", message=None, seed=1)  # type: ignore[arg-type]  # replaced
    made = Record(
        turn=turn,
        outcome="answered",
        reply=Reply(text=text),
        why="the best",
        config="c",
    )
    return replace(made, **more)


def answering(text: str = "Five days.", **more: Any) -> FakeAnswers:
    return FakeAnswers(record=a_record(text, **more))


def a_service(
    answers: FakeAnswers | None = None,
    actions: ActionPlace | None = None,
    responses: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Service:
    answers = answers or answering()
    templates = {
        name: [ResponseConfig.model_validate(one) for one in wordings]
        for name, wordings in (responses or {}).items()
    }
    return Service(
        runner=Runner([actions] if actions else []),
        replying=Replying(answers=answers, config=CONFIG),
        wordings=Wordings(responses=Responses(templates), words=answers, config=CONFIG),
    )


class Breaks(Service):
    """A service with a mistake of ours in it."""

    async def run(
        self, request: ActionRequest, show: Callable[[str], None]
    ) -> ActionAnswer:
        raise RuntimeError(SECRET)


def a_broken_service() -> Service:
    whole = a_service()
    return Breaks(runner=whole.runner, replying=whole.replying, wordings=whole.wordings)


@dataclass(frozen=True)
class Served:
    """A server that runs, and a client of it."""

    server: ActionsServer
    client: aiohttp.ClientSession

    async def post(self, path: str, body: object, **more: Any) -> tuple[int, Any]:
        """Send JSON; return the status and the JSON of the answer."""
        async with self.client.post(path, json=body, **more) as response:
            return response.status, await response.json()

    async def send(self, body: bytes, **headers: str) -> tuple[int, Any]:
        """Send bytes to the webhook."""
        sent = self.client.post(
            "/webhook",
            data=io.BytesIO(body),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        async with sent as response:
            return response.status, await response.json()


@asynccontextmanager
async def served(service: Service, **settings: Any) -> AsyncIterator[Served]:
    """Serve on free loopback ports."""
    config = ActionsServerConfig.model_validate({"port": 0, **settings})
    async with (
        ActionsServer(settings=config, service=service) as server,
        aiohttp.ClientSession(server.url) as client,
    ):
        yield Served(server=server, client=client)
