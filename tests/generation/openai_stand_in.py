"""
A stand-in for a model server: a real HTTP server on loopback with vLLM's answers.

Its tokens are words with the space before them, its replies are made up from prompt
and seed, and its log-probabilities from a token and the one before it, so that what it
draws and what it reads agree. `faults` go wrong, one request for candidates each.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web

PIECE = re.compile(r"<\|\w+\|>|\s?\w+|\s|[^\w\s]")
END = "<|im_end|>"
WORDS = [
    "red",
    "green",
    "blue",
    "amber",
    "teal",
    "rose",
    "grey",
    "gold",
    "ivory",
    "lime",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    What goes wrong, after so many chunks: the connection is cut, the stream ends, hangs
    until the client leaves, holds something that is no JSON or an error; `status`: an
    answer of that status instead of a stream.
    """

    kind: Literal["status", "cut", "end", "hang", "garbage", "error"]
    after: int = 0
    status: int = 500
    text: str = "it is on fire"
    form: Literal["openai", "fastapi", "plain"] = "openai"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that came in."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(slots=True, kw_only=True)
class StandIn:
    """A context manager: inside it the server answers at `url`."""

    key: str | None = None
    tokenizes: bool = True
    spells: bool = True
    has_template: bool = True
    has_system_role: bool = True
    knows_tools: bool = True
    completes: bool = True
    echoes: bool = True
    knows_n: bool = True
    tells_log_probs: bool = True
    lists: bool = True
    context_tokens: int | None = 512
    chunk_tokens: int = 1
    pace_s: float = 0.0  # between two chunks
    reply: Callable[[int], str] | None = None  # of a seed; None: made up
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    hangs: threading.Event = field(default_factory=threading.Event)
    port: int = 0
    _ids: dict[str, int] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def sets(self) -> list[Asked]:
        """The requests for candidates."""
        return [one for one in self.asked if one.body.get("stream")]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        assert self._thread is not None
        stopping = self._runner.cleanup()
        asyncio.run_coroutine_threadsafe(stopping, self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._noted])
        if self.lists:
            app.router.add_get("/v1/models", self._models)
        if self.completes:
            app.router.add_post("/v1/completions", self._completions)
        if self.tokenizes:
            app.router.add_post("/tokenize", self._tokenize)
            app.router.add_post("/detokenize", self._detokenize)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.asked.append(
            Asked(path=request.path, body=body, headers=dict(request.headers))
        )
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            given = request.headers.get("Authorization")
            return _failed(401, f"wrong key: {given}")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _models(self, request: web.Request) -> web.Response:
        model: dict[str, Any] = {"id": "tiny", "object": "model"}
        if self.context_tokens is not None:
            model["max_model_len"] = self.context_tokens
        return web.json_response({"object": "list", "data": [model]})

    # Tokens

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "messages" in body:
            wrong = self._wrong_with(body["messages"])
            if wrong:
                return _failed(400, wrong)
            tools = body.get("tools", ()) if self.knows_tools else ()
            text = _templated(body["messages"], tools)
        else:
            text = body["prompt"]
        pieces = PIECE.findall(text)
        if body.get("add_special_tokens") and "messages" not in body:
            pieces = ["<|begin|>", *pieces]
        told: dict[str, Any] = {"tokens": self._numbers(pieces), "count": len(pieces)}
        if body.get("return_token_strs") and self.spells:
            told["token_strs"] = [piece.replace(" ", "Ġ") for piece in pieces]
        return web.json_response({**told, "max_model_len": self.context_tokens})

    def _wrong_with(self, messages: Sequence[dict[str, str]]) -> str | None:
        roles = [message["role"] for message in messages]
        if not self.has_template:
            return "the tokenizer has no chat template"
        if "system" in roles and not self.has_system_role:
            return "System role not supported"
        if any(one == other for one, other in itertools.pairwise(roles)):
            return "Conversation roles must alternate"
        return None

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"prompt": "".join(self._pieces(body["tokens"]))})

    def _numbers(self, pieces: Sequence[str]) -> list[int]:
        return [self._ids.setdefault(piece, len(self._ids)) for piece in pieces]

    def _pieces(self, numbers: Sequence[int]) -> list[str]:
        spelled = list(self._ids)
        return [spelled[number] for number in numbers]

    # Completions

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["model"] != "tiny":
            return _failed(404, f"The model {body['model']!r} does not exist.")
        if not body.get("stream"):
            return web.json_response(self._whole(body))
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and fault.kind == "status":
            return _failed(fault.status, fault.text, fault.headers, fault.form)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for number, chunk in enumerate(self._chunks(body)):
                if fault is not None and number == fault.after:
                    return await self._fail(request, response, fault)
                await response.write(_event(json.dumps({"choices": [chunk]})))
                await asyncio.sleep(self.pace_s)
            await response.write(_event("[DONE]"))
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response

    async def _fail(
        self, request: web.Request, response: web.StreamResponse, fault: Fault
    ) -> web.StreamResponse:
        match fault.kind:
            case "cut":
                assert request.transport is not None
                request.transport.abort()
            case "garbage":
                await response.write(_event('{"choices": [{"ind'))
            case "error":
                told = {"error": {"message": fault.text, "code": 500}}
                await response.write(_event(json.dumps(told)))
            case "hang":
                self.hangs.set()
                await asyncio.Event().wait()
        return response

    def _chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of all siblings, one of each in turn."""
        siblings = body.get("n", 1) if self.knows_n else 1
        if siblings > 1 and body.get("temperature") == 0:
            raise web.HTTPBadRequest(text="n must be 1 when using greedy sampling")
        written = [self._sibling(body, index) for index in range(siblings)]
        for together in itertools.zip_longest(*written):
            yield from (chunk for chunk in together if chunk is not None)

    def _sibling(self, body: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
        pieces, finish = self._written(body, body.get("seed", 0) + index)
        last = len(pieces) - 1
        before = PIECE.findall(body["prompt"])[-1]
        for start in range(0, len(pieces), self.chunk_tokens):
            some = pieces[start : start + self.chunk_tokens]
            ends = start + len(some) > last
            yield {
                "index": index,
                "text": "".join(piece for piece in some if piece != END),
                "logprobs": self._log_probs(before, some),
                "finish_reason": finish if ends else None,
                **(
                    {"token_ids": self._numbers(some)}
                    if body.get("return_token_ids")
                    else {}
                ),
            }
            before = some[-1]

    def _written(self, body: dict[str, Any], seed: int) -> tuple[list[str], str]:
        if self.reply is not None:
            text = self.reply(seed)
        else:
            chosen = random.Random(f"{body['prompt']} {seed}")  # noqa: S311 (a test)
            text = " ".join(chosen.choices(WORDS, k=chosen.randint(2, 12))) + "."
        finish, end = "stop", [END]
        for stop in body.get("stop", ()):
            if stop in text:
                text, end = text[: text.find(stop)], []
        pieces = [*PIECE.findall(text), *end]
        if len(pieces) > body["max_tokens"]:
            pieces, finish = pieces[: body["max_tokens"]], "length"
        return pieces, finish

    def _log_probs(
        self, before: str | None, pieces: Sequence[str]
    ) -> dict[str, Any] | None:
        if not self.tells_log_probs:
            return None
        befores = [before, *pieces[:-1]]
        return {
            "tokens": list(pieces),
            "token_logprobs": [
                None if one is None else log_prob(one, other)
                for one, other in zip(befores, pieces, strict=True)
            ],
        }

    def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """What is not streamed: a text echoed with its log-probabilities, or a word."""
        prompts = body["prompt"]
        if isinstance(prompts, str):
            prompts = [self._numbers(PIECE.findall(prompts))]
        choices = []
        for index, numbers in enumerate(prompts):
            echoed = self._pieces(numbers) if body.get("echo") and self.echoes else []
            pieces = [*echoed, " red"]
            choices.append(
                {
                    "index": index,
                    "text": "".join(pieces),
                    "logprobs": self._log_probs(None, pieces),
                    "finish_reason": "length",
                }
            )
        return {"choices": choices}


def log_prob(before: str, piece: str) -> float:
    """Return what the stand-in holds a token for after another one."""
    return -(zlib.crc32(f"{before}{piece}".encode()) % 4000) / 1000


def _templated(
    messages: Sequence[dict[str, str]], tools: Sequence[dict[str, Any]]
) -> str:
    offered = (f"<|im_start|>tool\n{json.dumps(one)}{END}\n" for one in tools)
    said = (f"<|im_start|>{m['role']}\n{m['content']}{END}\n" for m in messages)
    return "".join([*offered, *said, "<|im_start|>assistant\n"])


def _event(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


def _failed(
    status: int,
    text: str,
    headers: dict[str, str] | None = None,
    form: Literal["openai", "fastapi", "plain"] = "openai",
) -> web.Response:
    if form == "plain":
        return web.Response(text=text, status=status, headers=headers)
    told: dict[str, Any] = {"detail": text}
    if form == "openai":
        told = {"error": {"message": text, "type": "error", "code": status}}
    return web.json_response(told, status=status, headers=headers)
