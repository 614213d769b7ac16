"""
Packing: linear layers whose weights lie as a CPU's kernels read them.

In float32 the function stays the same; only the reordering at every call is saved. In
int8, weights are rounded per output, and activations per token, so what a row becomes
does not depend on the rows beside it. Figures are in docs/LOG.md. Whether a model
stands int8 is not known here: see precision.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

_TINY = 1e-12  # below it a row or a channel counts as zero


class PackedLinear(nn.Module):
    """A float32 linear layer for inference. Its weight cannot be read or saved."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # torch.compile's own operators; there is no public name for them, and
        # torch.utils.mkldnn converts every input and output instead.
        self._multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - no other way
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)  # noqa: SLF001 - the same
        self._bias = bias

    def forward(self, rows: Tensor) -> Tensor:
        product: Tensor = self._multiply(rows, self._weight, self._bias, "none", [], "")
        return product


class Int8Linear(nn.Module):
    """
    A linear layer in int8, rows rounded to 255 levels of their own largest value.

    `largest` [inputs] are the magnitudes that inputs reach. Half of what one channel
    has more than others moves into its weights, where it is rounded per output and
    harms less (SmoothQuant, Xiao et al. 2023, arXiv:2211.10438).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, largest: Tensor) -> None:
        super().__init__()
        shares = (_floored(largest) / _floored(weight.abs().amax(0))).sqrt()
        self._shrink = 1 / shares
        self._weight = _Int8Weight(weight * shares)
        self._bias = bias

    def forward(self, rows: Tensor) -> Tensor:
        small = rows * self._shrink
        largest = _largest(small)
        product = self._weight(small.div_(largest)).mul_(largest)
        return product if self._bias is None else product.add_(self._bias)


class TwiceInt8Linear(nn.Module):
    """
    A linear layer with int8 weights, and activations of two int8 numbers: what rounding
    took from a row is a row of its own in the same product. It costs up to twice as
    much as one, less than float32, and only the rounding of the weights remains.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._weight = _Int8Weight(weight)
        self._bias = bias

    def forward(self, rows: Tensor) -> Tensor:
        largest = _largest(rows)
        coarse, rest = self._weight.split(rows / largest)
        both = self._weight(torch.stack([coarse, rest]))
        product = both[0].add_(both[1], alpha=self._weight.step / 2).mul_(largest)
        return product if self._bias is None else product.add_(self._bias)


class _Int8Weight:
    """
    Weights rounded per output, and the product with rows that lie within -1 and 1.

    The operators are FBGEMM's. torch wants to drop the tensor type that their packing
    takes (https://github.com/pytorch/pytorch/issues/184982); what it would keep,
    onednn.qlinear_pointwise, took 26 % longer for a step of one row of SmolLM2-135M.
    """

    def __init__(self, weight: Tensor) -> None:
        levels = _levels()
        self.step = 1 / levels
        self._zero = levels + 1
        self._multiply = (
            torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        )
        scales = weight.abs().amax(1).clamp_min(_TINY).double() / 127
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed: Any = torch.ops.quantized.linear_prepack(rounded, None)

    def __call__(self, rows: Tensor) -> Tensor:
        product: Tensor = self._multiply(rows, self.step, self._zero, self._packed)
        return product

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows as rounded, and the rest, brought to -1 and 1 too."""
        levels = self._zero - 1
        coarse = torch.fake_quantize_per_tensor_affine(
            rows, self.step, 0, -levels, levels
        )
        return coarse, (rows - coarse).mul_(2 * levels)


def pack_linear_layers(model: Any, precision: Literal["float32", "int8"]) -> None:
    """
    Replace every linear layer of a float32 model of transformers, for good. With int8
    the model is run once, so its attention must be one that needs nothing else.
    """
    if precision == "int8":
        _pack_int8(model)
    # torch left its name without types.
    elif torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for parent, name, layer in _linear_layers(model):
            setattr(parent, name, PackedLinear(*_weight_and_bias(layer)))


@torch.inference_mode()
def _pack_int8(model: Any) -> None:
    largest = _largest_inputs(model)
    hidden = model.get_input_embeddings().embedding_dim
    head = model.get_output_embeddings()
    for parent, name, layer in _linear_layers(model):
        weight, bias = _weight_and_bias(layer)
        # What leads back to the hidden size reads the widest range of values, and
        # what the head gets wrong nothing after it can mend.
        twice = layer is head or weight.shape[1] > weight.shape[0] == hidden
        if twice or layer not in largest:
            setattr(parent, name, TwiceInt8Linear(weight, bias))
        else:
            setattr(parent, name, Int8Linear(weight, bias, largest[layer]))


def is_linear(layer: nn.Module) -> bool:
    """Whether packing replaces the layer; a subclass may do more than its name says."""
    return type(layer) in {nn.Linear, Conv1D}


def _linear_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if is_linear(layer):
                yield parent, name, layer


def _weight_and_bias(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Return the weight as [outputs, inputs], and the bias."""
    weight = layer.weight.detach()
    if isinstance(layer, Conv1D):  # GPT-2's name for a linear layer, transposed
        weight = weight.T.contiguous()
    return weight, None if layer.bias is None else layer.bias.detach()


def _largest_inputs(model: Any) -> dict[nn.Module, Tensor]:
    """
    Return the largest magnitude of each input of each linear layer, [inputs], for
    tokens from all over the vocabulary. Real text serves no better.
    """
    found: dict[nn.Module, Tensor] = {}

    def watch(layer: nn.Module, rows: tuple[Tensor, ...]) -> None:
        new = rows[0].abs().flatten(0, -2).amax(0)
        found[layer] = torch.maximum(found.get(layer, new), new)

    watched: list[RemovableHandle] = [
        layer.register_forward_pre_hook(watch)
        for layer in model.modules()
        if is_linear(layer)
    ]
    last = model.get_input_embeddings().num_embeddings - 1
    model(torch.linspace(0, last, 256).long().view(4, 64), use_cache=False)
    for handle in watched:
        handle.remove()
    return found


def _largest(rows: Tensor) -> Tensor:
    return rows.abs().amax(-1, keepdim=True).clamp_min_(_TINY)


def _floored(magnitudes: Tensor) -> Tensor:
    """A channel that was silent may speak later: none counts as next to nothing."""
    return magnitudes.clamp_min(max(magnitudes.mean().item() / 100, _TINY))


def _levels() -> int:
    """
    How many steps there are between 0 and a row's largest value. Processors without
    VNNI add two products in 16 bits, where two of 8 and 8 bits do not fit.
    """
    return 127 if torch.cpu.get_capabilities().get("avx512_vnni") else 63
