"""
Fakes of what stands at the outermost edge: a model, a service, a clock, an embedder.

Everything between them is meant to be real in a test. A fake records what it was asked
and can be told to fail. None loads torch; none knows the program that it is put into.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
import time
import unicodedata
import uuid
import zlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from bot.errors import DeliveryError, TurnCancelled
from bot.interfaces import (
    Accepted,
    ChatMessage,
    Classified,
    GenerationRequest,
    ToolSchema,
)
from bot.interfaces import Delivery as Delivering
from bot.model import Address, Candidate, Event, EventKind, Finish, Reply, Sent, Turn
from bot.testing.makers import NOON, an_address, an_event

# One call's candidates: a text for all siblings, a text for each (taken in turn when
# there are fewer), or what generate raises.
Scripted = str | Sequence[str] | Exception

# Han, kana and Thai are written without spaces: every character is a word.
_WORD = re.compile(
    "[\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
    "|[^\\W_\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+"
)

# The pieces of a FakeVocabulary; the first ends a text.
_PIECES: tuple[str, ...] = ("", *"abcdefghijklmnopqrstuvwxyz 0123456789.,!?")
_PIECES += ("ass", "cl", "the", " the", "ing", "class", " class", "ed")

# A word, with all the white space before it.
_WITH_SPACE = re.compile(r"(?<!\s)\s*\S+")


class FixedClock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, start: datetime = NOON) -> None:
        self._now = start

    def __call__(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        self._now += timedelta(seconds=seconds)
        return self._now


class HashEmbedder:
    """
    Bag of words, hashed: texts are close when they share words, and nothing else.
    Different words may share a dimension: one pair in 512 does, by default.
    """

    name = "hash"

    def __init__(
        self, dimension: int = 512, languages: frozenset[str] = frozenset({"en"})
    ) -> None:
        self._dimension = dimension
        self._languages = languages

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def languages(self) -> frozenset[str]:
        return self._languages

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            folded = unicodedata.normalize("NFKC", text).casefold()
            for word in _WORD.findall(folded):
                vectors[row, zlib.crc32(word.encode()) % self._dimension] += 1
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return vectors


class ScriptedLanguageModel:
    """
    A language model that says what it is told to. A token is a word between spaces.

    `replies` holds one entry for each call of `generate`, or is a function of the
    turn; a script that is asked for more calls than it has says so. A reply is written
    word by word, and cut at `max_new_tokens`, at stop texts and by `until`, as a real
    model's is. One that starts with what is `begun` goes on from there; any other is
    added to it. With `gate`,
    `generate` waits until the gate is set, the request is cancelled or its time is
    over; `started` is set as soon as it was called. `requests` keeps every
    request, `scored` every pair that was given to `log_probs`.
    """

    def __init__(
        self,
        replies: Sequence[Scripted] | Callable[[Turn], Scripted],
        *,
        name: str = "scripted",
        context_tokens: int = 2048,
        log_prob: Callable[[str, str], float] | None = None,
        gate: threading.Event | None = None,
    ) -> None:
        self._script = replies if callable(replies) else _in_order(replies)
        self._name = name
        self._context_tokens = context_tokens
        self._log_prob = log_prob or _likelier_when_read
        self._gate = gate
        self.started = threading.Event()
        self.requests: list[GenerationRequest] = []
        self.scored: list[tuple[str, str]] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        """
        Return a `tool: name, description, parameters` paragraph for each tool, then
        `role: content` paragraphs, the assistant's part opened.
        """
        offered = [
            f"tool: {tool.name}, {tool.description}, {json.dumps(tool.parameters)}"
            for tool in tools
        ]
        said = [f"{message.role}: {message.content}" for message in messages]
        return "\n\n".join([*offered, *said, "assistant:"])

    def generate(self, request: GenerationRequest) -> list[Candidate]:
        self.requests.append(request)
        self.started.set()
        in_time = self._wait(request)
        scripted = self._script(request.turn)
        if isinstance(scripted, Exception):
            raise scripted
        texts = [scripted] if isinstance(scripted, str) else scripted
        siblings = [texts[row % len(texts)] for row in range(request.candidates)]
        if not in_time:
            return [self._made(request, [], "length") for _ in siblings]
        return [self._written(row, text, request) for row, text in enumerate(siblings)]

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        pairs = list(zip(prompts, continuations, strict=True))
        self.scored.extend(pairs)
        return [
            np.array(
                [self._log_prob(prompt, word) for word in continuation.split()],
                dtype=np.float32,
            )
            for prompt, continuation in pairs
        ]

    def close(self) -> None:
        """There is nothing to end."""

    def _wait(self, request: GenerationRequest) -> bool:
        """Wait for the gate; return whether there was time enough."""
        limit = math.inf if request.timeout_s is None else request.timeout_s
        deadline = time.monotonic() + limit
        while True:
            if request.cancelled is not None and request.cancelled.is_set():
                raise TurnCancelled(
                    f"generation: turn {request.turn.id!r} was cancelled; nothing to do"
                )
            if time.monotonic() >= deadline:
                return False
            # Two events cannot be awaited at once: look at the other now and then.
            if self._gate is None or self._gate.wait(timeout=0.01):
                return True

    def _written(self, row: int, text: str, request: GenerationRequest) -> Candidate:
        for stop in request.stop:
            text = text.split(stop, 1)[0]
        begun = request.begun.text if request.begun else ""
        rest = text.removeprefix(begun) if text.startswith(begun) else f" {text}"
        left = _WITH_SPACE.findall(rest)
        words: list[str] = []
        for word in left[: request.max_new_tokens]:
            words.append(word)
            so_far = begun + "".join(words)
            if request.on_text is not None:
                request.on_text(row, so_far)
            if request.until is not None and request.until(so_far):
                return self._made(request, words, "block")
        cut = len(left) > request.max_new_tokens
        return self._made(request, words, "length" if cut else "stop")

    def _made(
        self, request: GenerationRequest, words: Sequence[str], finish: Finish
    ) -> Candidate:
        begun, prompt = request.begun or Candidate(text=""), request.turn.prompt
        said = [word.strip() for word in words]
        tokens = [zlib.crc32(word.encode()) % 50_000 for word in said]
        log_probs = [self._log_prob(prompt, word) for word in said]
        return Candidate(
            text=(begun.text + "".join(words)).strip(),
            tokens=(*begun.tokens, *tokens),
            log_probs=(*begun.log_probs, *log_probs),
            finish=finish,
        )


def _in_order(replies: Sequence[Scripted]) -> Callable[[Turn], Scripted]:
    left = deque(replies)

    def next_reply(turn: Turn) -> Scripted:
        if not left:
            raise AssertionError(
                f"the script has {len(replies)} replies and was asked for one more, "
                f"for {turn.question!r}; add a reply or give a function of the turn"
            )
        return left.popleft()

    return next_reply


def _likelier_when_read(prompt: str, word: str) -> float:
    """A word of the prompt is likely, any other is not: a model that copies."""
    return -0.1 if word in prompt else -2.0


class FakeVocabulary:
    """
    A vocabulary of given pieces, encoded by the longest piece first. Of 50 tokens
    unless told otherwise: the letters, a space, digits, then some words.
    """

    def __init__(
        self, pieces: Sequence[str] | None = None, end_tokens: Collection[int] = (0,)
    ) -> None:
        self._pieces: list[str] = list(_PIECES if pieces is None else pieces)
        self._end_tokens = frozenset(end_tokens)

    @property
    def size(self) -> int:
        return len(self._pieces)

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._end_tokens

    def encode(self, text: str) -> list[int]:
        found: list[int] = []
        while text:
            fitting = [one for one in self._pieces if one and text.startswith(one)]
            if not fitting:
                raise AssertionError(f"no piece begins {text!r}")
            longest = max(fitting, key=len)
            found.append(self._pieces.index(longest))
            text = text[len(longest) :]
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self._pieces[token] for token in tokens)

    def piece(self, token: int) -> str:
        return self._pieces[token]


@dataclass(slots=True, kw_only=True)
class FakeTools:
    """
    Tools without models. `embedded`, `scored` and `classified` keep the texts of every
    call, so that a test can say how many calls a plugin made and with what. A prompt
    shows the passages, then the question. `logits` says what a classifier with the
    `labels` thinks of a text and its pair.
    """

    embedder: HashEmbedder = field(default_factory=HashEmbedder)
    model: ScriptedLanguageModel = field(
        default_factory=lambda: ScriptedLanguageModel([])
    )
    embedded: list[tuple[str, ...]] = field(default_factory=list)
    scored: list[tuple[tuple[str, str], ...]] = field(default_factory=list)
    labels: Sequence[str] = ("contradiction", "neutral", "entailment")
    logits: Callable[[str, str], Sequence[float]] = lambda *_: (0.0, 0.0, 0.0)
    classified: list[tuple[tuple[str, str], ...]] = field(default_factory=list)

    def prompt(self, turn: Turn) -> str:
        shown = [passage.text for passage in turn.passages]
        return "\n".join([*shown, f"Question: {turn.question}"])

    def classify(
        self, model: str, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> Classified:
        both = tuple(zip(texts, pairs or [""] * len(texts), strict=True))
        self.classified.append(both)
        logits = np.array([self.logits(*each) for each in both], np.float32)
        return Classified(
            labels=self.labels, logits=logits.reshape(-1, len(self.labels))
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded.append(tuple(texts))
        return self.embedder.embed(texts)

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        self.scored.append(tuple(zip(prompts, continuations, strict=True)))
        return self.model.log_probs(prompts, continuations)


def a_tools(log_prob: Callable[[str, str], float] | None = None) -> FakeTools:
    """Make tools; `log_prob(prompt, word)` says how likely a word is."""
    return FakeTools(model=ScriptedLanguageModel([], log_prob=log_prob))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a MemoryConnector was given to send."""

    address: Address
    reply: Reply
    key: str


class MemoryConnector:
    """
    A service that is a test: `say` is the customer, `next_reply` what they read.

    Every wait ends by itself after `timeout_s`, with a sentence that says what did
    not happen. `failures` are raised by the next calls of `send`, one each.
    `deliveries`, `statuses` and `frames` keep everything, in order.
    """

    def __init__(
        self,
        name: str = "memory",
        *,
        timeout_s: float = 10.0,
        delivery: Delivering = "at_most_once",
    ) -> None:
        self._name = name
        self.delivery: Delivering = delivery
        self._timeout_s = timeout_s
        self._incoming: asyncio.Queue[_Incoming | None] = asyncio.Queue()
        self._unread = defaultdict[str, asyncio.Queue[Reply]](asyncio.Queue)
        self._sent: dict[str, Sent] = {}
        self.failures: deque[DeliveryError] = deque()
        self.deliveries: list[Delivery] = []
        self.statuses: list[tuple[Address, str]] = []
        self.frames: list[tuple[Address, str]] = []
        self._unseen = defaultdict[str, asyncio.Queue[str]](asyncio.Queue)

    @property
    def name(self) -> str:
        return self._name

    async def run(self, accept: Callable[[Event], Awaitable[Accepted]]) -> None:
        """Hand in what was said until `close`. The speaker gets accept's answer."""
        while (incoming := await self._incoming.get()) is not None:
            try:
                incoming.answer.set_result(await accept(incoming.event))
            except asyncio.CancelledError:
                incoming.answer.cancel()
                raise
            # The stranger's code here is the program under test: what it raises
            # is for the speaker, as it would be for the service's retry.
            except Exception as error:  # noqa: BLE001
                incoming.answer.set_exception(error)

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        if key in self._sent:
            return self._sent[key]
        if self.failures:
            raise self.failures.popleft()
        self.deliveries.append(Delivery(address=address, reply=reply, key=key))
        self._sent[key] = Sent(ids=(f"{self._name}-{len(self.deliveries)}",))
        self._unread[address.chat].put_nowait(reply)
        return self._sent[key]

    async def status(self, address: Address, text: str) -> None:
        self.statuses.append((address, text))

    async def frame(self, address: Address, text: str) -> None:
        self.frames.append((address, text))
        self._unseen[address.chat].put_nowait(text)

    def close(self) -> None:
        """End `run` once everything said before has been handed in."""
        self._incoming.put_nowait(None)

    async def say(
        self,
        text: str,
        *,
        chat: str = "c1",
        thread: str | None = None,
        user: str | None = None,
        kind: EventKind = "message",
    ) -> Event:
        """Say something new and return once it was accepted."""
        address = an_address(chat, platform=self._name, thread=thread, user=user)
        event = an_event(text, kind, id=uuid.uuid4().hex, address=address)
        await self.deliver(event)
        return event

    async def deliver(self, event: Event) -> Accepted:
        """Hand in one event, an old one too, and return what accept said to it."""
        answer: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._incoming.put_nowait(_Incoming(event=event, answer=answer))
        async with _within(self._timeout_s, f"{event.text!r} was not accepted"):
            return await answer

    async def next_reply(self, chat: str = "c1") -> Reply:
        """Return the first unread reply in a chat, waiting for it if need be."""
        async with _within(self._timeout_s, f"no reply came in chat {chat!r}"):
            return await self._unread[chat].get()

    async def next_frame(self, chat: str = "c1") -> str:
        """Return the first unseen frame in a chat, waiting for it if need be."""
        async with _within(self._timeout_s, f"no frame came in chat {chat!r}"):
            return await self._unseen[chat].get()

    async def reply_to(self, text: str, *, chat: str = "c1") -> Reply:
        """Say something and return the next reply in that chat."""
        await self.say(text, chat=chat)
        return await self.next_reply(chat)

    def replies(self, chat: str = "c1") -> list[str]:
        """Return the texts sent to a chat so far, read or not."""
        return [d.reply.text for d in self.deliveries if d.address.chat == chat]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Incoming:
    event: Event
    answer: asyncio.Future[Accepted]


@asynccontextmanager
async def _within(seconds: float, otherwise: str) -> AsyncIterator[None]:
    """Turn a wait that lasts too long into a failed test that says why."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as late:
        # A TimeoutError of the program under test is no business of ours.
        if not limit.expired():
            raise
        raise AssertionError(f"{otherwise} within {seconds:g} s") from late
