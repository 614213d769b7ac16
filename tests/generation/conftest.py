"""Small models with random weights, written to a folder like real ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from bot.generation.language_model import TransformersModel

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

SIZES: dict[str, Any] = {"vocab_size": 259, "bos_token_id": 1, "eos_token_id": 2}
WIDE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # With the default of 0.02 every next token is about as likely as every other.
    "initializer_range": 0.5,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES, **WIDE),
    "qwen2": lambda: Qwen2Config(**SIZES, **WIDE),
    "gpt2": lambda: GPT2Config(
        **SIZES, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.5
    ),
}


def _a_tokenizer(template: str | None = CHAT) -> PreTrainedTokenizerFast:
    """Make a tokenizer of single bytes: any text is its UTF-8, three marks beside."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **MARKS,
    )
    made.chat_template = template
    return made


@functools.cache
def _written(parent: Path, kind: str) -> Path:
    torch.manual_seed(0)
    folder = parent / kind
    AutoModelForCausalLM.from_config(CONFIGS[kind]()).save_pretrained(folder)
    _a_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    parent = tmp_path_factory.mktemp("models")
    return lambda kind: _written(parent, kind)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Callable[[str], Path]) -> TransformersModel:
    return TransformersModel(tiny_folder("llama"), "tiny", "cpu", threads=1)


@pytest.fixture(scope="session")
def a_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """Make a tokenizer of single bytes with the chat template given."""
    return _a_tokenizer
