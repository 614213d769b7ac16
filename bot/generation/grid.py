"""
The grid: steps of fixed shape, so that a GPU can replay them instead of being told
each operation again.

Sets have a place each, with room for a prompt and for k rows behind it; a step runs
over whole places, whoever is at home in them, and masks what nobody wrote. On a GPU the
operations of a step are recorded once for each size (CUDA graphs) and replayed. A set
that does not fit into a place is read in the ordinary way (attention.py), which also
reads prompts. Knows nothing about why a row is there.

Recording has never been tried: no GPU was to be had. The arithmetic is tested on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from bot.generation.kv import Rows, Segment, Shape

if TYPE_CHECKING:
    from torch import Tensor

PROMPT_STEP = 512  # sizes are multiples of these, so that there are few of them
REPLY_STEP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSize:
    """Places for `sets`, each for so many rows, and tokens of prompt and reply."""

    sets: int
    rows: int
    prompt_tokens: int
    reply_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class GridRead:
    """
    What a layer's attention needs to read one token in every row of `sets` places:
    memories [layers, 2, kv heads, sets, …], lengths [sets], sizes as they are masked.
    """

    prompts: Tensor  # … prompt tokens, head size]
    replies: Tensor  # … rows, reply tokens, head size]
    prompt_lengths: Tensor
    reply_lengths: Tensor


def attend(
    read: GridRead, layer: int, query: Tensor, key: Tensor, value: Tensor
) -> Tensor:
    """
    Keep key and value [kv heads, sets · rows, head size], and return the attention of
    `query` [heads, sets · rows, head size], which is scaled, as attention.py has it.
    """
    prompts, replies = read.prompts[layer], read.replies[layer]
    heads, sets, rows, length, size = replies.shape[1:]
    groups = query.shape[0] // heads
    place = read.reply_lengths.view(1, sets, 1, 1, 1).expand(heads, -1, rows, 1, size)
    replies[0].scatter_(3, place, key.view(heads, sets, rows, 1, size))
    replies[1].scatter_(3, place, value.view(heads, sets, rows, 1, size))
    folded = query.view(heads, groups, sets, rows, size).permute(0, 2, 3, 1, 4)
    shared = folded.reshape(heads, sets, rows * groups, size)
    of_prompt = shared @ prompts[0].transpose(2, 3)
    of_reply = (folded @ replies[0].transpose(3, 4)).view(
        heads, sets, rows * groups, length
    )
    scores = torch.cat(
        [
            _masked(of_prompt, read.prompt_lengths - 1),
            _masked(of_reply, read.reply_lengths),
        ],
        dim=3,
    )
    weights = scores.softmax(dim=3, dtype=torch.float32).to(scores.dtype)
    prompt_tokens = prompts.shape[3]
    apart = weights[..., prompt_tokens:].reshape(heads, sets, rows, groups, length)
    out = (apart @ replies[1]).view(heads, sets, rows * groups, size)
    out = out + weights[..., :prompt_tokens] @ prompts[1]
    by_row = out.view(heads, sets, rows, groups, size).permute(0, 3, 1, 2, 4)
    return by_row.reshape(heads * groups, sets * rows, size)


def _masked(scores: Tensor, last: Tensor) -> Tensor:
    """Hide what lies behind the `last` token [sets] of each place."""
    places = torch.arange(scores.shape[3], device=scores.device)
    seen = places <= last.unsqueeze(1)
    return scores.masked_fill(~seen[:, None], -torch.inf)


class PlacedRows(Rows):
    """Rows that live in a place of the grid, and give it back."""

    def __init__(self, place: int, memory: Tensor, count: int, grid: Grid) -> None:
        self.place = place
        self.length = 0
        self._whole = memory
        self._grid = grid
        self._count = count

    @property
    def memory(self) -> Tensor:
        return self._whole[:, :, :, : self._count]

    def make_room(self, tokens: int, limit: int) -> None:
        """There is room from the beginning."""

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(rows, device=self._whole.device)
        kept = self._whole[..., : self.length, :].index_select(3, index)
        self._count = len(rows)
        self._whole[:, :, :, : self._count, : self.length] = kept

    def release(self) -> None:
        self._grid.release(self.place)


Run: TypeAlias = "Callable[[Tensor, Tensor, GridRead], Tensor]"


class Grid:
    """
    The memory of all places, and the steps over them. `run(ids, positions, read)` is
    the network's pass over [1, sets · rows] tokens.
    """

    def __init__(self, shape: Shape, size: GridSize, run: Run) -> None:
        self._size = size
        self._run = run
        base = (shape.layers, 2, shape.kv_heads, size.sets)
        # Zeros: what is masked has the weight nothing, and nothing times NaN is NaN.
        prompt = (*base, size.prompt_tokens, shape.head_size)
        reply = (*base, size.rows, size.reply_tokens, shape.head_size)
        self._prompts = torch.zeros(prompt, dtype=shape.dtype, device=shape.device)
        self._replies = torch.zeros(reply, dtype=shape.dtype, device=shape.device)
        # What a step is told: written here, then copied to where recordings look.
        self._told = [
            torch.zeros(sizes, dtype=torch.long)
            for sizes in (
                (size.sets, size.rows),
                (size.sets, size.rows),
                (2, size.sets),
            )
        ]
        self._ids, self._positions, self._lengths = (
            told.to(shape.device, copy=True) for told in self._told
        )
        self._taken = [False] * size.sets
        self._prompt_lengths = [0] * size.sets
        self._records = shape.device.type == "cuda"
        self._recorded: dict[GridSize, tuple[Any, Tensor]] = {}
        self._pool: Any = None  # memory that all recordings share

    def place(
        self, count: int, limit: int, prefix: Sequence[Segment]
    ) -> PlacedRows | None:
        """Give a set the first free place, with its prompt there; None if none fits."""
        length = sum(part.shape[3] for part in prefix)
        size = self._size
        fits = count <= size.rows and limit <= size.reply_tokens
        if not fits or length > size.prompt_tokens or all(self._taken):
            return None
        place = self._taken.index(False)
        if prefix:
            whole = torch.cat(list(prefix), dim=3)
            self._prompts[:, :, :, place, :length] = whole
        self._prompt_lengths[place] = length
        self._taken[place] = True
        return PlacedRows(place, self._replies[:, :, :, place], count, self)

    def release(self, place: int) -> None:
        self._taken[place] = False

    def step(self, reads: Sequence[tuple[PlacedRows, Tensor]]) -> Tensor:
        """
        Read one token [k, 1] in every row, and return the logits of the rows in their
        order, [rows of all, vocab].
        """
        size = self._size_for([rows for rows, _ in reads])
        self._write_inputs(reads)
        logits = self._replay(size) if self._records else self._pass(size)
        wanted = [
            rows.place * self._size.rows + row
            for rows, _ in reads
            for row in range(rows.count)
        ]
        return logits[torch.tensor(wanted, device=logits.device)]

    def _size_for(self, homes: Sequence[PlacedRows]) -> GridSize:
        """Return the smallest of a few sizes that holds them all."""
        places = max(rows.place for rows in homes) + 1
        prompts = max(self._prompt_lengths[rows.place] for rows in homes)
        replies = max(rows.length for rows in homes) + 1
        most = self._size
        return GridSize(
            sets=min(most.sets, 2 ** (places - 1).bit_length()),
            rows=most.rows,
            prompt_tokens=min(most.prompt_tokens, _up(prompts, PROMPT_STEP)),
            reply_tokens=min(most.reply_tokens, _up(replies, REPLY_STEP)),
        )

    def _write_inputs(self, reads: Sequence[tuple[PlacedRows, Tensor]]) -> None:
        """Other places keep what they had: nobody looks at what it gives."""
        ids, positions, lengths = self._told
        for rows, tokens in reads:
            prompt = self._prompt_lengths[rows.place]
            ids[rows.place, : rows.count] = tokens[:, 0]
            positions[rows.place] = prompt + rows.length
            lengths[0, rows.place] = prompt
            lengths[1, rows.place] = rows.length
        for there, told in zip(
            (self._ids, self._positions, self._lengths), self._told, strict=True
        ):
            there.copy_(told)

    def _pass(self, size: GridSize) -> Tensor:
        sets = size.sets
        read = GridRead(
            prompts=self._prompts[:, :, :, :sets, : size.prompt_tokens],
            replies=self._replies[:, :, :, :sets, :, : size.reply_tokens],
            prompt_lengths=self._lengths[0, :sets],
            reply_lengths=self._lengths[1, :sets],
        )
        flat = (1, sets * size.rows)
        return self._run(
            self._ids[:sets].view(flat), self._positions[:sets].view(flat), read
        )

    def _replay(self, size: GridSize) -> Tensor:
        if size not in self._recorded:
            self._recorded[size] = self._record(size)
        graph, logits = self._recorded[size]
        graph.replay()
        return logits

    def _record(self, size: GridSize) -> tuple[Any, Tensor]:
        """
        Record a pass. It is run once before, on a stream of its own, as torch asks for;
        running twice does no harm, because it writes the same to the same places.
        """
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call] # theirs
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            self._pass(size)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile, for the embedder or a plugin.
        with torch.cuda.graph(
            graph, pool=self._pool, capture_error_mode="thread_local"
        ):
            logits = self._pass(size)
        self._pool = graph.pool()
        return graph, logits


def _up(number: int, step: int) -> int:
    return step * max(1, -(-number // step))
