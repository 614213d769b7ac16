"""
A sequence-classification model from a folder: cross-encoders, NLI, toxicity.

Any architecture that transformers has a classification head for. Knows nothing about
what the labels are used for. Runs no code of the folder's and reads safetensors only.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bot.errors import ModelError
from bot.interfaces import Classified

_BATCH = 32
_MOST_TOKENS = 512  # where neither tokenizer nor model says what it can read


class Classifier:
    """Texts, or pairs of texts, to logits; what is too long is cut at its end."""

    def __init__(self, folder: Path) -> None:
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True
            )
            self._model = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            ).eval()
        except Exception as error:  # transformers raises whatever it likes
            raise ModelError(
                f"{folder}: not a sequence-classification model with a tokenizer "
                f"({_first_line(error)}); name another model"
            ) from error
        names = self._model.config.id2label
        self.labels = [str(names[number]) for number in sorted(names)]
        self._most_tokens = min(
            self._tokenizer.model_max_length,
            getattr(self._model.config, "max_position_embeddings", _MOST_TOKENS),
        )
        # A fast tokenizer keeps its settings between calls and is not thread-safe.
        self._one_at_a_time = threading.Lock()

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> Classified:
        """Return the logits of each text, or of each text with its pair."""
        logits = np.zeros((len(texts), len(self.labels)), np.float32)
        seconds = pairs or [""] * len(texts)
        # By length, so that a batch is padded to neighbours and not to the longest.
        order = sorted(
            range(len(texts)), key=lambda at: len(texts[at]) + len(seconds[at])
        )
        with self._one_at_a_time:
            for first in range(0, len(order), _BATCH):
                batch = order[first : first + _BATCH]
                logits[batch] = self._forward(
                    [texts[at] for at in batch],
                    None if pairs is None else [pairs[at] for at in batch],
                )
        return Classified(labels=self.labels, logits=logits)

    def _forward(self, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        encoded = self._tokenizer(
            texts,
            pairs,
            padding=True,
            truncation=True,
            max_length=self._most_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            found: np.ndarray = self._model(**encoded).logits.float().numpy()
        return found


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
