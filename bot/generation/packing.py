"""
Packing: linear layers with their weights in the order that oneDNN's kernels read.

The same function, in float32 on a CPU; only the reordering at every call is saved.
SmolLM2-135M, one thread: a step of 8 rows 160 to 98 ms, of one row the same, logits
within 2e-4, the likeliest token the same in 500 of 500 places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class PackedLinear(nn.Module):
    """A linear layer for inference. Its weight can no longer be read or saved."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # torch.compile's own operators; there is no public name for them, and
        # torch.utils.mkldnn converts every input and output instead.
        self._pack = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001 - no other way
        self._multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - the same
        self._weight = self._pack(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: Tensor) -> Tensor:
        product: Tensor = self._multiply(rows, self._weight, self._bias, "none", [], "")
        return product


def pack_linear_layers(model: nn.Module) -> None:
    """Replace every plain linear layer, where this build of torch has oneDNN."""
    # torch left its name without types.
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
