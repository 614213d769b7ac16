"""The webhook over real HTTP: what Rasa sends, and what strangers do."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from yarl import URL

from bot.actions import places
from bot.actions.calls import ActionAnswer, ActionCall
from bot.actions_config import ActionsConfig
from bot.actions_server.bodies import BODY_S, WAYS, Unread, inflated
from bot.actions_server.requests import LARGEST
from bot.errors import ActionError, ActionFault
from bot.model import Button, Candidate, Citation, Record, Reply, Turn
from tests.actions_server.rasa import (
    SECRET,
    TOKEN,
    FakeActions,
    FakeAnswers,
    a_broken_service,
    a_call,
    a_record,
    a_service,
    a_tracker,
    answering,
    bot,
    served,
    user,
)

SHOWS_DOMAIN = "tests.actions_server.sdk_actions:ShowsDomain"
EXAMPLE = Path(__file__).with_name("webhook_example.json")


def raises(fault: ActionFault) -> FakeActions:
    error = ActionError("action_x", fault, f"it said {SECRET}")
    return FakeActions({"action_x": lambda _: error})


def echo(call: ActionCall) -> ActionAnswer:
    """Answer with the request as the action got it."""
    return ActionAnswer(responses=[{"custom": json.loads(call.request)}])


async def test_the_protocols_own_example_is_answered() -> None:
    answers = answering("Five days.")

    async with served(a_service(answers)) as rasa:
        status, answer = await rasa.send(EXAMPLE.read_bytes())

    assert status == 200
    assert [one["text"] for one in answer["responses"]] == ["Five days."]
    assert answers.turns[0].question == "how long does a refund take?"


async def test_a_reply_comes_with_its_candidates_scores_and_citations() -> None:
    citation = Citation(source="refunds.md", passage="p1", title="Refunds", url="")
    won = Candidate(text="Five.", total=0.9, scores={"length": 0.5}, rank=1)
    lost = Candidate(text="Six.", dropped="repeated")
    reply = Reply(
        text="Five.",
        citations=[citation],
        buttons=[Button(text="More", payload="/more")],
    )
    answers = FakeAnswers(
        record=a_record(reply=reply, candidates=[won, lost], chosen=0)
    )

    async with served(a_service(answers)) as rasa:
        _, answer = await rasa.post("/webhook", a_call())

    [response] = answer["responses"]
    assert response["buttons"] == [{"title": "More", "payload": "/more"}]
    assert response["metadata"] == {
        "turn": answers.turns[0].id,
        "outcome": "answered",
        "why": "the best",
        "config": "c",
        "candidates": [
            {
                "text": "Five.",
                "score": 0.9,
                "scores": {"length": 0.5},
                "rank": 1,
                "dropped": None,
            },
            {
                "text": "Six.",
                "score": None,
                "scores": {},
                "rank": None,
                "dropped": "repeated",
            },
        ],
        "citations": [
            {"source": "refunds.md", "passage": "p1", "title": "Refunds", "url": ""}
        ],
    }


async def test_infinite_scores_and_half_characters_are_still_json() -> None:
    candidate = Candidate(text="a \ud83d", total=float("inf"))
    answers = FakeAnswers(record=a_record("half \ud83d", candidates=[candidate]))

    async with (
        served(a_service(answers)) as rasa,
        rasa.client.post("/webhook", json=a_call()) as response,
    ):
        answer = orjson.loads(await response.read())

    [said] = answer["responses"]
    assert said["text"] == "half \ufffd"
    assert said["metadata"]["candidates"][0]["score"] is None


@pytest.mark.parametrize("outcome", ["failed", "declined", "handed_over"])
async def test_what_could_not_be_answered_is_said_and_no_error(outcome: str) -> None:
    answers = FakeAnswers(record=a_record("Sorry.", outcome=outcome))

    async with served(a_service(answers)) as rasa:
        status, answer = await rasa.post("/webhook", a_call())

    assert status == 200
    assert answer["responses"][0]["text"] == "Sorry."
    assert answer["responses"][0]["metadata"]["outcome"] == outcome


async def test_rules_can_branch_on_a_slot_that_the_domain_has() -> None:
    tracker = a_tracker(slots={"chorus_outcome": None})

    async with served(a_service()) as rasa:
        _, without = await rasa.post("/webhook", a_call())
        _, with_slot = await rasa.post("/webhook", a_call(tracker=tracker))

    assert without["events"] == []
    assert with_slot["events"] == [
        {
            "event": "slot",
            "timestamp": None,
            "name": "chorus_outcome",
            "value": "answered",
        }
    ]


@pytest.mark.parametrize(
    ("text", "said"), [(" \n", "empty"), ("x" * 101, "characters")]
)
async def test_what_no_bot_of_ours_would_take_is_not_generated_for(
    text: str, said: str
) -> None:
    answers = answering()

    async with served(a_service(answers)) as rasa:
        status, answer = await rasa.post("/webhook", a_call(tracker=a_tracker(text)))

    assert (status, answers.turns) == (200, [])
    assert said in answer["responses"][0]["text"]
    assert answer["responses"][0]["metadata"]["outcome"] == "declined"


async def test_an_action_is_run_with_the_request_as_it_came() -> None:
    actions = FakeActions({"action_x": echo})
    sent = a_call(
        "action_x", domain={"slots": {"a": {}}}, large=12345678901234567890123
    )

    async with served(a_service(actions=actions)) as rasa:
        status, answer = await rasa.post("/webhook", sent)

    assert status == 200
    assert answer["responses"][0]["custom"] == sent


@pytest.mark.parametrize(
    "domain", [{}, {"domain": None}, {"domain": {}}, {"domain_digest": "d1"}]
)
async def test_an_action_gets_an_empty_domain_for_a_missing_one(
    domain: dict[str, Any],
) -> None:
    config = ActionsConfig.model_validate({"sources": [{"use": SHOWS_DOMAIN}]})
    [place], _ = places.load(config, [])

    async with served(a_service(actions=place)) as rasa:
        status, answer = await rasa.post("/webhook", a_call("action_domain", **domain))
    await place.close()

    assert status == 200
    assert answer["responses"][0]["custom"] == {
        "slots": {},
        "forms": {},
        "responses": {},
        "intents": [],
        "entities": [],
        "actions": [],
    }


async def test_no_assistant_is_given_the_domain_of_another() -> None:
    config = ActionsConfig.model_validate({"sources": [{"use": SHOWS_DOMAIN}]})
    [place], _ = places.load(config, [])
    theirs = a_call("action_domain", domain={"slots": {"a": {}}}, domain_digest="d1")
    ours = a_call("action_domain", domain_digest="d1")

    async with served(a_service(actions=place)) as rasa:
        _, first = await rasa.post("/webhook", theirs)
        _, second = await rasa.post("/webhook", ours)
    await place.close()

    assert first["responses"][0]["custom"] == {"slots": {"a": {}}}
    assert second["responses"][0]["custom"]["slots"] == {}


async def test_no_action_is_answered_with_null() -> None:
    async with served(a_service()) as rasa:
        answer = await rasa.post("/webhook", a_call(None))

    assert answer == (200, None)


async def test_an_unknown_action_is_not_found_and_its_like_is_named() -> None:
    async with served(a_service(actions=raises("crashed"))) as rasa:
        status, answer = await rasa.post("/webhook", a_call("action_y"))

    assert status == 404
    assert answer["action_name"] == "action_y"
    assert "did you mean 'action_x'?" in answer["error"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("rejected", 400),
        ("crashed", 500),
        ("late", 500),
        ("away", 500),
        ("nonsense", 500),
    ],
)
async def test_what_goes_wrong_with_an_action_is_told_without_a_word_of_the_request(
    fault: ActionFault, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async with served(a_service(actions=raises(fault))) as rasa:
        answered = await rasa.post(
            "/webhook", a_call("action_x", tracker=a_tracker(SECRET))
        )

    assert answered[0] == status
    assert answered[1].keys() == {"error", "action_name"}
    assert answered[1]["action_name"] == "action_x"
    assert SECRET not in answered[1]["error"] + caplog.text


class Mistaken(FakeAnswers):
    async def answer(
        self, turn: Turn, cancelled: threading.Event, show: Callable[[str], None]
    ) -> Record:
        raise RuntimeError(SECRET)


async def test_an_answerers_mistake_is_told_without_what_it_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(a_service(Mistaken(a_record()))) as rasa:
        status, answer = await rasa.post("/webhook", a_call())

    assert (status, answer["action_name"]) == (500, "action_generate_reply")
    assert SECRET not in answer["error"] + caplog.text
    assert "RuntimeError at" in caplog.text


async def test_a_mistake_of_ours_quotes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(a_broken_service()) as rasa:
        status, answer = await rasa.post("/webhook", a_call())

    assert (status, answer.keys()) == (500, {"error"})
    assert SECRET not in answer["error"] + caplog.text
    assert "RuntimeError at" in caplog.text


async def test_an_answer_that_is_no_json_is_the_actions_failure() -> None:
    nonsense = ActionAnswer(responses=[{"custom": {"a": {1, 2}}}])  # type: ignore[dict-item]
    actions = FakeActions({"action_x": lambda _: nonsense})

    async with served(a_service(actions=actions)) as rasa:
        status, answer = await rasa.post("/webhook", a_call("action_x"))

    assert (status, answer["action_name"]) == (500, "action_x")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"3",
        b"{",
        b'{"next_action": "a"} trailing',
        b'{"next_action": NaN}',
        b'{"next_action": 5}',
        b'{"next_action": "action_generate_reply", "tracker": []}',
        b'{"next_action": "action_generate_reply", "sender_id": {}}',
        b'{"next_action": "action_generate_reply", "domain": "x"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
async def test_what_is_no_request_of_rasas_is_refused(body: bytes) -> None:
    async with served(a_service()) as rasa:
        status, answer = await rasa.send(body)

    assert status == 400
    assert answer.keys() == {"error"}


@pytest.mark.parametrize(
    "tracker",
    [
        {},
        None,
        {"events": 5, "slots": [], "latest_message": "x"},
        {"events": [None, 5, {}, {"event": []}, {"event": "user", "text": {}}]},
        {"events": [user("x", timestamp=1e300), user("y", timestamp="z")]},
    ],
)
async def test_a_tracker_that_is_hardly_one_is_answered(tracker: Any) -> None:
    async with served(a_service()) as rasa:
        status, answer = await rasa.post(
            "/webhook", {"next_action": "action_generate_reply", "tracker": tracker}
        )

    assert status == 200
    assert answer["responses"][0]["text"]


async def test_half_a_character_of_a_customers_does_no_harm() -> None:
    answers = answering()
    body = json.dumps(a_call(tracker=a_tracker("退款 \ud83d 👍 how \\ud83d long?")))

    async with served(a_service(answers)) as rasa:
        status, _ = await rasa.send(body.encode())

    assert status == 200
    assert answers.turns[0].question == "退款 \ufffd 👍 how \\ud83d long?"


def raw_deflate(body: bytes) -> bytes:
    deflating = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflating.compress(body) + deflating.flush()


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [("deflate", zlib.compress), ("deflate", raw_deflate), ("gzip", gzip.compress)],
)
async def test_a_body_may_be_deflated(encoding: str, encoded: Any) -> None:
    body = encoded(orjson.dumps(a_call()))

    async with served(a_service()) as rasa:
        status, answer = await rasa.send(body, Content_Encoding=encoding)

    assert status == 200
    assert answer["responses"][0]["text"] == "Five days."


WHOLE = zlib.compress(orjson.dumps(a_call()))


@pytest.mark.parametrize("encoding", ["deflate", "gzip"])
@pytest.mark.parametrize("body", [b"", b"no deflate", WHOLE[:-3], WHOLE + b"more"])
async def test_what_is_not_deflated_as_it_says_is_refused(
    encoding: str, body: bytes
) -> None:
    async with served(a_service()) as rasa:
        status, _ = await rasa.send(body, Content_Encoding=encoding)

    assert status == 400


@pytest.mark.parametrize("encoded", [zlib.compress, raw_deflate])
async def test_a_few_bytes_do_not_become_gigabytes(encoded: Any) -> None:
    bomb = encoded(b" " * (LARGEST + 1))

    async with served(a_service()) as rasa:
        status, answer = await rasa.send(bomb, Content_Encoding="deflate")

    assert len(bomb) < LARGEST / 100
    assert (status, answer.keys()) == (413, {"error"})


def test_a_bomb_is_not_held_in_memory() -> None:
    deflating = zlib.compressobj()
    parts = [deflating.compress(bytes(LARGEST)) for _ in range(8)]
    bomb = b"".join([*parts, deflating.flush()])
    tracemalloc.start()

    with pytest.raises(Unread):
        inflated(bomb, WAYS["deflate"])

    assert tracemalloc.get_traced_memory()[1] < 3 * LARGEST
    tracemalloc.stop()


async def test_a_body_that_says_it_is_too_large_is_not_waited_for() -> None:
    async with served(a_service()) as rasa:
        url = URL(rasa.server.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGEST + 1}"
        writer.write(f"{head}\r\n\r\n".encode())
        async with asyncio.timeout(BODY_S / 2):
            answered = await reader.readline()
        writer.close()
        await writer.wait_closed()

    assert answered.split()[1] == b"413"


async def test_the_largest_body_is_read_and_no_larger_one() -> None:
    body = orjson.dumps(a_call())
    fits = body + b" " * (LARGEST - len(body))

    async with served(a_service()) as rasa:
        largest, _ = await rasa.send(fits)
        larger, _ = await rasa.send(fits + b" ")

    assert (largest, larger) == (200, 413)


async def test_a_body_without_a_length_is_no_way_around_the_limit() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(LARGEST // 2**16 + 2):
            yield b" " * 2**16

    async with (
        served(a_service()) as rasa,
        rasa.client.post("/webhook", data=parts()) as response,
    ):
        status = response.status

    assert status == 413


async def test_an_encoding_that_nobody_sends_is_refused() -> None:
    async with served(a_service()) as rasa:
        status, _ = await rasa.send(b"{}", Content_Encoding="br")

    assert status == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/webhook", 405),
        ("GET", "/nlg", 405),
        ("POST", "/actions", 405),
        ("POST", "/health", 405),
        ("GET", "/", 404),
        ("POST", "/webhook/", 404),
    ],
)
async def test_other_paths_and_methods_are_told_so(
    method: str, path: str, status: int
) -> None:
    async with (
        served(a_service()) as rasa,
        rasa.client.request(method, path) as response,
    ):
        answer = await response.json()

    assert response.status == status
    assert answer["error"]


async def test_actions_and_health_are_as_rasa_sdk_has_them() -> None:
    actions = FakeActions({"action_x": echo})

    async with served(a_service(actions=actions)) as rasa:
        async with rasa.client.get("/actions") as response:
            names = await response.json()
        async with rasa.client.get("/health") as response:
            health = await response.json()

    assert names == [{"name": "action_generate_reply"}, {"name": "action_x"}]
    assert health == {"status": "ok"}


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ({}, 401),
        ({"params": {"token": "wrong"}}, 401),
        ({"params": {"token": ""}}, 401),
        ({"headers": {"Authorization": "Bearer wrong"}}, 401),
        ({"headers": {"Authorization": f"Basic {TOKEN}"}}, 401),
        ({"params": {"token": TOKEN}}, 200),
        ({"headers": {"Authorization": f"Bearer {TOKEN}"}}, 200),
        ({"headers": {"authorization": f"bearer {TOKEN}"}}, 200),
    ],
)
async def test_a_token_is_asked_for(
    shown: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = answering()

    async with served(a_service(answers), token=TOKEN) as rasa:
        webhook, answer = await rasa.post("/webhook", a_call(), **shown)
        async with rasa.client.get("/actions", **shown) as actions:
            pass

    assert (webhook, actions.status) == (status, status)
    assert bool(answers.turns) == (status == 200)
    assert "wrong" not in json.dumps(answer) + caplog.text
    assert TOKEN not in caplog.text


async def test_health_needs_no_token() -> None:
    async with (
        served(a_service(), token=TOKEN) as rasa,
        rasa.client.get("/health") as response,
    ):
        status = response.status

    assert status == 200


async def test_a_request_that_comes_twice_has_one_turn_and_one_seed() -> None:
    answers = answering()

    async with served(a_service(answers)) as rasa:
        await asyncio.gather(*(rasa.post("/webhook", a_call()) for _ in range(3)))
        await rasa.post("/webhook", a_call(tracker=a_tracker("Another?")))

    *same, other = [(turn.id, turn.seed) for turn in answers.turns]
    assert len(set(same)) == 1
    assert other[0] != same[0][0]
    assert other[1] != same[0][1]


async def test_what_was_said_before_is_in_the_turn() -> None:
    answers = answering()
    events = [user("Hi"), bot("Hello"), bot(None), user("How long?")]

    async with served(a_service(answers)) as rasa:
        await rasa.post("/webhook", a_call(tracker=a_tracker(events=events)))

    [turn] = answers.turns
    assert turn.message.address.key == "rasa:rasa:ann"
    assert [(one.kind, one.text) for one in turn.history] == [
        ("message", "Hi"),
        ("reply", "Hello"),
        ("reply", ""),
    ]


async def test_generating_stops_when_the_client_hangs_up() -> None:
    answers = FakeAnswers(record=a_record(), hangs=True)

    async with served(a_service(answers)) as rasa:
        asking = asyncio.create_task(rasa.post("/webhook", a_call()))
        await answers.begun.wait()
        asking.cancel()
        async with asyncio.timeout(10):
            await answers.cancelled.wait()

    assert answers.event is not None
    assert answers.event.is_set()


async def test_the_server_ends_while_a_reply_is_being_generated() -> None:
    answers = FakeAnswers(record=a_record(), hangs=True)

    async with served(a_service(answers)) as rasa:
        asking = asyncio.create_task(rasa.post("/webhook", a_call()))
        await answers.begun.wait()

    with pytest.raises(aiohttp.ClientError):
        await asking
    assert answers.cancelled.is_set()


async def test_pictures_and_json_of_a_reply_are_responses() -> None:
    reply = Reply(
        text="See", images=["https://a/1.png", "https://a/2.png"], custom=[{"a": 1}]
    )
    answers = FakeAnswers(record=a_record(reply=reply))

    async with served(a_service(answers)) as rasa:
        _, answer = await rasa.post("/webhook", a_call())

    first, second = answer["responses"]
    assert (first["image"], first["custom"]) == ("https://a/1.png", {"a": 1})
    assert second == {"image": "https://a/2.png"}
