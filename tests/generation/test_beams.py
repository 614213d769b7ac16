"""Beams in the engine equal a beam search written plainly, over full forward passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot.evaluation.bench_generation_models import write_ending_with
from bot.generation.language_model import TransformersModel
from bot.interfaces import GenerationRequest
from bot.testing import a_turn
from plugins.samplers.beam import Beam

pytestmark = pytest.mark.slow  # test-fast does without

PROMPT = "How long does a refund take?"
NEW_TOKENS = 8
BEAMS = 4


@dataclass(frozen=True)
class Hypothesis:
    tokens: tuple[int, ...]
    log_p: float
    ended: bool

    def score(self, length_penalty: float) -> float:
        return self.log_p / math.pow((5 + len(self.tokens)) / 6, length_penalty)


class PlainSearch:
    """Reads every hypothesis from its first token again, in float64."""

    def __init__(self, folder: Path, ends: Sequence[int]) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder).double()
        self._prompt = AutoTokenizer.from_pretrained(folder).encode(PROMPT)
        self._ends = ends

    def __call__(self, beams: int, length_penalty: float) -> list[Hypothesis]:
        kept = [Hypothesis((), 0.0, ended=False)]
        for _ in range(NEW_TOKENS):
            longer = [each for one in kept for each in self._continued(one)]
            longer.sort(key=lambda one: one.score(length_penalty), reverse=True)
            kept = longer[:beams]
        return kept

    @torch.inference_mode()
    def _continued(self, one: Hypothesis) -> list[Hypothesis]:
        if one.ended:
            return [one]
        read = torch.tensor([[*self._prompt, *one.tokens]])
        log_probs = self._model(read).logits[0, -1].log_softmax(dim=0).tolist()
        return [
            Hypothesis((*one.tokens, token), one.log_p + log_p, token in self._ends)
            for token, log_p in enumerate(log_probs)
        ]


def frequent_tokens(folder: Path) -> list[int]:
    """Some that random weights like, so that as end tokens they end some beams."""
    return sorted({one.tokens[2] for one in PlainSearch(folder, ())(6, 0.0)})[:2]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beams_equal_a_plain_beam_search(
    tiny_folder: Callable[[str], Path],
    tmp_path: Path,
    kind: str,
    length_penalty: float,
) -> None:
    ends = frequent_tokens(tiny_folder(kind))
    folder = tmp_path / kind
    write_ending_with(tiny_folder(kind), ends, folder)
    request = GenerationRequest(
        turn=a_turn(prompt=PROMPT),
        candidates=BEAMS,
        max_new_tokens=NEW_TOKENS,
        sampler=Beam(Beam.Settings(length_penalty=length_penalty)),
    )

    with closing(TransformersModel(folder, kind, "cpu", threads=1)) as model:
        found = model.generate(request)

    expected = PlainSearch(folder, ends)(BEAMS, length_penalty)
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert [sum(one.log_probs) for one in found] == pytest.approx(
        [one.log_p for one in expected], abs=1e-3
    )
    assert [one.finish == "stop" for one in found] == [one.ended for one in expected]
    assert any(one.ended for one in expected)
