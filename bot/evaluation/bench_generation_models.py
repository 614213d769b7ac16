"""
The weights that bench `generation` runs on.

Both sides have to write the same number of tokens, and nothing that keeps an engine
from its fastest way may be asked of either. So both are told that a text ends with a
token that the model never draws: the one that is least likely at its likeliest place
in a sample text. Ours reads it from a copy of the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# 3.0 billion parameters with a vocabulary of 49,152: the shape of a model worth a GPU.
# Two copies and both sides' caches for 64 conversations take about 70 GB.
LARGE: dict[str, Any] = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


def large_config(tokenizer_folder: Path) -> PretrainedConfig:
    """Return LARGE with the vocabulary of the tokenizer in the folder."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **LARGE,
    )


def write_random_model(
    config: PretrainedConfig,
    tokenizer_folder: Path,
    into: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """
    Write a model of `config` with random weights, and the folder's tokenizer beside it.
    Its last token is never drawn: a logit of 0 is below half the vocabulary.
    """
    torch.manual_seed(0)
    with device:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        model.get_output_embeddings().weight[-1].zero_()
    model.save_pretrained(into)
    AutoTokenizer.from_pretrained(
        tokenizer_folder, local_files_only=True
    ).save_pretrained(into)


@torch.inference_mode()
def never_drawn(model: Any, sample: Sequence[int]) -> int:
    """Return the token that is least likely at its likeliest place in `sample`."""
    logits = model(torch.tensor([sample], device=model.device)).logits[0].float()
    log_probs = logits.log_softmax(dim=-1)
    return int(log_probs.amax(dim=0).argmin())


def write_ending_with(folder: Path, end_tokens: Sequence[int], into: Path) -> None:
    """
    Make a copy of a model's folder in which texts end with `end_tokens` alone. Nothing
    else of its generation_config.json is kept: both sides are told all they need.
    """
    into.mkdir()
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            _link(path, into / path.name)
        elif path.is_file():
            shutil.copy(path, into)
    ends = {"eos_token_id": list(end_tokens)}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (into / "config.json").write_text(json.dumps(config | ends), encoding="utf-8")
    (into / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")


def _link(path: Path, into: Path) -> None:
    """Weights are large, and a symbolic link out of the folder would be refused."""
    try:
        into.hardlink_to(path)
    except OSError:  # another file system, or one without links
        shutil.copy(path, into)
