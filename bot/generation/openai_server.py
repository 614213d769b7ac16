"""
The language model on another machine: any server that speaks OpenAI's HTTP, as vLLM.

Knows what a server is asked and what to make of its answer; knows nothing of HTTP
(openai_http.py), and of plugins only what they truncate. Trust that every call ends:
with an answer, a sentence that names the URL, or TurnCancelled.

- **The client is `openai`**: it has the retries, `Retry-After`, time limits and event
  stream that we would otherwise write. It is used at the level of paths and JSON: what
  comes back is checked here, because the library's own types are not.
- **Completions, not chat**: they read the prompt that Chorus rendered and budgeted,
  and give siblings, log-probabilities and the reading of a given text. The template
  and the tokens are asked of vLLM's /tokenize and /detokenize. A server without them
  is served as well as can be: prompts in plain words, tokens estimated, no reading.
- **Always a stream**: one way for whole replies, blocks, limits and cancelling.
- **Asked again** (twice) is only what has not begun to answer: completions keep no
  state on the server. A stream that breaks is an error of its turn.
- **Min-p** is converted: servers apply it after the temperature, Chorus before, and
  p(v) ≥ m · max p is p(v)^(1/T) ≥ m^(1/T) · max p^(1/T).
- **Token ids** are asked of servers with /tokenize (`return_token_ids`). Elsewhere a
  token has the id -1, so that tokens can at least be counted; log-probabilities are
  there where the server gives them.

What vLLM does with each field was read in its source: vllm/entrypoints/openai/
completion, vllm/v1/sample/sampler.py, vllm/v1/engine/parallel_sampling.py.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any, Literal

import jinja2
import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from bot.config_file import did_you_mean
from bot.errors import ChorusError, ModelError, PluginError, TurnError
from bot.generation.openai_http import (
    Body,
    Choice,
    Chunk,
    Detokenized,
    Models,
    Refused,
    Server,
    Tokens,
)
from bot.generation.openai_set import CandidateSet
from bot.generation.text import (
    A_CHAT,
    A_TOOL,
    PLAIN_TEMPLATE,
    as_function,
    with_tools,
)
from bot.generation.truncation import truncation_of
from bot.interfaces import (
    ChatMessage,
    GenerationRequest,
    ToolSchema,
    Truncates,
    Truncation,
)
from bot.model import Candidate

logger = logging.getLogger(__name__)

SILENCE_S = 600.0  # of a set, beyond its own limit
KEPT_TEXTS = 512  # whose tokens are remembered; a prompt is counted more than once
BYTES_A_TOKEN = 3  # estimated: English has four and more, digits have one
# A piece of text that is one token and looks like this is a mark of the model's own.
_MARK = re.compile(r"\A[<\[]\S+[>\]]\Z")
# Where nobody says what is one token: the marks of the known families of models.
_KNOWN_MARKS = re.compile(
    r"<[|｜][^\s<>]*[|｜]>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>"  # noqa: RUF001 (DeepSeek's)
    r"|\[/?INST\]|<</?SYS>>"
)

Role = Literal["system", "user", "assistant"]


class OpenAIServer:
    """
    The model that a server calls `name`; `url` is what OpenAI's clients call the base
    URL, with its /v1. `context_tokens` is needed where the server does not tell it.
    Construction asks the server what it can do and raises ModelError; `close` ends the
    thread and its connections.
    """

    def __init__(
        self,
        name: str,
        url: str,
        api_key: SecretStr | None = None,
        context_tokens: int | None = None,
    ) -> None:
        self._name = name
        self._server = Server(url, api_key)
        self._read = lru_cache(KEPT_TEXTS)(self._tokenized)
        try:
            listed = self._introduced()
            counted = self._tells_tokens()
            told = listed or (counted and counted.max_model_len)
            self._context_tokens = context_tokens or told or self._context_missing()
            self._tokenizes = counted is not None
            self._chats = self._tokenizes and self._renders("user")
            self._has_system_role = self._chats and self._renders("system", "user")
        except ChorusError as error:
            self.close()
            raise ModelError(str(error)) from error
        if not self._chats:
            logger.warning(
                "the model server has no /tokenize with a chat template: prompts are "
                "plain words",
                extra={"url": url, "model": name, "counts_tokens": self._tokenizes},
            )

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def close(self) -> None:
        self._server.close()

    # Text

    def count_tokens(self, text: str) -> int:
        """Return the server's count, or an estimate that is rather too high."""
        if not self._tokenizes:
            return math.ceil(len(text.encode()) / BYTES_A_TOKEN)
        return len(self._read(text).ids) if text else 0

    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        """
        Apply the server's chat template and open the assistant's part. Control tokens
        in the messages are broken apart; a template without a system role gets the
        system's words at the head of the user's first message. One that does not know
        `tools` reads them at the end of the system's words.
        """
        said = [replace(one, content=self._harmless(one.content)) for one in messages]
        if tools and not self._knows_tools:
            said, tools = with_tools(said, tools), ()
        if not self._chats:
            template = jinja2.Template(PLAIN_TEMPLATE)
            return str(template.render(messages=said, add_generation_prompt=True))
        return self._in_its_roles(said, tools)

    def _in_its_roles(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema]
    ) -> str:
        if not self._has_system_role:
            messages = [replace(one, role=_folded(one)) for one in messages]
        return self._templated(_merged(messages), tools)

    def _templated(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        written = [{"role": one.role, "content": one.content} for one in messages]
        asked = self._words(messages=written, add_generation_prompt=True)
        if tools:
            asked["tools"] = [as_function(one) for one in tools]
        tokens = self._server.ask(f"{self._server.root}/tokenize", Tokens, asked).tokens
        asked = self._words(tokens=tokens)
        return self._server.ask(
            f"{self._server.root}/detokenize", Detokenized, asked
        ).prompt

    def _harmless(self, text: str) -> str:
        """Return `text` with a space inside everything that is a control token."""
        while marks := self._marks(text):
            broken = text
            for mark in marks:
                broken = broken.replace(mark, f"{mark[0]} {mark[1:]}")
            if broken == text:  # a piece that is not spelled as it stands in the text
                break
            text = broken
        return text

    def _marks(self, text: str) -> set[str]:
        pieces = self._read(text).pieces if self._tokenizes and text else None
        if pieces is None:
            return set(_KNOWN_MARKS.findall(text))
        return {piece for piece in pieces if _MARK.match(piece)}

    def _tokenized(self, text: str, *, special: bool = False) -> _Read:
        asked = self._words(
            prompt=text, add_special_tokens=special, return_token_strs=True
        )
        told = self._server.ask(f"{self._server.root}/tokenize", Tokens, asked)
        return _Read(ids=told.tokens, pieces=told.token_strs)

    # Writing

    def generate(self, request: GenerationRequest) -> list[Candidate]:
        """
        Write the candidates. `timeout_s` counts from when the request is sent: nobody
        here can tell a set that waits on the server from one that hangs. A sibling
        that reached its block's end is written on by the server, unread, until all
        have; siblings of a temperature of 0 are one, asked for once.
        """
        truncation = truncation_of(request)
        if truncation is None:
            raise PluginError(
                _more_than_truncates(request),
                "changes more than temperature, top-k, top-p and min-p, which a model "
                "server cannot run; disable it, or set generation.backend to "
                "'transformers'",
            )
        body = self._completion(request, truncation)
        candidates = CandidateSet(request, drawn=body["n"])
        self._server.write(self._written(candidates, body), request)
        return candidates.written()

    def _completion(self, request: GenerationRequest, truncation: Truncation) -> Body:
        prompt = request.turn.prompt + (request.begun.text if request.begun else "")
        greedy = truncation.temperature == 0
        body = self._words(
            prompt=prompt,
            n=1 if greedy else request.candidates,  # vLLM refuses more
            max_tokens=min(request.max_new_tokens, self._room(prompt)),
            logprobs=1,
            stream=True,
            temperature=truncation.temperature,
            # Small enough for every server; vLLM's siblings get seed, seed + 1 …
            seed=request.turn.seed % 2**31,
        )
        if request.stop:
            body["stop"] = list(request.stop)
        if not greedy:
            body |= self._truncated(truncation)
        if self._tokenizes:  # vLLM's own words
            body |= {
                "add_special_tokens": False,  # templates bring their own
                "return_token_ids": True,
                "repetition_penalty": 1.0,  # else the model's own default
            }
        return body

    def _truncated(self, truncation: Truncation) -> Body:
        """What is not said, vLLM takes from the model's generation_config.json."""
        said: Body = {"top_p": truncation.top_p}
        if truncation.top_k or self._tokenizes:
            said["top_k"] = truncation.top_k or -1
        if truncation.min_p or self._tokenizes:
            said["min_p"] = truncation.min_p ** (1 / truncation.temperature)
        return said

    def _room(self, prompt: str) -> int:
        tokens = self.count_tokens(prompt)
        if tokens >= self._context_tokens:
            raise TurnError(
                f"model {self._name!r}: the prompt has {tokens} tokens, the context "
                f"window {self._context_tokens}; shorten the prompt"
            )
        return self._context_tokens - tokens

    async def _written(self, candidates: CandidateSet, body: Body) -> None:
        request = candidates.request
        clock = asyncio.timeout(request.timeout_s)
        try:
            async with clock:
                await self._stream(candidates, body)
        except TimeoutError:
            if not clock.expired():
                raise
            if not candidates.heard:
                logger.warning(
                    "the model server had written nothing when time was up",
                    extra={"turn": request.turn.id, "timeout_s": request.timeout_s},
                )

    async def _stream(self, candidates: CandidateSet, body: Body) -> None:
        silence_s = SILENCE_S + (candidates.request.timeout_s or 0)
        async with aclosing(self._server.choices(body, silence_s)) as choices:
            async for choice in choices:
                if not candidates.has(choice.index):
                    raise self._server.nonsense(f"a candidate number {choice.index}")
                candidates.take(choice)
                if candidates.cut_short:
                    return  # the server would write on
        missing = candidates.missing
        if missing is not None:
            raise TurnError(f"{self._server.where}: {missing}")

    # Reading

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """
        Return, per pair, log p(token | prompt, earlier tokens), natural, [t].

        Prompt and continuation are tokenized apart, as the engine does. An empty prompt
        is the start of a text: the model's start token or, where it has none, a line
        break. One request; raises TurnError where the server cannot read.
        """
        if not self._tokenizes:
            raise self._cannot_read("has no /tokenize")
        heads = [self._head(prompt) for prompt in prompts]
        tails = [self._read(text).ids if text else () for text in continuations]
        pairs = list(zip(heads, tails, strict=True))
        asked = [[*head, *tail] for head, tail in pairs if tail]
        longest = max(map(len, asked), default=0)
        if longest >= self._context_tokens:
            raise TurnError(
                f"model {self._name!r}: a prompt and a continuation have {longest} "
                f"tokens, the context window {self._context_tokens}; shorten one"
            )
        echoed = self._echoed(asked) if asked else iter(())
        return [
            self._of_tail(next(echoed), head, tail) if tail else np.empty(0, np.float32)
            for head, tail in pairs
        ]

    def _head(self, prompt: str) -> Sequence[int]:
        if prompt:
            return self._read(prompt).ids
        return self._tokenized("", special=True).ids or self._read("\n").ids

    def _echoed(self, prompts: Sequence[Sequence[int]]) -> Iterator[Choice]:
        # One token is drawn and not looked at: not every version takes 0.
        asked = self._words(prompt=prompts, echo=True, logprobs=1, max_tokens=1)
        choices = self._server.ask("/completions", Chunk, asked).choices
        if [choice.index for choice in choices] != list(range(len(prompts))):
            raise self._server.nonsense(f"{len(choices)} texts for {len(prompts)}")
        return iter(choices)

    def _of_tail(
        self, echoed: Choice, head: Sequence[int], tail: Sequence[int]
    ) -> NDArray[np.float32]:
        told = echoed.logprobs.token_logprobs if echoed.logprobs else ()
        found = told[len(head) : len(head) + len(tail)]
        if len(found) < len(tail) or None in found:
            raise self._cannot_read("did not echo the log-probabilities of a text")
        return np.minimum(np.array(found, np.float32), 0)

    def _cannot_read(self, why: str) -> TurnError:
        return TurnError(
            f"{self._server.where}: {why}; plugins that need the likelihood of a text "
            "that the model did not write, such as 'likelihood' beside 'quotation', "
            "cannot run: disable them, or use a server that has both, such as vLLM"
        )

    # What the server is

    def _introduced(self) -> int | None:
        """
        Ask for a word, and return how long the model's context is, if the server tells.
        Only a server that refuses has the last word on what it has: some have a model
        and do not list it.
        """
        windows = self._listed()
        asked = self._words(prompt="a", max_tokens=1)
        try:
            self._server.ask("/completions", Chunk, asked)
        except Refused as error:
            if windows and self._name not in windows:
                raise ModelError(
                    f"generation.model: {self._server.url!r} serves no {self._name!r}; "
                    f"{did_you_mean(self._name, windows)}"
                ) from error
            raise
        return windows.get(self._name)

    def _listed(self) -> dict[str, int | None]:
        try:
            models = self._server.ask("/models", Models).data
        except Refused:
            return {}
        return {one.id: one.max_model_len for one in models}

    def _context_missing(self) -> int:
        raise ModelError(
            f"generation.context_tokens: missing, and {self._server.url!r} does not "
            f"tell how much {self._name!r} can read; write how many tokens it was "
            "started with"
        )

    def _tells_tokens(self) -> Tokens | None:
        asked = self._words(prompt="a")
        try:
            return self._server.ask(f"{self._server.root}/tokenize", Tokens, asked)
        except Refused:
            return None

    def _renders(self, *roles: Role) -> bool:
        """A template says that it does not know a role by failing, or drops it."""
        said = [ChatMessage(role=role, content=f"the {role}'s") for role in roles]
        try:
            rendered = self._templated(said)
        except Refused:
            return False
        return all(one.content in rendered for one in said)

    @cached_property
    def _knows_tools(self) -> bool:
        """Servers and templates that do not know tools leave them out or fail."""
        try:
            return self._chats and A_TOOL.name in self._in_its_roles(A_CHAT, [A_TOOL])
        except Refused:
            return False

    def _words(self, **said: Any) -> Body:
        return {"model": self._name, **said}


def _more_than_truncates(request: GenerationRequest) -> str:
    if not isinstance(request.sampler, Truncates):
        return request.sampler.name
    return next(
        one.name
        for one in request.logits_processors
        if not (isinstance(one, Truncates) and one.truncation.is_min_p)
    )


def _folded(message: ChatMessage) -> Role:
    return "user" if message.role == "system" else message.role


def _merged(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Many templates refuse two messages of one role in a row."""
    return [
        ChatMessage(role=role, content="\n\n".join(one.content for one in together))
        for role, together in groupby(messages, key=lambda one: one.role)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A text's tokens, and how each is spelled where the server tells."""

    ids: Sequence[int]
    pieces: Sequence[str] | None
