"""The gRPC service, spoken to with rasa-sdk's own stubs over loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import rasa_sdk
from google.protobuf.json_format import (
    MessageToDict,
    ParseDict,
)
from grpc_health.v1 import (
    health_pb2,
    health_pb2_grpc,
)
from rasa_sdk.executor import ActionExecutor
from rasa_sdk.grpc_py import action_webhook_pb2 as messages
from rasa_sdk.grpc_py import action_webhook_pb2_grpc as rpcs
from rasa_sdk.grpc_server import GRPCActionServerWebhook

from bot.actions import places
from bot.actions.calls import ActionAnswer, ActionCall
from bot.actions_config import ActionsConfig
from bot.actions_server.requests import LARGEST
from bot.actions_server.service import Service
from bot.errors import ActionError, ActionFault, ConfigError
from bot.model import Button, Reply
from tests.actions_server.rasa import (
    SECRET,
    TOKEN,
    FakeActions,
    FakeAnswers,
    a_broken_service,
    a_record,
    a_service,
    answering,
    served,
    user,
)
from tests.actions_server.sdk_actions import Tells


@dataclass(frozen=True)
class Caller:
    """rasa-sdk's stub of a server, and its answers as JSON."""

    stub: rpcs.ActionServiceStub
    channel: grpc.aio.Channel

    async def webhook(self, request: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return as_dict(await self.stub.Webhook(message(request), **more))

    async def stream(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            as_dict(event) async for event in self.stub.WebhookStream(message(request))
        ]


def as_dict(found: Any) -> dict[str, Any]:
    return dict(MessageToDict(found, preserving_proto_field_name=True))


def message(request: Mapping[str, Any]) -> messages.WebhookRequest:
    return ParseDict(dict(request), messages.WebhookRequest())


def a_call(
    action: str = "action_generate_reply", text: str = "How long?", **more: Any
) -> dict[str, Any]:
    return {
        "next_action": action,
        "sender_id": "ann",
        "tracker": {
            "sender_id": "ann",
            "slots": {"quantity": 5},
            "latest_message": {"text": text, "message_id": "m1"},
            "events": [user(text)],
        },
        **more,
    }


@asynccontextmanager
async def speaking(service: Service, **settings: Any) -> AsyncIterator[Caller]:
    async with (
        served(service, grpc_port=0, **settings) as rasa,
        calling(rasa.server.grpc_address) as caller,
    ):
        yield caller


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield Caller(stub=rpcs.ActionServiceStub(channel), channel=channel)


def echo(call: ActionCall) -> ActionAnswer:
    return ActionAnswer(responses=[{"custom": json.loads(call.request)}])


def raises(fault: ActionFault) -> FakeActions:
    error = ActionError("action_x", fault, f"it said {SECRET}")
    return FakeActions({"action_x": lambda _: error})


def texts(events: Sequence[Mapping[str, Any]]) -> list[str]:
    return [one["chunk"].get("text") for one in events if "chunk" in one]


def kinds(events: Sequence[Mapping[str, Any]]) -> list[str]:
    return [next(iter(one)) for one in events]


async def test_a_reply_comes_as_over_http() -> None:
    async with served(a_service(), grpc_port=0) as rasa:
        async with calling(rasa.server.grpc_address) as caller:
            by_grpc = await caller.webhook(a_call())
        _, by_http = await rasa.post("/webhook", a_call())

    assert by_grpc.get("events", []) == by_http["events"]
    assert by_grpc["responses"] == by_http["responses"]


async def test_no_action_is_answered_with_nothing() -> None:
    async with speaking(a_service()) as caller:
        answer = await caller.webhook(a_call(""))
        events = await caller.stream(a_call(""))

    assert (answer, events) == ({}, [])


async def test_the_actions_are_listed() -> None:
    actions = FakeActions({"action_x": echo})

    async with speaking(a_service(actions=actions)) as caller:
        answer = await caller.stub.Actions(messages.ActionsRequest())

    assert as_dict(answer) == {
        "actions": [{"name": "action_generate_reply"}, {"name": "action_x"}]
    }


async def test_an_action_gets_its_integers_back_and_an_empty_domain() -> None:
    actions = FakeActions({"action_x": echo})

    async with speaking(a_service(actions=actions)) as caller:
        await caller.webhook(a_call("action_x"))

    request = json.loads(actions.calls[0].request)
    assert request["domain"]["slots"] == {}
    assert request["tracker"]["slots"] == {"quantity": 5}
    assert isinstance(request["tracker"]["slots"]["quantity"], int)
    assert isinstance(request["tracker"]["events"][0]["timestamp"], float)


async def test_an_action_gets_a_float_where_the_domain_says_so() -> None:
    actions = FakeActions({"action_x": echo})
    domain = {
        "slots": {"quantity": {"type": "float"}},
        "intents": [{"string_value": "greet"}],
    }

    async with speaking(a_service(actions=actions)) as caller:
        await caller.webhook(a_call("action_x", domain=domain))

    request = json.loads(actions.calls[0].request)
    assert isinstance(request["tracker"]["slots"]["quantity"], float)
    assert request["domain"]["intents"] == ["greet"]


@pytest.mark.parametrize(
    ("fault", "status", "resource"),
    [
        ("rejected", grpc.StatusCode.INTERNAL, None),
        ("missing", grpc.StatusCode.NOT_FOUND, "ACTION"),
    ],
)
async def test_rasa_reads_why_an_action_did_not_run(
    fault: ActionFault, status: grpc.StatusCode, resource: str | None
) -> None:
    async with speaking(a_service(actions=raises(fault))) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.webhook(a_call("action_x", SECRET))

    details = json.loads(refused.value.details() or "")
    assert refused.value.code() == status
    assert details.pop("message")
    assert details.pop("resource_type", None) == resource
    assert details == {"action_name": "action_x"}
    assert SECRET not in (refused.value.details() or "")


@pytest.mark.parametrize("fault", ["crashed", "late", "away", "nonsense"])
async def test_a_failure_is_no_rejection_and_quotes_nothing(fault: ActionFault) -> None:
    async with speaking(a_service(actions=raises(fault))) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.webhook(a_call("action_x", SECRET))

    told = refused.value.details() or ""
    assert refused.value.code() == grpc.StatusCode.INTERNAL
    assert told
    assert "{" not in told
    assert SECRET not in told


async def test_a_stream_ends_with_the_error() -> None:
    async with speaking(a_service(actions=raises("crashed"))) as caller:
        call = caller.stub.WebhookStream(message(a_call("action_x", SECRET)))
        event = as_dict(await call.read())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()

    assert event["error"]["action_name"] == "action_x"
    assert event["error"]["message"]
    assert SECRET not in event["error"]["message"]
    assert refused.value.code() == grpc.StatusCode.INTERNAL


async def test_a_mistake_of_ours_quotes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with speaking(a_broken_service()) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as unary:
            await caller.webhook(a_call())
        with pytest.raises(grpc.aio.AioRpcError) as stream:
            await caller.stream(a_call())

    for refused in (unary.value, stream.value):
        assert refused.code() == grpc.StatusCode.INTERNAL
        assert SECRET not in (refused.details() or "")
    assert SECRET not in caplog.text
    assert "RuntimeError at" in caplog.text


@pytest.mark.parametrize("name", ["action_👍\n\x00", "x" * 1_000_000])
async def test_a_hostile_name_is_not_found_either(name: str) -> None:
    async with speaking(a_service()) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.webhook(a_call(name))

    details = json.loads(refused.value.details() or "")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert details["action_name"] == name[:100]


async def test_an_answer_that_no_message_holds_is_the_actions_failure() -> None:
    nonsense = ActionAnswer(responses=[{"custom": {"a": {1, 2}}}])  # type: ignore[dict-item]
    actions = FakeActions({"action_x": lambda _: nonsense})

    async with speaking(a_service(actions=actions)) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.webhook(a_call("action_x"))

    assert refused.value.code() == grpc.StatusCode.INTERNAL


async def test_a_number_that_is_none_is_refused() -> None:
    request = message(a_call())
    request.tracker.slots["quantity"] = float("nan")

    async with speaking(a_service()) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.stub.Webhook(request)

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_reply_in_blocks_comes_in_chunks() -> None:
    more = Button(text="More", payload="/more")
    reply = Reply(text="It takes five days. Ask.", buttons=[more])
    answers = FakeAnswers(
        record=a_record(reply=reply), shows=["It takes", "It takes five days."]
    )

    async with speaking(a_service(answers)) as caller:
        events = await caller.stream(a_call())

    [response_id] = {
        one[kind]["response_id"] for one in events for kind in one if "chunk" in kind
    }
    assert response_id
    assert kinds(events) == ["chunk_start", *["chunk"] * 4, "chunk_end", "final_result"]
    assert texts(events) == ["It takes", " five days.", " Ask.", None]
    assert events[4]["chunk"]["buttons"] == [{"title": "More", "payload": "/more"}]
    assert events[-1] == {"final_result": {}}


async def test_a_reply_that_is_written_at_once_is_one_chunk() -> None:
    async with speaking(a_service(answering("Five days."))) as caller:
        events = await caller.stream(a_call())

    assert kinds(events) == ["chunk_start", "chunk", "chunk_end", "final_result"]
    assert texts(events) == ["Five days."]


async def test_an_apology_in_the_middle_of_a_reply_is_another_response() -> None:
    answers = FakeAnswers(record=a_record("Sorry."), shows=["It takes"])

    async with speaking(a_service(answers)) as caller:
        events = await caller.stream(a_call())

    assert kinds(events) == [
        *("chunk_start", "chunk", "chunk_end"),
        *("chunk_start", "chunk", "chunk_end"),
        "final_result",
    ]
    assert texts(events) == ["It takes", "Sorry."]


async def test_what_was_streamed_is_not_in_the_result_again() -> None:
    said = ActionAnswer(
        events=[{"event": "pause"}],
        responses=[
            {"text": "On its way.", "buttons": [], "image": None},
            {"text": "Anything else?"},
        ],
    )
    actions = FakeActions(
        {"action_x": lambda _: said}, streams=["On its", "On its way."]
    )

    async with speaking(a_service(actions=actions)) as caller:
        events = await caller.stream(a_call("action_x"))

    assert texts(events) == ["On its", " way."]
    assert events[-1] == {
        "final_result": {
            "events": [{"event": "pause"}],
            "responses": [{"text": "Anything else?"}],
        }
    }


async def test_what_came_with_a_streamed_text_is_in_the_result() -> None:
    said = ActionAnswer(responses=[{"text": "Look.", "image": "https://a/b.png"}])
    actions = FakeActions({"action_x": lambda _: said}, streams=["Look."])

    async with speaking(a_service(actions=actions)) as caller:
        events = await caller.stream(a_call("action_x"))

    assert events[-1]["final_result"]["responses"] == [
        {"text": None, "image": "https://a/b.png"}
    ]


async def test_who_interrupts_our_reply_stops_it() -> None:
    answers = FakeAnswers(record=a_record(), hangs=True, shows=["It takes"])

    async with speaking(a_service(answers)) as caller:
        events = aiter(caller.stub.WebhookStream(message(a_call())))
        started = as_dict(await anext(events))
        await anext(events)
        await caller.stub.AckStreamChunks(
            messages.StreamChunkAck(response_id=started["chunk_start"]["response_id"])
        )
        rest = [as_dict(event) async for event in events]

    assert rest == [{"final_result": {}}]
    assert answers.cancelled.is_set()
    assert answers.event is not None
    assert answers.event.is_set()


class Interrupted(FakeActions):
    """Streams, waits until it may go on, and streams again."""

    may_go_on = asyncio.Event()

    async def run(self, call: ActionCall, stream: Any) -> ActionAnswer:
        stream("One")
        await self.may_go_on.wait()
        stream("One two")
        return await super().run(call, stream)


async def test_who_interrupts_an_action_hears_no_more_but_gets_its_events() -> None:
    said = ActionAnswer(
        events=[{"event": "pause"}], responses=[{"text": "One two"}, {"text": "After"}]
    )
    actions = Interrupted({"action_x": lambda _: said})
    actions.may_go_on = asyncio.Event()

    async with speaking(a_service(actions=actions)) as caller:
        events = aiter(caller.stub.WebhookStream(message(a_call("action_x"))))
        started = as_dict(await anext(events))
        await anext(events)
        await caller.stub.AckStreamChunks(
            messages.StreamChunkAck(response_id=started["chunk_start"]["response_id"])
        )
        actions.may_go_on.set()
        rest = [as_dict(event) async for event in events]

    assert rest == [
        {
            "final_result": {
                "events": [{"event": "pause"}],
                "responses": [{"text": "After"}],
            }
        }
    ]


async def test_an_interruption_that_comes_too_late_is_no_error() -> None:
    async with speaking(a_service()) as caller:
        await caller.stream(a_call())
        answer = await caller.stub.AckStreamChunks(
            messages.StreamChunkAck(response_id="gone")
        )

    assert as_dict(answer) == {}


async def test_generating_stops_when_the_caller_hangs_up() -> None:
    answers = FakeAnswers(record=a_record(), hangs=True, shows=["It takes"])

    async with speaking(a_service(answers)) as caller:
        call = caller.stub.WebhookStream(message(a_call()))
        await call.read()
        call.cancel()
        async with asyncio.timeout(10):
            await answers.cancelled.wait()

    assert answers.event is not None
    assert answers.event.is_set()


CALLS = {
    "Webhook": messages.WebhookRequest(next_action="action_generate_reply"),
    "Actions": messages.ActionsRequest(),
    "AckStreamChunks": messages.StreamChunkAck(response_id="x"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shown", [(), (("authorization", "Bearer wrong"),)])
async def test_a_token_is_asked_for(name: str, shown: Any) -> None:
    async with speaking(a_service(), token=TOKEN) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(caller.stub, name)(CALLS[name], metadata=shown)

    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "wrong" not in (refused.value.details() or "")


async def test_a_stream_asks_for_the_token_too() -> None:
    answers = answering()

    async with speaking(a_service(answers), token=TOKEN) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.stream(a_call())

    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert answers.turns == []


async def test_who_shows_the_token_is_answered() -> None:
    shown = (("authorization", f"Bearer {TOKEN}"),)

    async with speaking(a_service(), token=TOKEN) as caller:
        answer = await caller.webhook(a_call(), metadata=shown)

    assert answer["responses"]


@pytest.mark.parametrize("name", ["", "ActionServer"])
async def test_health_is_told_without_a_token(name: str) -> None:
    async with speaking(a_service(), token=TOKEN) as caller:
        stub = health_pb2_grpc.HealthStub(caller.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_message_that_is_too_large_is_refused() -> None:
    async with speaking(a_service()) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.webhook(a_call(text="x" * LARGEST))

    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_few_bytes_do_not_become_gigabytes() -> None:
    async with speaking(a_service()) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.webhook(
                a_call(text=" " * LARGEST), compression=grpc.Compression.Gzip
            )

    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_it_listens_on_loopback_and_on_nothing_else() -> None:
    async with served(a_service(), grpc_port=0) as rasa:
        host, _, port = rasa.server.grpc_address.rpartition(":")
        listening = addresses_of(int(port))

    assert host == "127.0.0.1"
    assert listening
    assert listening <= LOOPBACK


# 127.0.0.1 as the kernel writes it, and mapped into IPv6.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


def addresses_of(port: int) -> set[str]:
    """Return the addresses on which this machine listens at a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, at = local.partition(":")
            if state == "0A" and int(at, 16) == port:  # 0A: it listens
                found.add(address)
    return found


async def test_a_port_that_is_taken_is_a_sentence_for_the_operator() -> None:
    async with served(a_service(), grpc_port=0) as rasa:
        port = int(rasa.server.grpc_address.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"grpc_port: cannot listen on .*:{port}"):
            async with served(a_service(), grpc_port=port):
                pass


async def test_ipv6_is_spoken() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")

    async with speaking(a_service(), host="::1") as caller:
        answer = await caller.webhook(a_call())

    assert answer["responses"]


@asynccontextmanager
async def rasa_sdks_own(action: Tells) -> AsyncIterator[Caller]:
    """Serve an action with rasa-sdk's own servicer."""
    executor = ActionExecutor()
    executor.register_action(action)
    server = grpc.aio.server()
    rpcs.add_ActionServiceServicer_to_server(GRPCActionServerWebhook(executor), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with calling(f"127.0.0.1:{port}") as caller:
            yield caller
    finally:
        await server.stop(0)


USE = "tests.actions_server.sdk_actions:Tells"

# rasa-sdk gives the action floats for integers; for a slot of floats so do we.
FLOATS = {"slots": {"quantity": {"type": "float"}}}


async def test_an_action_streams_as_from_rasa_sdks_own_server() -> None:
    config = ActionsConfig.model_validate({"sources": [{"use": USE}]})
    [place], _ = places.load(config, [])
    call = a_call("action_tells", domain=FLOATS, version=rasa_sdk.__version__)

    async with speaking(a_service(actions=place)) as caller:
        ours = await caller.stream(call)
    async with rasa_sdks_own(Tells()) as caller:
        theirs = await caller.stream(call)
    await place.close()

    assert texts(ours) == ["Your order ", "is on ", "its way. 👍"]
    assert kinds(ours) == kinds(theirs)
    assert [without_ids(one) for one in ours] == [without_ids(one) for one in theirs]


async def test_an_action_is_answered_for_as_by_rasa_sdks_own_server() -> None:
    config = ActionsConfig.model_validate({"sources": [{"use": USE}]})
    [place], _ = places.load(config, [])
    call = a_call("action_tells", domain=FLOATS, version=rasa_sdk.__version__)

    async with speaking(a_service(actions=place)) as caller:
        ours = await caller.webhook(call)
    async with rasa_sdks_own(Tells()) as caller:
        theirs = await caller.webhook(call)
    await place.close()

    # What streamed is one response each, where rasa-sdk makes one of each chunk.
    said = [one["text"] for one in theirs["responses"]]
    assert [one["text"] for one in ours["responses"]] == ["".join(said[:-1]), said[-1]]
    assert ours["events"] == theirs["events"]


def without_ids(event: dict[str, Any]) -> Any:
    [(kind, told)] = event.items()
    return kind, {name: one for name, one in told.items() if name != "response_id"}
