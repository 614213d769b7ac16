"""Packed layers give what the plain ones give: exactly, or nearly in int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from bot.packing import (
    Int8Linear,
    PackedLinear,
    TwiceInt8Linear,
    pack_linear_layers,
)

pytestmark = pytest.mark.slow  # test-fast does without

needs_int8 = pytest.mark.skipif(
    torch.backends.quantized.engine not in {"x86", "fbgemm"},
    reason="torch has no int8 kernels for this processor",
)
SHAPES = [(1, 1), (7, 13), (64, 64), (192, 576), (577, 33)]
ROWS = [(1,), (2,), (67,), (1, 5), (2, 3, 4)]


def a_layer(outputs: int, inputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(outputs * 1000 + inputs)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(requires_grad=False)


def some_rows(*sizes: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(1))


def error(found: Tensor, expected: Tensor) -> float:
    """Return the error as a share of what was expected."""
    assert found.shape == expected.shape
    share: float = ((found - expected).norm() / expected.norm()).item()
    return share


def once(layer: nn.Linear, rows: Tensor) -> Int8Linear:
    largest = rows.abs().flatten(0, -2).amax(0)
    return Int8Linear(layer.weight, layer.bias, largest)


def twice(layer: nn.Linear) -> TwiceInt8Linear:
    return TwiceInt8Linear(layer.weight, layer.bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_packed_layer_gives_the_same(
    shape: tuple[int, int], rows: tuple[int, ...], bias: bool
) -> None:
    layer = a_layer(*shape, bias=bias)
    given = some_rows(*rows, shape[1])

    found = PackedLinear(layer.weight, layer.bias)(given)

    torch.testing.assert_close(found, layer(given), rtol=0, atol=1e-4)


@needs_int8
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_int8_layer_gives_nearly_the_same(
    shape: tuple[int, int], rows: tuple[int, ...], bias: bool
) -> None:
    layer = a_layer(*shape, bias=bias)
    given = some_rows(*rows, shape[1])

    assert error(once(layer, given)(given), layer(given)) < 0.04
    assert error(twice(layer)(given), layer(given)) < 0.02


@needs_int8
def test_two_roundings_leave_the_error_of_the_weights_only() -> None:
    layer, given = a_layer(192, 576), some_rows(16, 576)
    steps = layer.weight.abs().amax(1, keepdim=True) / 127
    rounded = (layer.weight / steps).round() * steps

    found = twice(layer)(given)

    assert error(found, given @ rounded.T + layer.bias) < 2e-4


@needs_int8
def test_rows_of_nothing_give_the_bias() -> None:
    layer = a_layer(7, 13)
    given = torch.zeros(2, 13)

    for packed in (once(layer, some_rows(4, 13)), twice(layer)):
        torch.testing.assert_close(packed(given), layer(given), rtol=0, atol=0)


@needs_int8
def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    layer, given = a_layer(192, 576), some_rows(17, 576)
    given[3] *= 1000

    for packed in (once(layer, given), twice(layer)):
        alone = torch.cat([packed(row.unsqueeze(0)) for row in given])
        assert torch.equal(packed(given), alone)


@needs_int8
def test_given_rows_are_left_as_they_were() -> None:
    layer, given = a_layer(7, 13), some_rows(3, 13)
    before = given.clone()

    once(layer, given)(given)
    twice(layer)(given)

    assert torch.equal(given, before)


@needs_int8
def test_one_loud_input_does_not_drown_the_others() -> None:
    layer, given = a_layer(64, 64), some_rows(32, 64)
    given[:, 5] *= 300
    layer.weight[:, 5] /= 300
    unknown = Int8Linear(layer.weight, layer.bias, torch.ones(64))

    known = error(once(layer, given)(given), layer(given))

    assert known < 0.02
    assert error(unknown(given), layer(given)) > 5 * known


@needs_int8
def test_an_input_that_was_silent_may_speak_later() -> None:
    layer, given = a_layer(64, 64), some_rows(32, 64)
    silent = given.clone()
    silent[:, 5] = 0

    found = once(layer, silent)(given)

    assert error(found, layer(given)) < 0.2


@needs_int8
def test_processors_without_vnni_add_up_without_overflow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    layer, given = a_layer(192, 576), some_rows(16, 576)

    packed = once(layer, given)

    assert packed._weight.step == 1 / 63
    assert error(packed(given), layer(given)) < 0.04
    assert error(twice(layer)(given), layer(given)) < 0.02


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def layers_of(model: nn.Module) -> dict[str, type[nn.Module]]:
    return {name.split(".")[-1]: type(layer) for name, layer in model.named_modules()}


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_a_packed_model_gives_the_same(
    tiny_folder: Callable[[str], Path], kind: str
) -> None:
    model = loaded(tiny_folder(kind))
    ids = torch.arange(60).view(3, 20)
    expected = model(ids).logits

    pack_linear_layers(model, "float32")

    assert layers_of(model)["lm_head"] is PackedLinear
    torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-4)


@needs_int8
@torch.inference_mode()
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gpt-neox"])
def test_an_int8_model_gives_nearly_the_same(
    tiny_folder: Callable[[str], Path], kind: str
) -> None:
    model = loaded(tiny_folder(kind))
    ids = torch.arange(60).view(3, 20)
    expected = model(ids).logits

    pack_linear_layers(model, "int8")

    assert error(model(ids).logits, expected) < 0.1


@needs_int8
def test_what_leads_back_to_the_hidden_size_and_the_head_are_rounded_twice(
    tiny_folder: Callable[[str], Path],
) -> None:
    llama, gpt2 = loaded(tiny_folder("llama")), loaded(tiny_folder("gpt2"))

    pack_linear_layers(llama, "int8")
    pack_linear_layers(gpt2, "int8")

    names = layers_of(llama)
    assert {name for name in names if names[name] is TwiceInt8Linear} == {
        "down_proj",
        "lm_head",
    }
    assert {name for name in names if names[name] is Int8Linear} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj"),
    }
    block = gpt2.transformer.h[0]
    assert type(block.attn.c_proj) is Int8Linear
    assert type(block.mlp.c_proj) is TwiceInt8Linear
