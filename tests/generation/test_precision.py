"""Which precision goes where, and which models stand int8."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bot.errors import ModelError
from bot.generation.precision import (
    LIMIT,
    ROW,
    SAMPLE,
    Precision,
    check_int8,
    number_type,
    pack_int8,
)

if TYPE_CHECKING:
    # A fixture's type; tests' folders are no packages, so it cannot be imported.
    class ModelFolders:
        generator: Path


pytestmark = pytest.mark.slow  # test-fast does without


CPU, GPU = torch.device("cpu"), torch.device("cuda")
needs_int8 = pytest.mark.skipif(
    torch.backends.quantized.engine not in {"x86", "fbgemm"},
    reason="torch has no int8 kernels for this processor",
)


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("auto", CPU, torch.float32),
        ("auto", GPU, torch.bfloat16),
        ("float32", CPU, torch.float32),
        ("float32", GPU, torch.float32),
        ("bfloat16", GPU, torch.bfloat16),
        pytest.param("int8", CPU, torch.float32, marks=needs_int8),
    ],
)
def test_each_precision_has_its_number_type(
    precision: Precision, device: torch.device, expected: torch.dtype
) -> None:
    assert number_type(precision, device) is expected


@pytest.mark.parametrize(
    ("precision", "device", "sentence"),
    [
        ("int8", GPU, "'int8' is for a CPU, and the device is 'cuda'; set it to"),
        ("bfloat16", CPU, "'bfloat16' is for a GPU, and the device is 'cpu'"),
    ],
)
def test_a_precision_on_the_wrong_device_is_for_the_operator(
    precision: Precision, device: torch.device, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        number_type(precision, device)


def test_int8_without_kernels_is_for_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.quantized, "engine", "qnnpack")

    with pytest.raises(ModelError, match=r"needs an x86 processor.*'qnnpack'"):
        number_type("int8", CPU)


@pytest.mark.parametrize("after", [1.0, 3.0, 3.0 + LIMIT * 0.99])
def test_a_small_loss_is_accepted(after: float) -> None:
    check_int8(3.0, after, "m")  # raises nothing


@pytest.mark.parametrize("after", [3.0 + LIMIT * 1.01, math.nan, math.inf])
def test_a_large_loss_is_refused(after: float) -> None:
    with pytest.raises(ModelError, match=r"'m' does not stand int8.*from 3\.000 to"):
        check_int8(3.0, after, "m")


@torch.inference_mode()
def what_it_says(model: Any) -> list[int]:
    """Four rows that the model itself finds likeliest, from different beginnings."""
    ids = torch.tensor([[20], [60], [100], [140]])
    while ids.shape[1] < ROW:
        likeliest = model(ids).logits[:, -1].argmax(1, keepdim=True)
        ids = torch.cat([ids, likeliest], dim=1)
    said: list[int] = ids.flatten().tolist()
    return said


@needs_int8
def test_a_model_with_huge_weights_where_nothing_arrives_is_refused(
    tiny_folder: Callable[[str], Path],
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama")).eval()
    with torch.no_grad():
        model.model.norm.weight[0] = 1e-12
        model.lm_head.weight[:, 0] = 1e8
    sample = what_it_says(model)

    with pytest.raises(ModelError, match="does not stand int8"):
        pack_int8(model, sample, "spoilt")


@needs_int8
@pytest.mark.model
def test_the_shipped_model_stands_int8(model_folders: ModelFolders) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folders.generator).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folders.generator)
    sample = tokenizer(SAMPLE)["input_ids"]
    ids = torch.tensor([sample])
    with torch.inference_mode():
        before = model(ids).logits.argmax(2)

        pack_int8(model, sample, "shipped")

        after = model(ids).logits.argmax(2)
    assert len(sample) > 300
    assert (before == after).float().mean() > 0.85
