"""What strangers send, read; what is answered, written."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from bot.actions_server.requests import (
    read_action,
    read_wording,
    to_json,
    without_half_surrogates,
)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\uD83D x \uDC4D"', "\ufffd x \ufffd"),
        (rb'"\ud83d\udc4d"', "👍"),
        (rb'"\udc4d\ud83d"', "\ufffd\ufffd"),
        (rb'"\ud83d\ud83d\udc4d"', "\ufffd👍"),
        (rb'"\\ud83d"', "\\ud83d"),
        (rb'"\\\ud83d"', "\\\ufffd"),
        (rb'"\n\u0041\""', '\nA"'),
        ('"退款 👍"'.encode(), "退款 👍"),
    ],
)
def test_only_half_characters_are_replaced(written: bytes, read: str) -> None:
    assert orjson.loads(without_half_surrogates(written)) == read


def test_half_characters_without_an_end_cost_no_more_than_their_length() -> None:
    hostile = rb"\ud83d" * 200_000 + rb"\\" * 200_000 + b"\\"

    replaced = without_half_surrogates(hostile)

    assert replaced == rb"\ufffd" * 200_000 + rb"\\" * 200_000 + b"\\"


@pytest.mark.parametrize(
    "body",
    [
        b'{"next_action": "action_x"}',
        b' {"next_action": "action_x"} \r\n\t ',
        b'{"domain": null, "next_action": "action_x"}',
        b'{"next_action": "action_x", "domain": null}',
        b'{"next_action": "action_x", "domain": {}, "domain_digest": "d1"}',
    ],
)
def test_an_action_always_has_a_domain(body: bytes) -> None:
    read = read_action(body)

    assert read.domain == {}
    for parsed in (orjson.loads(read.body), json.loads(read.body)):
        assert parsed["domain"].keys() >= {"slots", "forms", "intents"}
        assert not any(parsed["domain"].values())
        assert parsed["domain_digest"] is None


def test_what_an_action_gets_is_byte_for_byte_what_came() -> None:
    body = b'{"next_action":"a","domain":{"a":1},"n":1234567890123456789012,"f":1.0}'

    assert read_action(body).body == body


def test_the_sender_is_the_trackers_where_no_other_is_named() -> None:
    body = {"response": "utter_x", "tracker": {"sender_id": "ann"}}

    assert read_wording(orjson.dumps(body)).sender == "ann"
    assert read_action(orjson.dumps(body)).sender == "ann"


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        ({"a": float("nan")}, {"a": None}),
        ({"a": "\ud83d"}, {"a": "\ufffd"}),
        ({1: 2}, {"1": 2}),
        ({"a": 2**70}, {"a": 2**70}),
    ],
)
def test_answers_are_json_for_anybody(answer: Any, written: Any) -> None:
    assert json.loads(to_json(answer)) == written


def test_what_is_no_json_is_said_to_be_none() -> None:
    endless: list[Any] = []
    endless.append(endless)

    wrong: list[Any] = [{"a": {1}}, {(1, 2): 3}, endless, ["\ud83d", float("nan")]]
    for answer in wrong:
        with pytest.raises(ValueError, match=r"\w"):
            to_json(answer)
