"""
Our way of writing in bench `generation`: the bot's own language model.

It is asked as a turn asks it, for many conversations from as many threads. Returns
nothing before it has seen that exactly as much was written as asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bot import plugin_manager
from bot.config import Use
from bot.errors import TurnCancelled
from bot.evaluation.bench_generation_prompts import (
    SAMPLING,
    Prompt,
    WroteOtherwise,
    check_written,
)
from bot.evaluation.turns import asking
from bot.interfaces import GenerationRequest, LanguageModel
from bot.model import Candidate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIRST_TOKENS = 16  # more than a text takes to show: some tokens are half a letter


class Ours:
    """Asks for sets with the settings of the bench."""

    def __init__(self, model: LanguageModel) -> None:
        (sampler,) = plugin_manager.load(
            {"bench": Use(use="multinomial", settings=SAMPLING)}
        ).samplers
        self._model = model
        self._plain = GenerationRequest(
            turn=asking("bench", "bench"),
            candidates=1,
            max_new_tokens=1,
            sampler=sampler,
        )

    def write(self, prompts: Sequence[Prompt], siblings: int, tokens: int) -> None:
        """Write all sets at once, each asked for by a thread of its own."""
        with ThreadPoolExecutor(len(prompts)) as threads:
            asked = [
                threads.submit(self.written, prompt, siblings, tokens)
                for prompt in prompts
            ]
            for one in asked:
                one.result()

    def written(self, prompt: Prompt, siblings: int, tokens: int) -> list[Candidate]:
        found = self._model.generate(self._request(prompt, siblings, tokens))
        check_written([len(one.tokens) for one in found], siblings, tokens)
        return found

    def log_probs(
        self, prompt: Prompt, continuations: Sequence[Prompt]
    ) -> Sequence[NDArray[np.float32]]:
        return self._model.log_probs(
            [prompt.text] * len(continuations), [one.text for one in continuations]
        )

    def first_text_s(self, prompt: Prompt, siblings: int) -> float:
        """Return the seconds until one sibling has a text, and write no further."""
        shown: list[float] = []
        cancelled = threading.Event()

        def on_text(_: int, text: str) -> None:
            if text and not shown:
                shown.append(time.perf_counter())
                cancelled.set()

        request = replace(
            self._request(prompt, siblings, FIRST_TOKENS),
            on_text=on_text,
            cancelled=cancelled,
        )
        began = time.perf_counter()
        _run_until_cancelled(self._model, request)
        return shown[0] - began

    @contextmanager
    def busy(
        self, prompts: Sequence[Prompt], siblings: int, tokens: int
    ) -> Iterator[None]:
        """Write a set for each prompt meanwhile; all have begun, and none may end."""
        cancelled = threading.Event()
        with ThreadPoolExecutor(len(prompts)) as threads:
            asked: list[Future[None]] = []
            begun: list[threading.Event] = []
            for prompt in prompts:
                request = self._request(prompt, siblings, tokens)
                begun.append(first := threading.Event())
                request = replace(request, on_text=_setting(first), cancelled=cancelled)
                asked.append(threads.submit(_run_until_cancelled, self._model, request))
                # Nobody waits for a text that will not come.
                asked[-1].add_done_callback(partial(_set, first))
            try:
                for first in begun:
                    first.wait()
                yield
            finally:
                cancelled.set()
            for one in asked:
                one.result()

    def _request(self, prompt: Prompt, siblings: int, tokens: int) -> GenerationRequest:
        return replace(
            self._plain,
            turn=replace(self._plain.turn, prompt=prompt.text),
            candidates=siblings,
            max_new_tokens=tokens,
        )


def _set(event: threading.Event, _: object) -> None:
    event.set()


def _setting(event: threading.Event) -> Callable[[int, str], None]:
    """Return what sets the event once there is a text."""

    def on_text(_: int, text: str) -> None:
        if text:
            event.set()

    return on_text


def _run_until_cancelled(model: LanguageModel, request: GenerationRequest) -> None:
    try:
        model.generate(request)
    except TurnCancelled:
        return
    raise WroteOtherwise("a set that was to be stopped had ended before")
