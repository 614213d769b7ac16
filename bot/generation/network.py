"""
The network: transformers' weights, run over several reads at once.

The only place that touches a model of transformers: loading, the forward pass, and the
proof that shared-prefix attention gives this model's own result. All tokens of a pass
lie in one flat row with their positions beside them, so reads of any length mix
without padding. Knows nothing about text, sampling, or who asked.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from bot.errors import ModelError
from bot.generation import attention
from bot.generation.attention import Read
from bot.generation.grid import Grid, GridRead, GridSize, PlacedRows
from bot.generation.kv import FIRST_CAPACITY, Rows, Segment, Shape
from bot.generation.precision import Precision, number_type, pack_int8
from bot.generation.reach import context_tokens
from bot.packing import pack_linear_layers

if TYPE_CHECKING:
    from torch import Tensor

Device = Literal["auto", "cpu", "cuda"]

logger = logging.getLogger(__name__)

# What attention is proven with: ids that every vocabulary has.
_PROMPT = [7 + 13 * number % 89 for number in range(24)]
_SIBLINGS = [[5, 11, 3], [17, 2, 9]]


class Network:
    """
    A causal language model from a folder with config.json and safetensors.

    `sample` are tokens of ordinary text, with which int8 is tried. Raises ModelError
    for weights that are damaged, for a model that does not stand int8, and for one
    whose attention the engine would change: better no answer than a wrong one.
    """

    def __init__(
        self,
        folder: Path,
        device: Device = "auto",
        *,
        precision: Precision = "auto",
        sample: Sequence[int] = (),
        grid: GridSize | None = None,
    ) -> None:
        self._device = device_of(device)
        self._model = _load(folder, self._device, number_type(precision, self._device))
        self.end_tokens = _end_tokens(self._model)
        self._grid: Grid | None = None
        self.shape = self._proven_shape(folder)
        self.context_tokens = self._context_tokens(folder)
        self._pack(precision, sample, folder.name)
        if grid is not None:
            self._grid = self._proven_grid(grid)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def vocabulary(self) -> int:
        size: int = self._model.config.get_text_config().vocab_size
        return size

    @torch.inference_mode()
    def rows(self, count: int, limit: int, prefix: Sequence[Segment]) -> Rows:
        """Make rows of at most `limit` tokens that go on from `prefix`."""
        placed = self._grid and self._grid.place(count, limit, prefix)
        return placed or Rows(self.shape, count, min(FIRST_CAPACITY, limit))

    @torch.inference_mode()
    def forward(self, reads: Sequence[Read]) -> Tensor:
        """
        Read, keep keys and values, and return the logits that were asked for, float32,
        [outputs, vocab], in the order of the reads and their rows. The rows' lengths
        have moved on when it returns, and not when it raises.
        """
        in_grid = [
            (read.rows, read.tokens)
            for read in reads
            if isinstance(read.rows, PlacedRows)
        ]
        others = [read for read in reads if not isinstance(read.rows, PlacedRows)]
        parts = [self._run(others, _wanted(others))] if others else []
        if self._grid is not None and in_grid:
            parts.append(self._grid.step(in_grid))
        for read in reads:
            read.rows.length += read.tokens.shape[1]
        return parts[0] if len(parts) == 1 else _in_order(reads, *parts)

    def _run(
        self, reads: Sequence[Read], wanted: Sequence[int], **options: object
    ) -> Tensor:
        flat = torch.cat([read.tokens.reshape(-1) for read in reads])
        positions = torch.cat([_positions(read) for read in reads])
        arguments: dict[str, Any] = {
            "input_ids": flat.to(self._device).unsqueeze(0),
            "position_ids": positions.to(self._device).unsqueeze(0),
            "use_cache": False,
            "reads": reads,
            **options,
        }
        if not wanted:
            self._model.base_model(**arguments)
            return torch.empty(0, self.vocabulary, device=self._device)
        places = torch.tensor(wanted, device=self._device)
        output = self._model(logits_to_keep=places, **arguments)
        logits: Tensor = output.logits[0].float()
        return logits

    def _run_grid(self, ids: Tensor, positions: Tensor, read: GridRead) -> Tensor:
        output = self._model(
            input_ids=ids, position_ids=positions, use_cache=False, reads=read
        )
        logits: Tensor = output.logits[0].float()
        return logits

    def _pack(self, precision: Precision, sample: Sequence[int], name: str) -> None:
        """Pack what was proven: rounding would blur the proof."""
        if precision == "int8":
            self._model.set_attn_implementation("eager")
            pack_int8(self._model, sample, name)
            self._model.set_attn_implementation(attention.NAME)
        elif self._device.type == "cpu":
            pack_linear_layers(self._model, "float32")

    @torch.inference_mode()
    def _proven_shape(self, folder: Path) -> Shape:
        """
        Compare a prompt and two siblings behind it with the model's own attention: no
        flag of transformers says reliably whether a model goes through its interface.
        """
        attention.register()
        try:
            plain = self._read_plainly()
            shape = shape_of(self._model, self._device)
            self._model.set_attn_implementation(attention.NAME)
            found, _ = self._read_in_parts(shape)
        except Exception as error:  # whatever a model makes of arguments it ignores
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(_unsupported(folder, reason)) from error
        expected = torch.stack(plain).float()
        off = (expected - found).abs().max().item()
        if not off <= _limit(shape.dtype, expected):  # a NaN is not either
            raise ModelError(_unsupported(folder, f"logits differ by {off:.2g}"))
        return shape

    def _read_plainly(self) -> list[Tensor]:
        self._model.set_attn_implementation("eager")
        return [
            self._model(
                torch.tensor([_PROMPT + own], device=self._device), use_cache=False
            ).logits[0, len(_PROMPT) - 1 :]
            for own in _SIBLINGS
        ]

    @torch.inference_mode()
    def _context_tokens(self, folder: Path) -> int:
        told: set[int | None] = set()
        rows = Rows(self.shape, 1, 1)
        self._run(
            [Read(tokens=torch.tensor([[1]]), prefix=(), rows=rows)], [0], told=told
        )
        tokens = context_tokens(self._model.config.get_text_config(), told)
        if tokens is None:
            raise ModelError(_unsupported(folder, "no length of context in its config"))
        return tokens

    def _read_in_parts(self, shape: Shape) -> tuple[Tensor, Segment]:
        """Return the siblings' logits, and the prompt they go on from."""
        rows = Rows(shape, 1, len(_PROMPT))
        half = len(_PROMPT) // 2
        parts = [
            Read(tokens=torch.tensor([part]), prefix=(), rows=rows)
            for part in (_PROMPT[:half], _PROMPT[half:])
        ]
        _, first = [self.forward([part]) for part in parts]
        prompt = rows.segment(0, len(_PROMPT))
        siblings = Read(
            tokens=torch.tensor(_SIBLINGS),
            prefix=[prompt],
            rows=Rows(shape, len(_SIBLINGS), len(_SIBLINGS[0])),
            outputs="all",
        )
        after = self.forward([siblings]).view(*siblings.tokens.shape, -1)
        return torch.cat([first.expand(len(after), 1, -1), after], dim=1), prompt

    @torch.inference_mode()
    def _proven_grid(self, size: GridSize) -> Grid | None:
        """Return a grid that gives what the other way gives; None if it does not."""
        try:
            expected, prompt = self._read_in_parts(self.shape)
            grid = Grid(self.shape, size, self._run_grid)
            off = _difference(grid, prompt, expected)
        # Whatever a GPU or a model makes of it: the other way does the work.
        except Exception as error:  # noqa: BLE001
            logger.warning("steps of fixed shape are not used: %s", error)
            return None
        if off <= _limit(self.shape.dtype, expected):
            return grid
        logger.warning("steps of fixed shape are not used: logits differ by %.2g", off)
        return None


def _difference(grid: Grid, prompt: Segment, expected: Tensor) -> float:
    """Return how far the grid's logits are from those that are `expected`."""
    tokens = torch.tensor(_SIBLINGS)
    rows = grid.place(len(tokens), tokens.shape[1], [prompt])
    if rows is None:
        raise ValueError("its places are too small for two rows of three tokens")
    off = 0.0
    for step in range(tokens.shape[1]):
        logits = grid.step([(rows, tokens[:, step : step + 1])])
        rows.length += 1
        off = max(off, (logits - expected[:, step + 1]).abs().max().item())
    rows.release()
    return off


def _in_order(reads: Sequence[Read], others: Tensor, in_grid: Tensor) -> Tensor:
    """Put the outputs of the two ways into the order of the reads."""
    left, placed = others, in_grid
    parts = []
    for read in reads:
        if isinstance(read.rows, PlacedRows):
            parts.append(placed[: read.wanted])
            placed = placed[read.wanted :]
        else:
            parts.append(left[: read.wanted])
            left = left[read.wanted :]
    return torch.cat(parts)


def _wanted(reads: Sequence[Read]) -> list[int]:
    """Return the places in the flat row of which logits are wanted."""
    wanted: list[int] = []
    starts = accumulate((read.tokens.numel() for read in reads), initial=0)
    for read, start in zip(reads, starts, strict=False):
        places = range(start, start + read.tokens.numel())
        if read.outputs == "all":
            wanted += places
        elif read.outputs == "last":
            new = read.tokens.shape[1]
            wanted += places[new - 1 :: new]
    return wanted


def _positions(read: Read) -> Tensor:
    count, new = read.tokens.shape
    return torch.arange(read.start, read.start + new).repeat(count)


def shape_of(model: Any, device: torch.device) -> Shape:
    """Return what a token's keys and values look like in a model of transformers."""
    config = model.config.get_text_config()
    heads: int = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=size,
        dtype=model.dtype,
        device=device,
    )


def _limit(dtype: torch.dtype, logits: Tensor) -> float:
    """A share of the largest logit: what rounding explains, with room to spare."""
    share = 1e-3 if dtype == torch.float32 else 0.1
    return share * max(1.0, logits.abs().max().item())


def _unsupported(folder: Path, found: str) -> str:
    return (
        f"model folder {str(folder)!r}: its attention cannot be shared between "
        f"candidates ({found}); use a model of another family, such as Llama, Qwen or "
        "Mistral, or serve this one elsewhere and set generation.backend"
    )


def is_on_gpu(device: Device) -> bool:
    """Return whether a model will run on a GPU."""
    return device_of(device).type == "cuda"


def device_of(device: Device) -> torch.device:
    """Return where to run; ModelError for a GPU that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "generation.device: 'cuda', but torch finds no GPU; "
            "set it to 'auto' or 'cpu', or install torch for your GPU"
        )
    return torch.device(device)


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    transformers_logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"model folder {str(folder)!r}: cannot be loaded ({error}); "
            "fetch it again or name another model"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        # transformers would fill the gaps with random numbers and only warn.
        missing = sorted(
            map(str, [*report["missing_keys"], *report["mismatched_keys"]])
        )
        raise ModelError(
            f"model folder {str(folder)!r}: the weights lack {missing[0]!r} and "
            f"{len(missing) - 1} more; fetch it again or name another model"
        )
    return model.to(device).eval()


def _end_tokens(model: Any) -> frozenset[int]:
    """All tokens that the model's own configuration says end a text."""
    configured = model.generation_config.eos_token_id
    if configured is None:
        return frozenset()
    return frozenset([configured] if isinstance(configured, int) else configured)
