"""
The service over gRPC, as rasa-sdk 3.21 defines it: unary, streaming, and barge-in.

The messages are rasa-sdk's own. Trust that nothing is listened on but the address that
was asked for, which rasa-sdk's own server does not promise; that a number that was
whole is whole again (see structs.py); and that no status quotes a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import empty_pb2
from google.protobuf.json_format import (
    Error,
    MessageToDict,
    Parse,
)
from grpc_health.v1 import (
    health,
    health_pb2,
    health_pb2_grpc,
)
from rasa_sdk.grpc_errors import (
    ActionExecutionFailed,
    ResourceNotFound,
    ResourceNotFoundType,
)
from rasa_sdk.grpc_py import action_webhook_pb2 as messages
from rasa_sdk.grpc_py import action_webhook_pb2_grpc as rpcs

from bot.actions.calls import ActionAnswer, JsonObject, unseen
from bot.actions_server.chunks import Chunks
from bot.actions_server.replying import GENERATE
from bot.actions_server.requests import (
    LARGEST,
    ActionRequest,
    Fault,
    Refused,
    read_action,
    to_json,
)
from bot.actions_server.service import SAID, Service, as_object
from bot.actions_server.structs import as_json
from bot.actions_server.webhook import is_known, shown_by
from bot.errors import ConfigError, place_of

logger = logging.getLogger(__name__)

GRACE_S = 0.5  # for answers that are on their way
SERVED = ("", "ActionServer")  # the names under which health is asked for

OPTIONS = [
    ("grpc.max_receive_message_length", LARGEST),
    # Two servers on one port would each get some of the calls, and nobody would know.
    ("grpc.so_reuseport", 0),
]

STATUSES: Mapping[Fault, grpc.StatusCode] = {
    "malformed": grpc.StatusCode.INVALID_ARGUMENT,
    "rejected": grpc.StatusCode.INTERNAL,
    "missing": grpc.StatusCode.NOT_FOUND,
    "failed": grpc.StatusCode.INTERNAL,
}


class GrpcServing:
    """A context manager; inside it the service is served at `address`."""

    def __init__(
        self, *, service: Service, token: str | None, host: str, port: int
    ) -> None:
        self.address = ""
        self._host = f"[{host}]" if ":" in host else host
        self._port = port
        self._servicer = ActionService(service, token)
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        # Made here, because it belongs to the loop that runs.
        self._server = grpc.aio.server(options=OPTIONS)
        rpcs.add_ActionServiceServicer_to_server(self._servicer, self._server)
        await self._serve_health(self._server)
        try:
            port = self._server.add_insecure_port(f"{self._host}:{self._port}")
        except RuntimeError as error:  # grpc says no more than that it failed
            raise ConfigError(
                f"actions.server.grpc_port: cannot listen on {self._host}:{self._port};"
                " name another port or 0 for any free one, and as `host` an address of "
                "this machine"
            ) from error
        await self._server.start()
        self.address = f"{self._host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None  # noqa: S101 (our own invariant)
        await self._server.stop(GRACE_S)

    async def _serve_health(self, server: grpc.aio.Server) -> None:
        servicer = health.aio.HealthServicer()
        for name in SERVED:
            await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


@dataclass(slots=True, eq=False)
class _Stream:
    """
    A run that streams. `generates`: it is our own answer, which has no events that
    would be missed. `dropped` once the customer interrupted it.
    """

    task: asyncio.Task[ActionAnswer]
    generates: bool
    chunks: Chunks = field(default_factory=Chunks)
    dropped: bool = False


class ActionService:
    """
    rasa-sdk's ActionService. Its methods have the names that the protocol gives them.
    """

    def __init__(self, service: Service, token: str | None) -> None:
        self._service = service
        self._token = token
        self._open: dict[str, _Stream] = {}  # by the id of the response that is open

    async def Actions(  # noqa: N802
        self, request: messages.ActionsRequest, context: grpc.aio.ServicerContext
    ) -> messages.ActionsResponse:
        await self._admit(context)
        names = await self._service.names()
        return _parsed(
            {"actions": [{"name": name} for name in names]}, messages.ActionsResponse()
        )

    async def Webhook(  # noqa: N802
        self, request: messages.WebhookRequest, context: grpc.aio.ServicerContext
    ) -> messages.WebhookResponse:
        await self._admit(context)
        try:
            asked = _read(request)
            if not asked.action:
                return messages.WebhookResponse()
            answer = await self._service.run(asked, unseen)
            return _result(answer, asked.action)
        except Exception as error:  # noqa: BLE001 (grpc tells callers what it says)
            _tell(context, _refused(error))
            return messages.WebhookResponse()

    async def WebhookStream(  # noqa: N802
        self, request: messages.WebhookRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[messages.WebhookStreamEvent]:
        await self._admit(context)
        try:
            asked = _read(request)
            if not asked.action:
                return
            async with contextlib.aclosing(self._streamed(asked)) as events:
                async for event in events:
                    yield event
        except Exception as error:  # noqa: BLE001 (grpc tells callers what it says)
            refused = _refused(error)
            _tell(context, refused)
            yield messages.WebhookStreamEvent(
                error=messages.StreamError(
                    action_name=refused.action, message=refused.said
                )
            )

    async def AckStreamChunks(  # noqa: N802
        self, request: messages.StreamChunkAck, context: grpc.aio.ServicerContext
    ) -> empty_pb2.Empty:
        """Say no more of a response, because the customer has interrupted it."""
        await self._admit(context)
        stream = self._open.get(request.response_id)
        if stream is not None:
            stream.dropped = True
            if stream.generates:
                stream.task.cancel()
        return empty_pb2.Empty()

    async def _admit(self, context: grpc.aio.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata() or ())
        if not is_known(self._token, shown_by(str(metadata.get("authorization", "")))):
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "a token is needed: the metadata `authorization: Bearer …`",
            )

    async def _streamed(
        self, asked: ActionRequest
    ) -> AsyncGenerator[messages.WebhookStreamEvent, None]:
        """Yield what an action says as it says it, then its result; raises Refused."""
        texts: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def show(text: str) -> None:
            loop.call_soon_threadsafe(texts.put_nowait, text)

        task = asyncio.create_task(self._service.run(asked, show))
        task.add_done_callback(lambda _: texts.put_nowait(None))
        stream = _Stream(task, generates=asked.action == GENERATE)
        try:
            while (text := await texts.get()) is not None:
                for event in self._told(stream, stream.chunks.grown(text)):
                    yield event
            for event in self._ending(stream, asked.action):
                yield event
        finally:
            self._open.pop(stream.chunks.response_id, None)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Refused):
                await task

    def _ending(
        self, stream: _Stream, action: str
    ) -> Iterable[messages.WebhookStreamEvent]:
        """Yield what is left to be said, then the result."""
        if stream.task.cancelled():  # the customer has interrupted our own answer
            yield messages.WebhookStreamEvent(final_result=messages.WebhookResponse())
            return
        answer = stream.task.result()
        if stream.generates:
            for response in answer.responses:
                yield from self._told(stream, stream.chunks.said(response))
            answer = ActionAnswer(events=answer.events)
        yield from self._told(stream, stream.chunks.ended())
        answer = stream.chunks.unsaid(answer)
        yield messages.WebhookStreamEvent(final_result=_result(answer, action))

    def _told(
        self, stream: _Stream, events: Iterable[JsonObject]
    ) -> Iterable[messages.WebhookStreamEvent]:
        """Yield events, unless nobody wants them; keep whose response is open."""
        for event in events:
            if "chunk_start" in event:
                self._open[stream.chunks.response_id] = stream
            elif "chunk_end" in event:
                self._open.pop(stream.chunks.response_id, None)
            if not stream.dropped:
                yield _parsed(event, messages.WebhookStreamEvent())


def _read(request: messages.WebhookRequest) -> ActionRequest:
    try:
        told = MessageToDict(request, preserving_proto_field_name=True)
    except Error:  # NaN in a Struct
        raise Refused("malformed", "the request has a number that is none") from None
    return read_action(to_json(as_json(told)))


def _result(answer: ActionAnswer, action: str) -> messages.WebhookResponse:
    try:
        return _parsed(as_object(answer), messages.WebhookResponse())
    except (ValueError, Error):
        raise Refused(*SAID["nonsense"], action) from None


def _parsed(value: JsonObject, message: Any) -> Any:
    """Fill a message; by way of JSON, because a Struct takes no half surrogates."""
    return Parse(to_json(value), message)


def _refused(error: Exception) -> Refused:
    """Return what a caller is told; what is ours to fix may quote the request."""
    if isinstance(error, Refused):
        return error
    logger.error("a call was not answered: %s", place_of(error))
    return Refused("failed", "Chorus failed to answer; its log says where")


def _tell(context: grpc.aio.ServicerContext, refused: Refused) -> None:
    """Set the status and the details that Rasa reads."""
    context.set_code(STATUSES[refused.fault])
    context.set_details(_details(refused))


def _details(refused: Refused) -> str:
    match refused.fault:
        case "rejected":
            said = ActionExecutionFailed(
                action_name=refused.action, message=refused.said
            )
        case "missing":
            said = ResourceNotFound(
                action_name=refused.action,
                message=refused.said,
                resource_type=ResourceNotFoundType.ACTION,
            )
        case _:
            # No JSON: Rasa would take it for an action that rejected its execution.
            return refused.said
    return str(said.model_dump_json())
