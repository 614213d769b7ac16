"""
The language model: weights of transformers behind the LanguageModel protocol.

Reads a prompt once and writes k siblings from it. Called by one thread at a time; does
not know where weights come from, what is in a prompt, or how candidates are judged.
An engine that batches conversations takes this file's place behind the same methods.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging as transformers_logging

from bot.errors import ModelError, TurnCancelled, TurnError
from bot.generation.decoding import Drawing, Row, Siblings, drawn_log_probs
from bot.generation.packing import pack_linear_layers
from bot.generation.prefixes import Prefix, Prefixes, reorder
from bot.generation.text import Text
from bot.interfaces import ChatMessage, GenerationRequest
from bot.model import Candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import Cache

Device = Literal["auto", "cpu", "cuda"]

# What torch would use; read before anything in this process has changed it.
_CORES = torch.get_num_threads()
PREFIX_TOKENS = 8192  # kept prompts, together; 45 KB a token for a model of 135 M
SCORED_LOGITS = 64_000_000  # float32 logits held at once while scoring: 256 MB


class TransformersModel:
    """
    A causal language model from a folder with config.json, tokenizer.json and
    safetensors. float32 on a CPU, bfloat16 on a GPU. `threads` None means half the
    cores, for the whole process: a step is too small for more (SmolLM2-135M, 8 rows: 98
    ms on one thread, 103 on two), and threads that wait for each other at every layer
    lose most when something else wants a core.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        device: Device = "auto",
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        torch.set_num_threads(threads or max(1, _CORES // 2))
        self._name = name
        self._device = _device(device)
        self._model = _load_model(folder, self._device)
        self._tokenizer = _load_tokenizer(folder)
        self._text = Text(self._tokenizer)
        self._clock = clock
        self._prefixes = Prefixes(PREFIX_TOKENS)
        self._end_tokens = _end_tokens(self._model, self._tokenizer)
        self._start, self._padding = _start_and_padding(
            self._tokenizer, self._end_tokens
        )
        config = self._model.config.get_text_config()
        self._context_tokens: int = config.max_position_embeddings

    @property
    def name(self) -> str:
        return self._name

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        return len(self._text.tokens(text))

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """
        Apply the chat template and open the assistant's part. Control tokens in the
        messages are broken apart; a template without a system role gets the system's
        words at the head of the user's first message.
        """
        return self._text.render(messages)

    @torch.inference_mode()
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        """
        Write the candidates. Their tokens and log-probabilities include the token
        that ended them, their text does not.
        """
        _check_cancelled(request)
        prefix = self._read(self._prompt_tokens(request.turn.prompt), keep=True)
        siblings = self._siblings(request, prefix)
        draw_tokens = Drawing(request, self._generator(request))
        cache = prefix.fork(1)
        logits = prefix.logits.expand(request.candidates, -1)
        while not self._out_of_time(request):
            draw = draw_tokens(siblings.tokens, logits, siblings.ended, self._padding)
            siblings.extend(draw, drawn_log_probs(logits, draw))
            self._end_at_stop_strings(siblings, request.stop)
            if not siblings.live:
                break
            logits = self._step(siblings, cache, logits)
            _check_cancelled(request)
        siblings.end("length")
        return [self._candidate(row, request.stop) for row in siblings.rows]

    @torch.inference_mode()
    def log_probs(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """
        Return, per pair, log p(token | prompt, earlier tokens), natural, [t].

        Prompt and continuation are tokenized apart, as they are when a reply is
        drawn: no token spans the border. An empty prompt is the start of a text. A
        prompt that was just answered, or that has several continuations, is read once.
        """
        uses = Counter(prompts)
        groups: dict[str, list[int]] = defaultdict(list)
        for pair, prompt in enumerate(prompts):
            groups[prompt].append(pair)
        found: dict[int, NDArray[np.float32]] = {}
        for prompt, pairs in groups.items():
            prefix = self._read(self._prompt_tokens(prompt), keep=uses[prompt] > 1)
            rows = [self._text.tokens(continuations[pair]) for pair in pairs]
            scored = self._score(prefix, rows)
            found.update(zip(pairs, scored, strict=True))
        return [found[pair] for pair in range(len(continuations))]

    def _prompt_tokens(self, prompt: str) -> tuple[int, ...]:
        tokens = tuple(self._text.tokens(prompt)) or (self._start,)
        if len(tokens) >= self._context_tokens:
            raise TurnError(
                f"model {self._name!r}: the prompt has {len(tokens)} tokens, the "
                f"context window {self._context_tokens}; shorten the prompt"
            )
        return tokens

    def _read(self, tokens: tuple[int, ...], *, keep: bool) -> Prefix:
        prefix = self._prefixes.find(tokens)
        if prefix is None:
            cache = DynamicCache(config=self._model.config)
            ids = torch.tensor([tokens], device=self._device)
            logits = self._forward(ids, cache, logits_to_keep=1)[:, -1]
            prefix = Prefix(tokens=tokens, cache=cache, logits=logits)
            if keep:
                self._prefixes.keep(prefix)
        return prefix

    def _forward(self, ids: Tensor, cache: Cache, **options: Any) -> Tensor:
        output = self._model(ids, past_key_values=cache, use_cache=True, **options)
        logits: Tensor = output.logits.float()
        return logits

    def _siblings(self, request: GenerationRequest, prefix: Prefix) -> Siblings:
        room = self._context_tokens - len(prefix.tokens)
        return Siblings(
            request.candidates,
            end_tokens=self._end_tokens,
            limit=min(request.max_new_tokens, room),
            padding=self._padding,
            device=self._device,
        )

    def _generator(self, request: GenerationRequest) -> torch.Generator:
        generator = torch.Generator(self._device)
        return generator.manual_seed(request.turn.seed % 2**63)

    def _out_of_time(self, request: GenerationRequest) -> bool:
        return request.deadline is not None and self._clock() >= request.deadline

    def _step(self, siblings: Siblings, cache: Cache, logits: Tensor) -> Tensor:
        """Read the last token of the live rows; the others keep their old logits."""
        rows, tokens = siblings.next_batch()
        if rows is not None:
            reorder(cache, rows, self._device)
        read = self._forward(tokens, cache)[:, -1]
        if len(read) == len(siblings.rows):
            return read
        return logits.index_copy(
            0, torch.tensor(siblings.live, device=self._device), read
        )

    def _end_at_stop_strings(self, siblings: Siblings, stop: Sequence[str]) -> None:
        if not stop:
            return
        for row in siblings.rows:
            if row.finish != "stop" and self._text.stopped(row.tokens, stop):
                row.finish = "stop"

    def _candidate(self, row: Row, stop: Sequence[str]) -> Candidate:
        return Candidate(
            text=self._text.text(row.tokens, stop),
            tokens=tuple(row.tokens),
            log_probs=tuple(row.log_probs),
            finish=row.finish or "length",
        )

    def _score(
        self, prefix: Prefix, rows: Sequence[list[int]]
    ) -> list[NDArray[np.float32]]:
        longest = max(map(len, rows))
        if len(prefix.tokens) + longest > self._context_tokens:
            raise TurnError(
                f"model {self._name!r}: a prompt of {len(prefix.tokens)} tokens and a "
                f"continuation of {longest} do not fit the context window of "
                f"{self._context_tokens}; shorten one of them"
            )
        scored: list[NDArray[np.float32]] = []
        for batch in self._batches(rows, longest):
            scored.extend(self._score_batch(prefix, batch))
        return scored

    def _batches(
        self, rows: Sequence[list[int]], longest: int
    ) -> Iterator[Sequence[list[int]]]:
        vocabulary = self._model.config.get_text_config().vocab_size
        size = max(1, SCORED_LOGITS // (vocabulary * max(1, longest)))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def _score_batch(
        self, prefix: Prefix, rows: Sequence[list[int]]
    ) -> list[NDArray[np.float32]]:
        longest = max(map(len, rows))
        if longest == 0:
            return [np.empty(0, np.float32) for _ in rows]
        # Padding is on the right, where a causal model cannot see it.
        padded = [row + [self._padding] * (longest - len(row)) for row in rows]
        ids = torch.tensor(padded, device=self._device)
        logits = prefix.logits.expand(len(rows), 1, -1)
        if longest > 1:
            read = self._forward(ids[:, :-1], prefix.fork(len(rows)))
            logits = torch.cat([logits, read], dim=1)
        chosen = logits.gather(2, ids.unsqueeze(2)).squeeze(2)
        log_probs = (chosen - logits.logsumexp(dim=2)).cpu().numpy()
        return [
            scores[: len(row)].copy()
            for scores, row in zip(log_probs, rows, strict=True)
        ]


def _check_cancelled(request: GenerationRequest) -> None:
    if request.cancelled is not None and request.cancelled.is_set():
        raise TurnCancelled(f"turn {request.turn.id!r}: stopped on request")


def _device(device: Device) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "generation.device: 'cuda', but torch finds no GPU; "
            "set it to 'auto' or 'cpu', or install torch for your GPU"
        )
    return torch.device(device)


def _load_model(folder: Path, device: torch.device) -> Any:
    transformers_logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32 if device.type == "cpu" else torch.bfloat16,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"model folder {str(folder)!r}: cannot be loaded ({error}); "
            "fetch it again or name another model"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        # transformers would fill the gaps with random numbers and only warn.
        missing = sorted(
            map(str, [*report["missing_keys"], *report["mismatched_keys"]])
        )
        raise ModelError(
            f"model folder {str(folder)!r}: the weights lack {missing[0]!r} and "
            f"{len(missing) - 1} more; fetch it again or name another model"
        )
    model = model.to(device).eval()
    if device.type == "cpu":
        pack_linear_layers(model)
    return model


def _load_tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing more special
        raise ModelError(
            f"model folder {str(folder)!r}: its tokenizer cannot be loaded ({error}); "
            "fetch it again or name another model"
        ) from error


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """All tokens that end the assistant's part; models often name several."""
    configured = model.generation_config.eos_token_id
    if configured is None:
        configured = tokenizer.eos_token_id
    if configured is None:
        return frozenset()
    return frozenset([configured] if isinstance(configured, int) else configured)


def _start_and_padding(tokenizer: Any, end_tokens: frozenset[int]) -> tuple[int, int]:
    """A token to begin an empty prompt with, and one for the place of ended rows."""
    end = min(end_tokens, default=0)
    start = tokenizer.bos_token_id
    return (end if start is None else start), end
