"""
Decoding: from logits to token ids, for all siblings of a turn at once.

Knows nothing about text, prompts or models. A plugin always sees k rows in the same
order: a row that has ended keeps its place, is padded, and is left exactly one token
to draw, with probability one, so that sums of log-probabilities (beams) stay as they
are. The model's batch holds only the rows that go on; `Siblings` knows which is where.
Sets that do nothing but truncate are drawn elsewhere, many at once (truncation.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from bot.errors import PluginError, TurnError
from bot.interfaces import Draw, GenerationRequest, LogitsProcessor, Sampler
from bot.model import Finish

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(slots=True)
class Row:
    """One sibling so far: what was drawn, and how it ended (None: it goes on)."""

    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    certainties: list[float] = field(default_factory=list)
    finish: Finish | None = None

    def copy(self) -> Row:
        return copy.deepcopy(self)


class Siblings:
    """
    The rows of one turn. `limit` is the most tokens a row may have; a row also ends
    with one of `end_tokens`, which it keeps. `padding` fills up rows that ended.
    `tokens` [k, t] is what plugins see: `begun`, which all have in common, and what
    was drawn.
    """

    def __init__(  # noqa: PLR0913 - what a row needs to know
        self,
        count: int,
        *,
        begun: Sequence[int] = (),
        end_tokens: frozenset[int],
        limit: int,
        padding: int,
        device: torch.device,
    ) -> None:
        self.rows = [Row() for _ in range(count)]
        self.tokens = torch.tensor([list(begun)] * count, device=device).long()
        self._end_tokens = end_tokens
        self._limit = limit
        self._padding = padding
        # The prompt was read once: before the first token all siblings lie in row 0.
        self._places = [0] * count
        self._batch_size = 1
        self._parents = list(range(count))

    @property
    def live(self) -> list[int]:
        return [number for number, row in enumerate(self.rows) if row.finish is None]

    @property
    def ended(self) -> list[int]:
        return [number for number, row in enumerate(self.rows) if row.finish]

    def extend(
        self,
        tokens: Sequence[int],
        log_probs: Sequence[float],
        certainties: Sequence[float],
        parents: Sequence[int] | None = None,
        done: Sequence[bool] | None = None,
    ) -> None:
        """
        Re-parent the rows, then give each its token, unless its parent had ended: then
        it has ended with it. A row the sampler is done with and that drew no end token
        is a text cut short, so it ends like one that ran out of tokens.
        """
        self._reparent(parents)
        column = list(tokens)
        for number, row in enumerate(self.rows):
            if row.finish is not None:
                column[number] = self._padding
                continue
            row.tokens.append(column[number])
            row.log_probs.append(log_probs[number])
            row.certainties.append(certainties[number])
            if column[number] in self._end_tokens:
                row.finish = "stop"
            elif len(row.tokens) >= self._limit or (done and done[number]):
                row.finish = "length"
        drawn = torch.tensor(column, device=self.tokens.device).unsqueeze(1)
        self.tokens = torch.cat([self.tokens, drawn], dim=1)

    def end(self, finish: Finish) -> None:
        """End every row that still goes on."""
        for number in self.live:
            self.rows[number].finish = finish

    def next_batch(self) -> tuple[list[int] | None, list[int]]:
        """
        Return the places in the model's last batch that go on (None: all of them, as
        they are) and the tokens to read next, one for each live row.
        """
        live = self.live
        kept = [self._places[self._parents[number]] for number in live]
        unchanged = kept == list(range(self._batch_size))
        for place, number in enumerate(live):
            self._places[number] = place
        self._batch_size = len(live)
        self._parents = list(range(len(self.rows)))
        tokens = [self.rows[number].tokens[-1] for number in live]
        return None if unchanged else kept, tokens

    def place(self, number: int) -> int:
        """Return where the model's last batch had what the row goes on from."""
        return self._places[self._parents[number]]

    def _reparent(self, parents: Sequence[int] | None) -> None:
        if parents is None:
            self._parents = list(range(len(self.rows)))
            return
        self._parents = list(parents)
        self.rows = [self.rows[parent].copy() for parent in self._parents]
        self.tokens = self.tokens[self._parents]


class Calls(Protocol):
    """Runs a plugin's function, and turns what it raises into a PluginError."""

    def __call__(
        self, plugin: str, function: Callable[..., T], *arguments: object
    ) -> T: ...


class Drawing:
    """
    The plugins' part of one turn: its logits steps, then its sampler's step, each
    checked, so that what breaks the contract is named and goes no further.
    """

    def __init__(
        self,
        request: GenerationRequest,
        generator: torch.Generator,
        calls: Calls,
    ) -> None:
        turn, count = request.turn, request.candidates
        self._turn = turn.id
        self._calls = calls
        self._count = count
        self._steps = [
            (processor.name, calls(processor.name, processor.begin, turn, count))
            for processor in needed(request.logits_processors, request.sampler)
        ]
        self._sampler = request.sampler.name
        self._draw = calls(self._sampler, request.sampler.begin, turn, count, generator)

    def __call__(
        self, tokens: Tensor, logits: Tensor, ended: Sequence[int], padding: int
    ) -> Draw:
        """Draw from `logits` [k, vocab], which stays as it is."""
        self._check_model(logits)
        changed = logits.clone()
        for name, step in self._steps:
            changed = self._calls(name, step, tokens, changed)
            _check_logits(name, changed, logits)
        if ended:
            changed[ended] = -torch.inf
            changed[ended, padding] = 0.0
        draw = self._calls(self._sampler, self._draw, changed)
        _check_draw(self._sampler, draw, self._count, logits.shape[1])
        return draw

    def _check_model(self, logits: Tensor) -> None:
        # First of all, or it is the first plugin that is blamed.
        if not _is_drawable(logits):
            raise TurnError(
                f"turn {self._turn!r}: the model gave NaN or infinity; use another "
                "generation.precision, or another model"
            )


def certainties(logits: Tensor) -> Tensor:
    """
    Return KL(uniform || p) [k] of each row's distribution, in nats: how far the model
    is from calling all tokens equally likely.
    """
    return logits.logsumexp(dim=1) - logits.mean(dim=1) - math.log(logits.shape[1])


def drawn_from(logits: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """
    Return log p [k] of the drawn tokens and the certainty [k] of what each was drawn
    from, under `logits` [k, vocab] as they are.
    """
    parents = draw.parents
    if parents is None:
        parents = torch.arange(len(logits), device=logits.device)
    log_probs = logits[parents, draw.tokens] - logits.logsumexp(dim=1)[parents]
    return log_probs, certainties(logits)[parents]


def needed(
    processors: Sequence[LogitsProcessor], sampler: Sampler
) -> list[LogitsProcessor]:
    """Return the processors that change what this sampler draws."""
    greedy = getattr(sampler, "greedy", False)
    return [each for each in processors if each.changes_argmax or not greedy]


def called(plugin: str, function: Callable[..., T], *arguments: object) -> T:
    """Run a plugin's function; whatever it raises becomes a PluginError."""
    try:
        return function(*arguments)
    except PluginError:
        raise
    # A stranger's code: whatever it raises is its own fault, even SystemExit.
    except BaseException as error:
        raise PluginError(plugin, f"raised {type(error).__name__}: {error}") from error


def _check_logits(plugin: str, changed: object, logits: Tensor) -> None:
    if not isinstance(changed, torch.Tensor) or changed.shape != logits.shape:
        raise PluginError(
            plugin,
            f"returned logits of {_shape(changed)}; return {list(logits.shape)}",
        )
    if not _is_drawable(changed):
        raise PluginError(
            plugin,
            "returned logits with NaN or infinity, or a row without any token left; "
            "leave at least one finite logit in each row",
        )


def _is_drawable(logits: Tensor) -> bool:
    """Tell whether each row has a likeliest token, and no NaN."""
    # The maximum is NaN if anything in its row is, and -inf if nothing is left.
    return bool(logits.amax(dim=1).isfinite().all())


def _check_draw(plugin: str, draw: object, count: int, vocabulary: int) -> None:
    if not isinstance(draw, Draw):
        raise PluginError(plugin, f"drew a {type(draw).__name__}; return a Draw")
    _check_numbers(plugin, "tokens", draw.tokens, count, vocabulary)
    if draw.parents is not None:
        _check_numbers(plugin, "parents", draw.parents, count, count)
    if draw.done is not None and (
        draw.done.shape != (count,) or draw.done.dtype != torch.bool
    ):
        raise PluginError(
            plugin,
            f"drew done of {_shape(draw.done)} {draw.done.dtype}; "
            f"return [{count}] torch.bool",
        )


def _check_numbers(
    plugin: str, what: str, numbers: Tensor, count: int, limit: int
) -> None:
    if numbers.shape != (count,) or numbers.dtype != torch.int64:
        raise PluginError(
            plugin,
            f"drew {what} of {_shape(numbers)} {numbers.dtype}; "
            f"return [{count}] torch.int64",
        )
    if not bool(((numbers >= 0) & (numbers < limit)).all()):
        raise PluginError(
            plugin, f"drew {what} {numbers.tolist()}; stay between 0 and {limit - 1}"
        )


def _shape(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"shape {list(value.shape)}"
    return f"type {type(value).__name__}"
