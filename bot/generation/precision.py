"""
Precision: which numbers the weights are, and whether a model stands int8.

Says it before a customer could notice. Knows nothing of where weights come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from bot.errors import ModelError
from bot.packing import pack_linear_layers

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["auto", "float32", "bfloat16", "int8"]

# Nats a token. SmolLM2-135M, which stands int8 well, loses .00 to .02 on samples of
# this length; one scale for all rows, which makes it ramble, .3.
LIMIT = 0.05
ROW = 64  # tokens that are read together

SAMPLE = """\
Thank you for your message. Your parcel left our warehouse on Tuesday morning and should
reach you within three working days. If it has not arrived by Friday, please write to us
again and tell us the number on your receipt, so that we can ask the carrier. You can
send anything back within 30 days, as long as it has not been used; the money is in your
account about a week later.

To change the battery, switch the lamp off first and let it cool down. Turn the cover to
the left until it clicks, take out the old battery, and put the new one in with the plus
sign facing you. Do not use force. If the light blinks twice, the battery is almost
empty; if it stays dark, check whether the contacts are clean.

My grandmother kept bees behind the old mill. Every summer she opened the wooden boxes,
slowly, with bare hands, and talked to them as if they were children who had stayed out
too late. "They know when you are in a hurry," she used to say, and she never was.

How much does the small room cost? 84 euros a night with breakfast, 72 without. Is there
anything cheaper in March? Yes: from the 3rd to the 19th every room is 15 percent less.

Water boils at 100 degrees at the level of the sea and earlier on a mountain, because
the air there presses less on it. That is why rice takes longer to cook in a hut at
3,000 metres than at home, however hot the stove may be.
"""


def number_type(precision: Precision, device: torch.device) -> torch.dtype:
    """
    Return the type in which weights are loaded and activations computed, which is
    float32 for int8 too. Raises ModelError for what does not go on this device.
    """
    if precision == "int8":
        _check_int8_is_here(device)
    if precision == "bfloat16" and device.type == "cpu":
        raise ModelError(
            "generation.precision: 'bfloat16' is for a GPU, and the device is 'cpu', "
            "where it is slower than float32; set it to 'auto', 'float32' or 'int8'"
        )
    if precision == "bfloat16" or (precision == "auto" and device.type != "cpu"):
        return torch.bfloat16
    return torch.float32


@torch.inference_mode()
def pack_int8(model: Any, sample: Sequence[int], name: str) -> None:
    """
    Pack a model of transformers as int8, in place. Raises ModelError, and leaves it
    unfit for use, if `sample`, the tokens of SAMPLE, became too unlikely.
    """
    rows = _rows(sample)
    before = negative_log_likelihood(model, rows)
    pack_linear_layers(model, "int8")
    check_int8(before, negative_log_likelihood(model, rows), name)


def check_int8(before: float, after: float, name: str) -> None:
    """Raise ModelError if int8 costs more than LIMIT, or made numbers of nothing."""
    if not after - before <= LIMIT:  # a NaN is not either
        raise ModelError(
            f"generation.precision: model {name!r} does not stand int8: the mean "
            f"negative log-likelihood of the built-in sample rose from {before:.3f} to "
            f"{after:.3f}, by more than {LIMIT}; set it to 'float32'"
        )


@torch.inference_mode()
def negative_log_likelihood(model: Any, rows: Tensor) -> float:
    """Return the mean over the tokens that follow the first of each row, in nats."""
    logits = model(rows, use_cache=False).logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), rows[:, 1:].flatten()
    )
    return loss.item()


def _rows(sample: Sequence[int]) -> Tensor:
    whole = len(sample) // ROW
    return torch.tensor(sample[: whole * ROW]).view(whole, ROW)


def _check_int8_is_here(device: torch.device) -> None:
    if device.type != "cpu":
        raise ModelError(
            f"generation.precision: 'int8' is for a CPU, and the device is "
            f"{device.type!r}; set it to 'auto', or generation.device to 'cpu'"
        )
    engine = torch.backends.quantized.engine
    if engine not in {"x86", "fbgemm"}:
        raise ModelError(
            f"generation.precision: 'int8' needs an x86 processor, and torch's engine "
            f"for it is {engine!r} here; set it to 'auto' or 'float32'"
        )
