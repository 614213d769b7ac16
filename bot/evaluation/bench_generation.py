"""
Bench `generation`: k candidates of 48 new tokens, ours against transformers' own.

The baseline is what a user would write: `generate(num_return_sequences=k)` on the same
folder of weights, device and number type, with the same sampling settings. Both write
exactly 48 tokens (ends are forbidden), and every round has a prompt of its own, so
that no prefix is in a cache. torch's threads are the process's and the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot import plugin_manager
from bot.config import Use
from bot.evaluation.report import BenchRow
from bot.evaluation.timing import Contest, measured
from bot.evaluation.turns import asking
from bot.interfaces import GenerationRequest, LanguageModel, LogitsStep, Progress
from bot.model import Turn

if TYPE_CHECKING:
    from torch import Tensor

    from bot.app import App

PROMPT_TOKENS = (100, 500)
CANDIDATES = (1, 4, 8)
NEW_TOKENS = 48
ROUNDS = 3
SAMPLING = {"temperature": 0.7, "top_k": 50, "top_p": 0.95}

_TEXT = (
    "A bicycle that was bought less than thirty days ago can be returned to any shop "
    "if it was ridden for less than fifty kilometres. The refund is paid to the card "
    "that was used, within five working days after the workshop has looked at it. "
)


def generation_bench(app: App, progress: Progress) -> list[BenchRow]:
    """Measure every prompt length with every number of candidates."""
    model = app.language_model()
    baseline = _Baseline(_folder(app), on_gpu=app.config.generation.device != "cpu")
    cases = [(tokens, k) for tokens in PROMPT_TOKENS for k in CANDIDATES]
    rows = []
    for done, (tokens, k) in enumerate(cases):
        progress("Generating", done, len(cases))
        # One case warms all of them up: what is loaded and compiled stays so.
        rows.append(_measured(model, baseline, tokens, k, warm_up=done == 0))
    progress("Generating", len(cases), len(cases))
    return rows


def _measured(
    model: LanguageModel,
    baseline: _Baseline,
    prompt_tokens: int,
    k: int,
    *,
    warm_up: bool,
) -> BenchRow:
    use = Use(use="multinomial", settings=SAMPLING)
    (sampler,) = plugin_manager.load({"bench": use}).samplers
    request = GenerationRequest(
        turn=asking("bench", "bench"),
        candidates=k,
        max_new_tokens=NEW_TOKENS,
        sampler=sampler,
        logits_processors=(_Endless(baseline.end_tokens),),
    )

    def ours(number: int) -> None:
        turn = replace(request.turn, prompt=baseline.prompt(number, prompt_tokens))
        written = model.generate(replace(request, turn=turn))
        # A comparison of different amounts of work would mean nothing.
        if [len(one.tokens) for one in written] != [NEW_TOKENS] * k:
            raise AssertionError([len(one.tokens) for one in written])

    return measured(
        Contest(
            case=f"prompt {prompt_tokens}, k {k}, {torch.get_num_threads()} threads",
            ours=ours,
            baseline="transformers generate(num_return_sequences=k)",
            theirs=lambda number: baseline.generate(number, prompt_tokens, k),
            unit="s",
            per_second=1,
        ),
        rounds=ROUNDS,
        warm_up=warm_up,
    )


def _folder(app: App) -> Path:
    source = app.config.generation.model
    return next(one.folder for one in app.weights() if one.source == source)


class _Baseline:
    """transformers, as a user would call it."""

    def __init__(self, folder: Path, *, on_gpu: bool) -> None:
        on_gpu = on_gpu and torch.cuda.is_available()
        self._device = "cuda" if on_gpu else "cpu"
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16 if on_gpu else torch.float32
        ).to(self._device)
        ends = self._model.generation_config.eos_token_id
        self.end_tokens: Sequence[int] = ends if isinstance(ends, list) else [ends]

    def prompt(self, number: int, tokens: int) -> str:
        """Return a text of so many tokens that differs in its first ones."""
        text = f"{number} questions about a refund. " + _TEXT * (tokens // 40 + 1)
        text_of: str = self._tokenizer.decode(self._tokenizer(text).input_ids[:tokens])
        return text_of

    def generate(self, number: int, prompt_tokens: int, k: int) -> None:
        prompt = self._tokenizer(
            self.prompt(number, prompt_tokens), return_tensors="pt"
        )
        self._model.generate(
            **prompt.to(self._device),
            do_sample=True,
            num_return_sequences=k,
            min_new_tokens=NEW_TOKENS,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=self.end_tokens[0],
            **SAMPLING,
        )


class _Endless:
    """Forbids the tokens that end a text, as `min_new_tokens` does for the baseline."""

    name = "endless"
    changes_argmax = True

    def __init__(self, end_tokens: Sequence[int]) -> None:
        self._end_tokens = list(end_tokens)

    def begin(self, turn: Turn, siblings: int) -> LogitsStep:
        return partial(_without, self._end_tokens)


def _without(forbidden: list[int], _: Tensor, logits: Tensor) -> Tensor:
    ids = torch.tensor(forbidden, device=logits.device)
    return logits.index_fill(1, ids, -torch.inf)
