"""
GGUF: quantised weights of llama.cpp, turned once into float32 safetensors.

Knows the file and what transformers makes of it, not where it comes from.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.utils import logging as transformers_logging

from bot.errors import ModelError

_END_FIELDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")


def convert(file: Path, folder: Path, source: str) -> None:
    """Write config, tokenizer and float32 safetensors of the GGUF `file`."""
    transformers_logging.disable_progress_bar()
    try:
        fields = _fields(file)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        _check_tokenizer(tokenizer, fields, source)
        model = _read_model(file, fields)
    except ModelError:
        raise
    except Exception as error:  # the tokenizers library raises nothing more special
        raise ModelError(
            f"{source!r}: {file.name!r} cannot be converted ({error}); "
            "use a GGUF file of an architecture that transformers can read"
        ) from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fields(file: Path) -> dict[str, Any]:
    """The header's single values; lists (the vocabulary) are left out, being slow."""
    reader = GGUFReader(file)
    return {
        name: field.contents()
        for name, field in reader.fields.items()
        if len(field.data) == 1
    }


def _read_model(file: Path, fields: dict[str, Any]) -> Any:
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # from_pretrained(gguf_file=...) would do this and needs accelerate for nothing
    # else; it also marks the model as quantised, and such a one cannot be saved.
    with redirect_stderr(StringIO()):  # its progress bar cannot be switched off
        tensors = load_gguf_checkpoint(
            str(file),
            return_tensors=True,
            model_to_load=model,
            torch_dtype=torch.float32,
        )["tensors"]
    unfilled = model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    tied = set(model.all_tied_weights_keys)
    if missing := [key for key in unfilled.missing_keys if key not in tied]:
        raise ValueError(f"it lacks the weights {missing[0]!r}")
    ends = [fields[name] for name in _END_FIELDS if name in fields]
    model.generation_config.eos_token_id = sorted(set(ends)) or None
    return model


def _check_tokenizer(tokenizer: Any, fields: dict[str, Any], source: str) -> None:
    """transformers rebuilds the tokenizer; what turns hang on must have survived."""
    expected = {
        "chat template": fields.get("tokenizer.chat_template"),
        "first token": fields.get("tokenizer.ggml.bos_token_id"),
        "end token": fields.get("tokenizer.ggml.eos_token_id"),
    }
    found = {
        "chat template": tokenizer.chat_template,
        "first token": tokenizer.bos_token_id,
        "end token": tokenizer.eos_token_id,
    }
    for what, value in expected.items():
        if value is not None and found[what] != value:
            raise ModelError(
                f"{source!r}: the converted tokenizer's {what} is {found[what]!r}, "
                f"the file's {value!r}; use the model's safetensors instead"
            )
