"""
Every request that a real Rasa was seen to send (captured/README.md), sent to us: Rasa
accepts our answer, and our actions answer what rasa-sdk's own server did.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from bot.actions import places
from bot.actions.responses import Responses
from bot.actions.runner import Runner
from bot.actions_config import ActionsConfig, ActionsServerConfig
from bot.actions_server.replying import GENERATE, Replying
from bot.actions_server.server import ActionsServer
from bot.actions_server.service import Service
from bot.actions_server.wording import Wordings
from tests.actions_server.rasa import CONFIG, answering

HERE = Path(__file__).parent
CAPTURED = sorted((HERE / "captured").glob("*.json"))

TOKEN = "captured-token"  # noqa: S105 (the recorder's)

CLASSES = (
    "Welcome",
    "LookUpOrder",
    "RemindMe",
    "SayReminder",
    "Refuse",
    "ValidateReturnForm",
    "ValidateSlotMappings",
)

# What the client writes itself.
OF_THE_CONNECTION = {"host", "content-length", "transfer-encoding"}

# The events that Rasa 3.6 takes (rasa/shared/utils/schemas/events.py).
EVENTS = frozenset(
    {
        "action",
        "action_execution_rejected",
        "active_loop",
        "agent",
        "bot",
        "cancel_reminder",
        "entities",
        "export",
        "followup",
        "form",
        "form_validation",
        "loop_interrupted",
        "pause",
        "reminder",
        "reset_slots",
        "restart",
        "resume",
        "rewind",
        "session_started",
        "slot",
        "undo",
        "user",
        "user_featurization",
    }
)


@dataclass(frozen=True)
class Captured:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    answer: Any

    @classmethod
    def read(cls, path: Path) -> Captured:
        kept = json.loads(path.read_bytes())
        return cls(
            method=kept["method"],
            path=kept["path"],
            query=kept["query"],
            headers=kept["headers"],
            body=base64.b64decode(kept["body_base64"]),
            status=kept["answer"]["status"],
            answer=kept["answer"]["json"],
        )

    @property
    def action(self) -> object:
        """What is to be run."""
        deflated = "Content-Encoding" in self.headers
        body = zlib.decompress(self.body) if deflated else self.body
        return json.loads(body).get("next_action")

    async def parts(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.body), 1000):
            yield self.body[at : at + 1000]


def the_assistants() -> ActionsConfig:
    """Return the assistant's actions and responses, as our configuration has them."""
    domain = yaml.safe_load((HERE / "assistant" / "domain.yml").read_text("utf-8"))
    module = "tests.rasa.assistant.actions"
    return ActionsConfig.model_validate(
        {
            "sources": [{"use": f"{module}:{name}"} for name in CLASSES],
            "responses": {
                name: [without_id(one) for one in wordings]
                for name, wordings in domain["responses"].items()
            },
        }
    )


def without_id(wording: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wording.items() if key != "id"}


async def sent(request: Captured) -> tuple[int, Any]:
    """Send what was captured to our server; return the status and the answer."""
    config = the_assistants()
    built, problems = places.load(config, [])
    assert problems == []
    answers = answering("Five days.")
    runner = Runner(built)
    service = Service(
        runner=runner,
        replying=Replying(answers=answers, config=CONFIG),
        wordings=Wordings(
            responses=Responses(config.responses), words=answers, config=CONFIG
        ),
    )
    settings = ActionsServerConfig.model_validate({"port": 0, "token": TOKEN})
    chunked = "chunked" in request.headers.get("Transfer-Encoding", "")
    try:
        async with (
            ActionsServer(settings=settings, service=service) as server,
            aiohttp.ClientSession() as client,
            client.request(
                request.method,
                f"{server.url}{request.path}?{request.query}",
                data=request.parts() if chunked else request.body,
                headers={
                    name: value
                    for name, value in request.headers.items()
                    if name.lower() not in OF_THE_CONNECTION
                },
            ) as response,
        ):
            return response.status, await response.json()
    finally:
        await runner.close()


def test_there_are_requests_for_each_way_of_asking() -> None:
    asked = {Captured.read(path).path for path in CAPTURED}

    assert asked == {"/webhook", "/nlg"}


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
async def test_rasa_gets_an_answer_that_it_accepts(path: Path) -> None:
    request = Captured.read(path)

    status, answer = await sent(request)

    assert status == request.status
    if request.path == "/nlg":
        assert_wording(answer, request.answer)
    elif status == 200:
        assert_action(answer)
        if request.action == GENERATE:
            assert_reply(answer)
        else:
            assert answer == request.answer
    else:
        assert answer.keys() == request.answer.keys()
        assert answer["action_name"] == request.answer["action_name"]


def assert_action(answer: Any) -> None:
    """What RemoteAction._validate_action_result demands of an answer."""
    assert answer.keys() == {"events", "responses"}
    for event in answer["events"]:
        assert event["event"] in EVENTS
        assert event.get("timestamp") is None or isinstance(event["timestamp"], float)
        if event["event"] == "slot":
            assert isinstance(event["name"], str)
            assert "value" in event
    assert all(isinstance(response, dict) for response in answer["responses"])


def assert_wording(answer: Any, theirs: Any) -> None:
    """What nlg_response_format_spec demands, and what the domain says."""
    assert answer.keys() == {
        *("text", "id", "buttons", "elements", "attachment", "image", "custom"),
    }
    assert isinstance(answer["text"], str)
    assert answer["id"] is None or isinstance(answer["id"], str)
    assert all(isinstance(button, dict) for button in answer["buttons"])
    assert all(isinstance(element, dict) for element in answer["elements"])
    assert answer["attachment"] is None or isinstance(answer["attachment"], dict)
    assert answer["image"] is None or isinstance(answer["image"], str)
    assert isinstance(answer["custom"], dict)
    assert answer["text"] == theirs.get("text", "")
    assert answer["buttons"] == theirs.get("buttons", [])


def assert_reply(answer: Any) -> None:
    """What a customer reads, and what the tracker keeps of how it came about."""
    [response] = answer["responses"]
    assert response["text"]
    assert response["metadata"].keys() >= {"candidates", "citations", "outcome"}


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
async def test_without_the_token_nobody_is_answered(path: Path) -> None:
    request = Captured.read(path)
    headers = {k: v for k, v in request.headers.items() if k != "Authorization"}
    stranger = Captured(
        method=request.method,
        path=request.path,
        query="",
        headers=headers,
        body=request.body,
        status=401,
        answer=None,
    )

    status, answer = await sent(stranger)

    assert status == 401
    assert answer.keys() == {"error"}
