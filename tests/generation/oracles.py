"""What the engine is compared with: transformers alone, and a sampler of no tricks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot.interfaces import Draw
from bot.model import Turn

if TYPE_CHECKING:
    from torch import Tensor

END = 2  # ends a text of the tiny models


@dataclass
class PlainSampler:
    """Draws from the model's own distribution; the engine has to call it."""

    name: str = "plain"

    def begin(
        self, turn: Turn, siblings: int, generator: torch.Generator
    ) -> Callable[[Tensor], Draw]:
        def draw(logits: Tensor) -> Draw:
            chances = logits.softmax(dim=1)
            return Draw(tokens=chances.multinomial(1, generator=generator)[:, 0])

        return draw


@dataclass
class Reference:
    """transformers, one text at a time."""

    folder: Path

    def __post_init__(self) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(self.folder)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)

    def greedy(self, prompt: str, new: int) -> list[int]:
        ids = torch.tensor([self._encoded(prompt)])
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new,
            pad_token_id=END,
        )
        drawn: list[int] = output[0, ids.shape[1] :].tolist()
        return drawn

    def log_probs(self, prompt: str, tokens: Sequence[int]) -> list[float]:
        scores = self.next_log_probs(prompt, tokens)[:-1]
        chosen = torch.tensor(tokens, dtype=torch.long).unsqueeze(1)
        found: list[float] = scores.gather(1, chosen)[:, 0].tolist()
        return found

    @torch.inference_mode()
    def next_log_probs(self, prompt: str, tokens: Sequence[int] = ()) -> Tensor:
        """Return log p [t + 1, vocab] of what follows the prompt and each token."""
        ids = self._encoded(prompt)
        logits: Tensor = self.model(torch.tensor([[*ids, *tokens]])).logits[0]
        return logits[len(ids) - 1 :].log_softmax(dim=1)

    def _encoded(self, prompt: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(prompt, add_special_tokens=False)
        return ids
