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
    BloomConfig,
    DogeConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GptOssConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhimoeConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
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
DEEP: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
LOCAL_AND_ALL = ["sliding_attention", "full_attention"]
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES, **WIDE),
    "qwen2": lambda: Qwen2Config(**SIZES, **WIDE),
    "qwen3": lambda: Qwen3Config(**SIZES, **WIDE, head_dim=16),
    "mistral": lambda: MistralConfig(**SIZES, **WIDE, sliding_window=7),
    "mixtral": lambda: MixtralConfig(**SIZES, **WIDE, num_local_experts=4),
    "gemma2": lambda: Gemma2Config(
        **SIZES,
        **WIDE,
        head_dim=8,
        sliding_window=7,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=5.0,
        query_pre_attn_scalar=12,
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **SIZES, **WIDE, head_dim=8, sliding_window=7, layer_types=LOCAL_AND_ALL
    ),
    "phi3": lambda: Phi3Config(**SIZES, **WIDE, pad_token_id=0),
    "olmo2": lambda: Olmo2Config(**SIZES, **WIDE),
    "gpt2": lambda: GPT2Config(**SIZES, **GPT, initializer_range=0.5),
    "gpt-neox": lambda: GPTNeoXConfig(
        **SIZES, **DEEP, intermediate_size=64, initializer_range=0.5
    ),
    "opt": lambda: OPTConfig(
        **SIZES, **DEEP, ffn_dim=64, word_embed_proj_dim=32, init_std=0.5
    ),
    # What the engine must refuse
    "bloom": lambda: BloomConfig(**SIZES, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda: MambaConfig(
        **SIZES, hidden_size=32, num_hidden_layers=2, state_size=4
    ),
    "mpt": lambda: MptConfig(
        **SIZES, d_model=32, n_layers=2, n_heads=4, max_seq_len=256
    ),
    "falcon": lambda: FalconConfig(**SIZES, **DEEP, initializer_range=0.5),
    "gpt-j": lambda: GPTJConfig(**SIZES, **GPT, rotary_dim=4, initializer_range=0.5),
    "gpt-oss": lambda: GptOssConfig(
        **SIZES, **WIDE, head_dim=8, num_local_experts=4, num_experts_per_tok=2
    ),
    "lfm2": lambda: Lfm2Config(
        **SIZES, **WIDE, layer_types=["conv", "full_attention"], block_ff_dim=64
    ),
    "phi3-longrope": lambda: Phi3Config(
        **SIZES,
        **WIDE,
        pad_token_id=0,
        original_max_position_embeddings=64,
        rope_scaling={
            "type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
        },
    ),
    "phimoe": lambda: PhimoeConfig(
        **SIZES, **WIDE, num_local_experts=4, sliding_window=40
    ),
    "qwen2-moe": lambda: Qwen2MoeConfig(
        **SIZES,
        **WIDE,
        **EXPERTS,
        num_experts=4,
        use_sliding_window=True,
        sliding_window=40,
        max_window_layers=2,
    ),
    "llama4": lambda: Llama4TextConfig(
        **SIZES,
        **WIDE,
        head_dim=8,
        intermediate_size_mlp=64,
        num_local_experts=2,
        attention_chunk_size=40,
    ),
    "doge": lambda: DogeConfig(**SIZES, **WIDE, keep_window_size=40),
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


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tensors here are small: threads would only wait for each other."""
    torch.set_num_threads(1)


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
