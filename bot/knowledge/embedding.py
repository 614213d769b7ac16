"""
The built-in embedder: all-MiniLM-L6-v2, English, on a CPU thread of its own.

Knows a folder of weights, not where they came from. Reads safetensors only and runs no
code of the folder's: the architecture is transformers' own BertModel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Two OpenMP runtimes live in one process (torch's and faiss's); when their idle threads
# spin, embedding and searching cost eight times the CPU. Read once, as torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# A folder is all that is needed: transformers must not ask the hub about it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Encoding, Tokenizer
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel

from bot.errors import ModelError
from bot.text import cleaned

_FILES = ("config.json", "tokenizer.json", "model.safetensors")
_UNUSED = ("pooler.", "embeddings.position_ids")
_MAX_TOKENS = 256
_BATCH = 32


class MiniLM:
    """Mean of the last layer's states, normalised; texts are cut at 256 tokens."""

    name = "minilm"
    dimension = 384
    languages = frozenset({"en"})

    def __init__(self, folder: Path, threads: int = 1) -> None:
        _check(folder)
        self._tokenizer = _tokenizer(folder)
        self._model = _model(folder)
        self._worker = _worker(threads)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return [n, 384] float32, rows of length one (zero for empty text)."""
        return self._worker.submit(self._embed, texts).result()

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens, without the two that every text gets."""
        return len(self._tokenizer.encode(cleaned(text), add_special_tokens=False).ids)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        encodings = self._encoded(texts)
        # By length, so that a batch is padded to neighbours and not to the longest.
        order = sorted(
            (index for index, text in enumerate(texts) if text.strip()),
            key=lambda index: len(encodings[index].ids),
        )
        for first in range(0, len(order), _BATCH):
            batch = order[first : first + _BATCH]
            vectors[batch] = self._forward([encodings[index] for index in batch])
        return vectors

    def _encoded(self, texts: Sequence[str]) -> list[Encoding]:
        # More characters than this never matter and take long to tokenise.
        enough = _MAX_TOKENS * 32
        return [
            self._truncated(self._tokenizer.encode(cleaned(text[:enough])))
            for text in texts
        ]

    def _truncated(self, encoding: Encoding) -> Encoding:
        encoding.truncate(_MAX_TOKENS)
        return encoding

    def _forward(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        longest = max(len(encoding.ids) for encoding in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.int64)
        mask = torch.zeros((len(batch), longest), dtype=torch.int64)
        for row, encoding in enumerate(batch):
            ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
            mask[row, : len(encoding.ids)] = 1
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1)
            mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
            rows: NDArray[np.float32] = torch.nn.functional.normalize(mean).numpy()
        return rows


def _check(folder: Path) -> None:
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder}: not an all-MiniLM-L6-v2 folder, {', '.join(missing)} is "
            "missing; check knowledge.model"
        )


def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # The file asks for padding to 128 tokens; batches are padded here.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _model(folder: Path) -> BertModel:
    """
    Load the weights by hand. from_pretrained would look for other formats and other
    code first, and report on standard error the pooling layer that is left out here.
    """
    model = BertModel(
        BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False
    )
    try:
        weights = load_file(folder / "model.safetensors")
        model.load_state_dict(
            {name: w for name, w in weights.items() if not name.startswith(_UNUSED)}
        )
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{folder}: not the weights of all-MiniLM-L6-v2, {reason}; "
            "check knowledge.model"
        ) from error
    return model.eval()


def _worker(threads: int) -> ThreadPoolExecutor:
    """
    Start the one thread that embeds. torch keeps the number of its threads for each
    calling thread, and new ones inherit the number set last; so it is put back for the
    generator's thread, which comes later.
    """
    before = torch.get_num_threads()
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
    worker.submit(torch.set_num_threads, threads).result()
    torch.set_num_threads(before)
    return worker
