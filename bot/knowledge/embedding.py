"""
The built-in embedder: all-MiniLM-L6-v2, English, on a CPU thread of its own.

Knows a folder of weights, not where they came from. Reads safetensors only and runs no
code of the folder's: the architecture is transformers' own BertModel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
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
from bot.packing import pack_linear_layers
from bot.text import cleaned

_FILES = ("config.json", "tokenizer.json", "model.safetensors")
_UNUSED = ("pooler.", "embeddings.position_ids")
_MAX_TOKENS = 256
_BATCH_TOKENS = 512
_UNSEEN = torch.finfo(torch.float32).min


class MiniLM:
    """Mean of the last layer's states, normalised; texts are cut at 256 tokens."""

    name = "minilm"
    dimension = 384
    languages = frozenset({"en"})

    def __init__(self, folder: Path, threads: int = 1) -> None:
        _check(folder)
        self._tokenizer = _tokenizer(folder)
        self._model = _model(folder)
        pack_linear_layers(self._model, "float32")  # the same function, a sixth faster
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
        written = [index for index, text in enumerate(texts) if text.strip()]
        for batch in _batches(written, [len(one.ids) for one in encodings]):
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
        """
        Read the texts as one row of tokens, each of which sees its own text alone: no
        work is done on padding, which was four tenths of it (docs/LOG.md).
        """
        lengths = torch.tensor([len(encoding.ids) for encoding in batch])
        owner = torch.repeat_interleave(lengths)
        ids = torch.tensor([token for one in batch for token in one.ids])
        positions = torch.cat([torch.arange(len(one.ids)) for one in batch])
        apart = owner.unsqueeze(0) != owner.unsqueeze(1)
        mask = torch.zeros(apart.shape).masked_fill(apart, _UNSEEN)
        with torch.inference_mode():
            states = self._model(
                input_ids=ids.unsqueeze(0),
                attention_mask=mask[None, None],
                position_ids=positions.unsqueeze(0),
            ).last_hidden_state[0]
            sums = torch.zeros(len(batch), self.dimension).index_add_(0, owner, states)
            mean = sums / lengths.unsqueeze(1)
            rows: NDArray[np.float32] = torch.nn.functional.normalize(mean).numpy()
        return rows


def _batches(indices: Sequence[int], lengths: Sequence[int]) -> Iterable[list[int]]:
    """
    Yield the texts, some hundred tokens at a time: that attention is over all tokens of
    a batch costs little then, and a call is not worth more tokens.
    """
    batch: list[int] = []
    tokens = 0
    for index in indices:
        if batch and tokens + lengths[index] > _BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


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
