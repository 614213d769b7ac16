"""Rasa's NLG protocol: wordings that Rasa accepts, and what it is told otherwise."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from bot.model import Reply, Turn
from tests.actions_server.rasa import (
    SECRET,
    TOKEN,
    FakeAnswers,
    a_record,
    a_service,
    a_tracker,
    answering,
    served,
)

# rasa/core/nlg/callback.py, nlg_response_format_spec: the types of each key.
SPEC: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "id": (str, type(None)),
    "buttons": (list, type(None)),
    "elements": (list, type(None)),
    "attachment": (dict, type(None)),
    "image": (str, type(None)),
    "custom": (dict,),
}

GREET = {"utter_greet": [{"text": "Hello {name}"}]}


def a_request(response: object = "utter_greet", **more: Any) -> dict[str, Any]:
    return {
        "response": response,
        "id": None,
        "arguments": {},
        "tracker": a_tracker(slots={"name": "Ann"}),
        "channel": {"name": "collector"},
        **more,
    }


def accepted_by_rasa(answer: dict[str, Any]) -> bool:
    return answer.keys() == SPEC.keys() and all(
        isinstance(answer[name], kinds) for name, kinds in SPEC.items()
    )


async def test_a_response_is_worded_as_it_is_written() -> None:
    answers = answering()

    async with served(a_service(answers, responses=GREET)) as rasa:
        status, answer = await rasa.post("/nlg", a_request())

    assert status == 200
    assert accepted_by_rasa(answer)
    assert answer["text"] == "Hello Ann"
    assert answers.turns == []


async def test_what_an_action_gave_comes_before_slots() -> None:
    given: Any = {"text": None, "buttons": [], "template": "utter_greet", "name": "Bob"}

    async with served(a_service(responses=GREET)) as rasa:
        _, answer = await rasa.post("/nlg", a_request(arguments=given))

    assert answer["text"] == "Hello Bob"


async def test_everything_that_a_response_has_is_in_its_place() -> None:
    written = {
        "text": "Look",
        "buttons": [{"title": "Yes", "payload": "/affirm"}],
        "image": "https://example.org/a.png",
        "attachment": "https://example.org/a.pdf",
        "custom": {"a": [1]},
    }

    async with served(a_service(responses={"utter_look": [written]})) as rasa:
        _, answer = await rasa.post("/nlg", a_request("utter_look"))

    assert accepted_by_rasa(answer)
    assert answer == {
        "text": "Look",
        "id": None,
        "buttons": [{"title": "Yes", "payload": "/affirm"}],
        "elements": [],
        "attachment": {"type": "file", "payload": {"src": "https://example.org/a.pdf"}},
        "image": "https://example.org/a.png",
        "custom": {"a": [1]},
    }


async def test_the_wording_is_for_the_channel_that_the_customer_is_on() -> None:
    wordings = [{"text": "everywhere"}, {"text": "at Slack", "channel": "slack"}]
    tracker = a_tracker(latest_input_channel="slack")

    async with served(a_service(responses={"utter_x": wordings})) as rasa:
        _, there = await rasa.post("/nlg", a_request("utter_x", tracker=tracker))
        _, elsewhere = await rasa.post("/nlg", a_request("utter_x"))

    assert (there["text"], elsewhere["text"]) == ("at Slack", "everywhere")


async def test_a_response_may_be_reworded() -> None:
    written = {"utter_x": [{"text": "Five days", "reword": True}]}

    async with served(a_service(responses=written)) as rasa:
        _, answer = await rasa.post("/nlg", a_request("utter_x"))

    assert accepted_by_rasa(answer)
    assert answer["text"] == "In other words: Five days"


async def test_the_address_of_the_server_may_ask_for_all_to_be_reworded() -> None:
    async with served(a_service(responses=GREET)) as rasa:
        _, answer = await rasa.post("/nlg?reword=true", a_request())

    assert answer["text"] == "In other words: Hello Ann"


class Broken(FakeAnswers):
    async def reworded(
        self, turn: Turn, text: str, cancelled: threading.Event
    ) -> Reply:
        raise RuntimeError(SECRET)


async def test_what_cannot_be_reworded_is_said_as_it_is_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    written = {"utter_x": [{"text": "Five days", "reword": True}]}

    async with served(a_service(Broken(a_record()), responses=written)) as rasa:
        status, answer = await rasa.post("/nlg", a_request("utter_x"))

    assert (status, answer["text"]) == (200, "Five days")
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ["utter_great", "utter_restart"])
async def test_a_response_that_nobody_wrote_says_nothing_and_the_log_names_its_like(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async with served(a_service(responses=GREET)) as rasa:
        status, answer = await rasa.post("/nlg", a_request(name))

    assert status == 200
    assert accepted_by_rasa(answer)
    assert answer["text"] == ""
    assert f"'{name}'" in caplog.text
    assert "'utter_greet'" in caplog.text


async def test_what_rasa_asks_for_by_itself_may_be_written() -> None:
    written = {"utter_restart": [{"text": "From the start"}]}

    async with served(a_service(responses=written)) as rasa:
        _, answer = await rasa.post("/nlg", a_request("utter_restart"))

    assert answer["text"] == "From the start"


@pytest.mark.parametrize(
    "more",
    [
        {"response": None},
        {"response": ""},
        {"response": 5},
        {"tracker": "x"},
        {"arguments": []},
    ],
)
async def test_what_is_no_request_for_wording_is_refused(more: Any) -> None:
    async with served(a_service(responses=GREET)) as rasa:
        status, answer = await rasa.post("/nlg", {**a_request(), **more})

    assert (status, answer.keys()) == (400, {"error"})


async def test_wording_needs_the_token_too() -> None:
    async with served(a_service(responses=GREET), token=TOKEN) as rasa:
        without, _ = await rasa.post("/nlg", a_request())
        shown, _ = await rasa.post(f"/nlg?token={TOKEN}", a_request())

    assert (without, shown) == (401, 200)


async def test_a_response_without_words_is_one_that_rasa_accepts() -> None:
    picture = {"utter_x": [{"image": "https://example.org/a.png"}]}

    async with served(a_service(responses=picture)) as rasa:
        _, answer = await rasa.post("/nlg", a_request("utter_x"))

    assert accepted_by_rasa(answer)
    assert json.dumps(answer["text"]) == '""'
