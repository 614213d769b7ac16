"""
The way to a model server: HTTP in OpenAI's words, over the `openai` client.

Knows what is said and how it fails; knows nothing of siblings, prompts or templates.
Requests run on one thread with an event loop, and any thread may wait for them. Trust
that whatever the client raises leaves as a TurnError of one sentence that names the
URL and never the key, and that leaving a stream closes its connection.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import CancelledError, wait
from typing import Any, Self, TypeVar

import openai
from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from bot.errors import Overloaded, TurnCancelled, TurnError
from bot.interfaces import GenerationRequest

RETRIES = 2
CONNECT_S = 5.0
CALL_S = 60.0  # the longest silence of a call that is no candidate set
LOOK_S = 0.02  # how often a waiting thread looks whether its turn was cancelled
LONGEST_WORDS = 200  # of the server, in a message of ours
SERVERS_FAULT = 500  # this status and above

# What the client raises: its own, and what its JSON and our shapes do not bear.
FAILURES = (openai.OpenAIError, ValueError)

Body = dict[str, Any]
Answer = TypeVar("Answer", bound="Shape")
Result = TypeVar("Result")


# What the server says


class Shape(BaseModel):
    """What we read of an answer; servers say more."""

    model_config = ConfigDict(frozen=True)


class LogProbs(Shape):
    """Empty where a server has another form for them, as llama.cpp has."""

    tokens: tuple[str, ...] = ()
    token_logprobs: tuple[float | None, ...] = ()

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if len(self.tokens) != len(self.token_logprobs):
            raise ValueError("not one log-probability for each token")
        return self


class Choice(Shape):
    index: int
    text: str = ""
    logprobs: LogProbs | None = None
    finish_reason: str | None = None
    token_ids: tuple[int, ...] | None = None


class Chunk(Shape):
    """A chunk of a stream, or a whole completion."""

    choices: tuple[Choice, ...]


class Model(Shape):
    id: str
    max_model_len: int | None = None


class Models(Shape):
    data: tuple[Model, ...]


class Tokens(Shape):
    count: int
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = None
    max_model_len: int | None = None


class Detokenized(Shape):
    prompt: str


class Refused(TurnError):
    """The server runs, and cannot do what was asked."""


class Server:
    """The way to the server: one thread, one event loop, and words for what fails."""

    def __init__(self, url: str, api_key: SecretStr | None) -> None:
        self.url = url.rstrip("/")
        self.root = self.url.removesuffix("/v1")  # where vLLM has what is its own
        self.where = f"generation.url: {self.url!r}"
        self._key = api_key.get_secret_value() if api_key else ""
        # It says "200 OK" at info level, for every count of tokens.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",  # without any, the environment's is taken
            base_url=self.url,
            max_retries=RETRIES,
            timeout=openai.Timeout(CALL_S, connect=CONNECT_S),
        )
        # These come from the environment, and belong to another server.
        self._client.organization = self._client.project = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="model server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._left())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, path: str, shape: type[Answer], body: Body | None = None) -> Answer:
        """Return the answer, or raise TurnError."""
        return self._wait(self._asked(path, shape, body))

    def write(
        self, writing: Coroutine[Any, Any, None], request: GenerationRequest
    ) -> None:
        """Run `writing` until it ends or the request is cancelled."""
        self._wait(writing, request.cancelled, request.turn.id)

    async def choices(self, body: Body, silence_s: float) -> AsyncGenerator[Choice]:
        """Ask for a stream; leaving the iterator closes the connection."""
        try:
            stream = await self._client.post(
                "/completions",
                cast_to=object,
                body=body,
                options={"timeout": openai.Timeout(silence_s, connect=CONNECT_S)},
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            async with stream:
                async for chunk in stream:
                    for choice in Chunk.model_validate(chunk).choices:
                        yield choice
        except FAILURES as error:
            raise self._failure(error) from error

    def nonsense(self, found: str) -> Refused:
        return Refused(
            f"{self.where}: answered with {found}, which is no answer to what was "
            "asked; name a server that speaks OpenAI's completions"
        )

    async def _left(self) -> None:
        """End what is running, for somebody waits for it."""
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._client.close()

    async def _asked(
        self, path: str, shape: type[Answer], body: Body | None = None
    ) -> Answer:
        try:
            if body is None:
                found = await self._client.get(path, cast_to=object)
            else:
                found = await self._client.post(path, cast_to=object, body=body)
            return shape.model_validate(found)
        except FAILURES as error:
            raise self._failure(error) from error

    def _wait(
        self,
        asked: Coroutine[Any, Any, Result],
        cancelled: threading.Event | None = None,
        turn: str = "",
    ) -> Result:
        running = asyncio.run_coroutine_threadsafe(asked, self._loop)
        while not running.done():
            if cancelled is not None and cancelled.is_set():
                running.cancel()
                raise TurnCancelled(f"turn {turn!r}: stopped on request")
            # Two events cannot be awaited at once: look at the other now and then.
            wait([running], LOOK_S if cancelled else None)
        try:
            return running.result()
        except CancelledError as error:
            raise TurnError(f"{self.where}: closed while it was asked") from error

    def _failure(self, error: Exception) -> TurnError:
        """Translate whatever the client raises."""
        kind: type[TurnError] = TurnError
        match error:
            case openai.RateLimitError():
                kind = Overloaded
                said = "takes no more for now (429); ask later, or give it more room"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                said = (
                    f"refuses the key ({error.status_code}); correct generation.api_key"
                )
            case openai.APIStatusError():
                kind = Refused if error.status_code < SERVERS_FAULT else TurnError
                said = (
                    f"answered {error.status_code} to {error.request.url.path!r} "
                    f"({self._words(error)}); see its log, and whether the address is "
                    "one of completions, with its /v1"
                )
            case openai.APITimeoutError():
                said = "was silent for too long; see its log"
            case openai.APIConnectionError():
                said = (
                    f"the connection failed ({self._cause(error)}); see whether the "
                    "server runs and the address is right"
                )
            case openai.APIError():
                said = f"broke off ({self._words(error)}); see its log"
            case _:
                found = f"something that cannot be read ({type(error).__name__})"
                return self.nonsense(found)
        return kind(f"{self.where}: {said}")

    def _words(self, error: openai.APIError) -> str:
        """OpenAI's servers say `message`, FastAPI's `detail`, a proxy plain text."""
        said = error.body
        if isinstance(said, dict):
            said = said.get("message") or said.get("detail")
        return self._shown(said if isinstance(said, str) and said else error.message)

    def _cause(self, error: Exception) -> str:
        cause = error.__cause__ or error
        return self._shown(str(cause) or type(cause).__name__)

    def _shown(self, words: str) -> str:
        """A server may repeat the key that it was given."""
        line = " ".join(words.split())
        line = line.replace(self._key, "…") if self._key else line
        return line if len(line) <= LONGEST_WORDS else f"{line[:LONGEST_WORDS]}…"
