"""
The language model: the engine, spoken to in text.

Fulfils the LanguageModel protocol with weights of transformers: text to tokens, jobs
for the engine, tokens to candidates. Any thread may ask; the engine's own does the
work. Does not know where weights come from, what is in a prompt, or how candidates are
judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from bot.errors import ModelError, TurnError
from bot.generation.decoding import Row, Siblings
from bot.generation.engine import Engine, Limits
from bot.generation.grid import GridSize
from bot.generation.jobs import Job, Prompt, Scoring, Writing
from bot.generation.network import Device, Network
from bot.generation.precision import SAMPLE, Precision
from bot.generation.text import Growing, Text, TextVocabulary, settled
from bot.interfaces import ChatMessage, GenerationRequest, ToolSchema, Vocabulary
from bot.model import Candidate

# What torch would use; read before anything in this process has changed it.
_CORES = torch.get_num_threads()
SCORED_LOGITS = 64_000_000  # float32 logits held at once while scoring: 256 MB
LOOK_S = 0.5  # how often somebody who waits looks whether a plugin hangs


class TransformersModel:
    """
    A causal language model from a folder with config.json, tokenizer.json and
    safetensors. `precision` "auto" is float32 on a CPU, bfloat16 on a GPU. `threads`
    None means half the cores, for the whole process: a step is too small for more
    (SmolLM2-135M, 8 rows: 98 ms on one thread, 103 on two), and threads that wait for
    each other at every layer lose most when something else wants a core. `grid` has
    steps of fixed shape taken for sets that fit into it, which is worth it on a GPU.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what an operator can set
        self,
        folder: Path,
        name: str,
        device: Device = "auto",
        threads: int | None = None,
        limits: Limits | None = None,
        precision: Precision = "auto",
        grid: GridSize | None = None,
    ) -> None:
        torch.set_num_threads(threads or max(1, _CORES // 2))
        self._name = name
        tokenizer = _load_tokenizer(folder)
        self._text = Text(tokenizer)
        self._network = Network(
            folder,
            device,
            precision=precision,
            sample=self._text.tokens(SAMPLE),
            grid=grid,
        )
        self._end_tokens = _end_tokens(self._network, tokenizer)
        self._padding = min(self._end_tokens, default=0)
        start = tokenizer.bos_token_id
        self._start = self._padding if start is None else start
        self._limits = limits or Limits()
        self._engine = Engine(self._network, self._limits)

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        return self._network.context_tokens

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return TextVocabulary(
            self._text, self._network.vocabulary, frozenset(self._end_tokens)
        )

    def count_tokens(self, text: str) -> int:
        return len(self._text.tokens(text))

    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        """
        Apply the chat template and open the assistant's part. Control tokens in the
        messages are broken apart; a template without a system role gets the system's
        words at the head of the user's first message. One that does not know `tools`
        reads them at the end of the system's words.
        """
        return self._text.render(messages, tools)

    def generate(self, request: GenerationRequest) -> list[Candidate]:
        """
        Write the candidates. Their tokens and log-probabilities include the token
        that ended them, their text does not.
        """
        job = self._writing(request)
        self._run([job])
        _tell_times(request, job)
        return [self._candidate(request, row) for row in job.siblings.rows]

    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """
        Return, per pair, log p(token | prompt, earlier tokens), natural, [t].

        Prompt and continuation are tokenized apart, as they are when a reply is
        drawn: no token spans the border. An empty prompt is the start of a text.
        """
        rows = [self._text.tokens(text) for text in continuations]
        groups: dict[str, list[int]] = defaultdict(list)
        for pair, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
            if row:
                groups[prompt].append(pair)
        jobs = [
            self._scoring(prompt, [rows[pair] for pair in pairs])
            for prompt, pairs in groups.items()
        ]
        self._run(jobs)
        found = [np.empty(0, np.float32)] * len(rows)
        for job, pairs in zip(jobs, groups.values(), strict=True):
            for pair, scores in zip(pairs, job.scored, strict=True):
                found[pair] = scores
        return found

    def close(self) -> None:
        """Fail what is being written, and end the engine's thread."""
        self._engine.close()

    def _run(self, jobs: Sequence[Job]) -> None:
        """Have the engine do the jobs; raise what the first one that failed raised."""
        for job in jobs:
            self._engine.submit(job)
        waiting = [job.result for job in jobs]
        while wait(waiting, timeout=LOOK_S).not_done:
            self._engine.look_after()
        for result in waiting:
            result.result()

    def _writing(self, request: GenerationRequest) -> Writing:
        begun = request.begun.tokens if request.begun else ()
        name = f"turn {request.turn.id!r}"
        prompt = (*self._prompt_tokens(request.turn.prompt), *begun)
        self._check_context(name, len(prompt), 1)
        limit = min(request.max_new_tokens, self.context_tokens - len(prompt))
        siblings = Siblings(
            request.candidates,
            begun=begun,
            end_tokens=self._end_tokens,
            limit=limit,
            padding=self._padding,
            device=self._network.device,
        )
        return Writing(
            name=name,
            prompt=Prompt(prompt, anew=1),
            shape=self._network.shape,
            need=len(prompt) + request.candidates * limit,
            background=request.background,
            cancelled=request.cancelled,
            request=request,
            siblings=siblings,
            padding=self._padding,
            limit=limit,
            new_rows=self._network.rows,
            watch=_Watch(self._text, request) if _is_watched(request) else _unwatched,
        )

    def _scoring(self, prompt: str, rows: Sequence[list[int]]) -> Scoring:
        name = "scoring"
        *before, last = self._prompt_tokens(prompt)
        longest = max(map(len, rows))
        self._check_context(name, len(before) + 1, longest)
        # No more rows at once than their logits, and their memory, allow.
        by_logits = SCORED_LOGITS // (self._network.vocabulary * longest)
        by_memory = (self._limits.tokens - len(before)) // longest
        most_rows = max(1, min(len(rows), by_logits, by_memory))
        return Scoring(
            name=name,
            prompt=Prompt(before, anew=0),
            shape=self._network.shape,
            need=len(before) + most_rows * longest,
            background=False,
            last=last,
            continuations=rows,
            padding=self._padding,
            most_rows=most_rows,
        )

    def _prompt_tokens(self, prompt: str) -> list[int]:
        return self._text.tokens(prompt) or [self._start]

    def _check_context(self, name: str, prompt: int, more: int) -> None:
        if prompt + more > self.context_tokens:
            raise TurnError(
                f"{name}: model {self._name!r} reads {self.context_tokens} tokens, the "
                f"prompt has {prompt}, and {more} are to follow; shorten the prompt"
            )

    def _candidate(self, request: GenerationRequest, row: Row) -> Candidate:
        begun = request.begun
        tokens = (*(begun.tokens if begun else ()), *row.tokens)
        return Candidate(
            text=self._text.text(tokens, request.stop),
            tokens=tokens,
            log_probs=(*(begun.log_probs if begun else ()), *row.log_probs),
            certainties=(*(begun.certainties if begun else ()), *row.certainties),
            finish=row.finish or "length",
        )


class _Watch:
    """Reads what the siblings write: ends rows, and tells how their texts grow."""

    def __init__(self, text: Text, request: GenerationRequest) -> None:
        self._request = request
        begun = request.begun
        first = text.growing(begun.tokens if begun else ())
        self._texts = [first.copy() for _ in range(request.candidates)]

    def __call__(self, siblings: Siblings, parents: Sequence[int] | None) -> None:
        if parents is not None:
            self._texts = [self._texts[parent].copy() for parent in parents]
        for number, (row, text) in enumerate(
            zip(siblings.rows, self._texts, strict=True)
        ):
            # A row that had ended before has not got anything new.
            if len(row.tokens) > text.length:
                grown = text.add(row.tokens[-1])
                if grown or row.finish:
                    self._look(number, row, text, grown=grown)

    def _look(self, number: int, row: Row, text: Growing, *, grown: bool) -> None:
        request = self._request
        shown = settled(text.text, request.stop)
        if any(stop in text.text for stop in request.stop):
            row.finish = "stop"
        elif row.finish:
            # Nothing more will come that could make a stop string of its end.
            grown = grown or shown != text.text
            shown = text.text
        if grown and request.until is not None and request.until(shown):
            # An end, found at the same moment, says more than a block's.
            row.finish = "stop" if row.finish == "stop" else "block"
        if grown and request.on_text is not None:
            request.on_text(number, shown)


def _is_watched(request: GenerationRequest) -> bool:
    return bool(request.stop or request.until or request.on_text)


def _unwatched(siblings: Siblings, parents: Sequence[int] | None) -> None:
    """Nobody wants to know."""


def _tell_times(request: GenerationRequest, job: Writing) -> None:
    tell: Callable[[str, float], None] | None = request.on_ms
    if tell is None or job.first_token is None:
        return
    tell("wait", 1000 * (job.begun - job.submitted))
    tell("read", 1000 * (job.first_token - job.begun))
    tell("write", 1000 * (job.ended - job.first_token))


def _load_tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing more special
        raise ModelError(
            f"model folder {str(folder)!r}: its tokenizer cannot be loaded ({error}); "
            "fetch it again or name another model"
        ) from error


def _end_tokens(network: Network, tokenizer: Any) -> frozenset[int]:
    if network.end_tokens or tokenizer.eos_token_id is None:
        return network.end_tokens
    return frozenset([tokenizer.eos_token_id])
