"""
Jobs: what the engine works on, a step at a time.

A job first has its prompt read, as far as nobody read it before, then either writes a
candidate set or scores given texts. Jobs know their own rows and what they want to
read next; when that happens, and beside whom, is the engine's business. Knows nothing
about text: tokens in, tokens out.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from bot.generation.attention import Read
from bot.generation.decoding import Calls, Drawing, Siblings, drawn_from
from bot.generation.kv import Rows, Segment, Shape
from bot.generation.prefixes import Match, Prefixes
from bot.generation.truncation import truncation_of
from bot.interfaces import GenerationRequest, Truncation
from bot.model import Finish

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Watch(Protocol):
    """Looks at what was drawn, and may end rows; `parents` are those of the draw."""

    def __call__(self, siblings: Siblings, parents: Sequence[int] | None) -> None: ...


class NewRows(Protocol):
    """Makes the rows of a set, of at most `limit` tokens, that go on from `prefix`."""

    def __call__(self, count: int, limit: int, prefix: Sequence[Segment]) -> Rows: ...


class Prompt:
    """
    A prompt on its way into memory: a beginning that is known, and rows of one for the
    rest. The last `anew` tokens are read even if they are known.
    """

    def __init__(self, tokens: Sequence[int], anew: int) -> None:
        self.tokens = tuple(tokens)
        self._anew = anew
        self._match = Match()
        self._rows: Rows | None = None

    @property
    def found(self) -> int:
        """How many tokens were known when reading began."""
        return self._match.length

    @property
    def left(self) -> int:
        read = self._rows.length if self._rows else 0
        return len(self.tokens) - self.found - read

    @property
    def unkept(self) -> bool:
        """Whether some of it has been read, or is being read, for this job alone."""
        return self._rows is not None

    def shared_with(self, other: Prompt) -> int:
        """Return how many tokens the two have in common at their beginning."""
        pairs = zip(self.tokens, other.tokens, strict=False)
        return next(
            (place for place, (own, its) in enumerate(pairs) if own != its),
            min(len(self.tokens), len(other.tokens)),
        )

    def begin(self, prefixes: Prefixes) -> None:
        """Look up what is known, and hold it until `release`."""
        known = len(self.tokens) - self._anew
        self._match = prefixes.match(self.tokens[:known])

    def read(self, most: int, shape: Shape) -> Read:
        """Return the next chunk; only the last one of a prompt has an output."""
        self._rows = self._rows or Rows(shape, 1, self.left)
        start = len(self.tokens) - self.left
        ends = self.left <= most and self._anew > 0
        return Read(
            tokens=torch.tensor([self.tokens[start : start + most]]),
            prefix=self._match.segments,
            rows=self._rows,
            outputs="last" if ends else "none",
        )

    def keep(self, prefixes: Prefixes) -> int:
        """Let others go on from what was read; return how many tokens are kept anew."""
        if self._rows is None:
            return 0
        segment = self._rows.segment(0, self._rows.length)
        new = prefixes.keep(self.tokens, self._match.length, segment)
        self.release(prefixes)
        self._match, self._rows = prefixes.match(self.tokens), None
        return new

    def segments(self) -> Sequence[Segment]:
        """All of it, once it has been read and kept."""
        return self._match.segments

    def release(self, prefixes: Prefixes) -> None:
        prefixes.release(self._match)
        self._match = Match()


@dataclass(slots=True, eq=False, kw_only=True)
class Job(ABC):
    """
    What every job has. `need` are the tokens of memory that it takes at most; `charge`
    what of it is not, or no longer, shared with others.
    """

    name: str
    prompt: Prompt
    shape: Shape
    need: int
    background: bool
    cancelled: threading.Event | None = None
    result: Future[Any] = field(default_factory=Future)
    charge: int = 0
    submitted: float = 0.0
    begun: float = 0.0

    @property
    @abstractmethod
    def finished(self) -> bool: ...

    @abstractmethod
    def reads(self) -> Sequence[Read]:
        """What is to be read now that the prompt has been; the same until `take`."""

    @abstractmethod
    def take(self, logits: Tensor) -> None:
        """Take the logits of what was read, the prompt's last ones first."""

    def held(self) -> Sequence[tuple[Sequence[int], Segment]]:
        """What was read beyond the prompt: all tokens up to there, and its segment."""
        return ()

    def release(self, prefixes: Prefixes) -> None:
        """Give back all memory."""
        self.prompt.release(prefixes)


@dataclass(slots=True, eq=False, kw_only=True)
class Writing(Job):
    """A candidate set. `limit` is the most tokens that a row may have."""

    request: GenerationRequest
    siblings: Siblings
    padding: int
    limit: int
    watch: Watch
    new_rows: NewRows
    truncation: Truncation | None = field(init=False)
    logits: Tensor | None = None
    first_token: float | None = None
    ended: float = 0.0
    _generator: torch.Generator = field(init=False)
    _drawing: Drawing | None = None
    _all_logits: Tensor | None = None
    _rows: Rows | None = None
    _pending: Sequence[Read] = ()
    _held: dict[int, tuple[Sequence[int], Segment]] = field(default_factory=dict)
    _uniforms: Tensor | None = None

    def __post_init__(self) -> None:
        self.truncation = truncation_of(self.request)
        # Numbers for many sets are drawn one by one and travel together; a plugin
        # draws where its logits are.
        device = "cpu" if self.truncation else self.shape.device
        self._generator = torch.Generator(device)
        self._generator.manual_seed(self.request.turn.seed % 2**63)

    @property
    def finished(self) -> bool:
        return not self.siblings.live

    def uniforms(self) -> Tensor:
        """Random numbers for the live rows; what ended uses its own up unseen."""
        if self._uniforms is None:  # the same until `drawn`: a draw may be repeated
            count = self.request.candidates
            self._uniforms = torch.rand(count, generator=self._generator)
        return self._uniforms[self.siblings.live]

    def drawn(
        self,
        tokens: Sequence[int],
        log_probs: Sequence[float],
        certainties: Sequence[float],
    ) -> None:
        """Take what was drawn for the live rows."""
        count = self.request.candidates
        column, scores, sure = [self.padding] * count, [0.0] * count, [0.0] * count
        drawn = zip(self.siblings.live, tokens, log_probs, certainties, strict=True)
        for number, token, log_prob, certainty in drawn:
            column[number], scores[number], sure[number] = token, log_prob, certainty
        self._uniforms = None
        self._extend(column, scores, sure)

    def draw(self, logits: Tensor, calls: Calls) -> None:
        """Draw by the turn's own plugins from the logits of the live rows."""
        if self._drawing is None:
            self._drawing = Drawing(self.request, self._generator, calls)
        siblings, logits = self.siblings, self._spread(logits)
        drawn = self._drawing(siblings.tokens, logits, siblings.ended, self.padding)
        log_probs, sure = drawn_from(logits, drawn)
        self._extend(
            drawn.tokens.tolist(),
            log_probs.tolist(),
            sure.tolist(),
            None if drawn.parents is None else drawn.parents.tolist(),
            None if drawn.done is None else drawn.done.tolist(),
        )

    def reads(self) -> Sequence[Read]:
        if not self._pending:
            kept, tokens = self.siblings.next_batch()
            prefix = self.prompt.segments()
            if self._rows is None:
                self._rows = self.new_rows(len(tokens), self.limit, prefix)
            elif kept is not None:
                self._rows.keep(kept)
            self._rows.make_room(1, self.limit)
            column = torch.tensor(tokens).unsqueeze(1)
            self._pending = [Read(tokens=column, prefix=prefix, rows=self._rows)]
        return self._pending

    def take(self, logits: Tensor) -> None:
        self.logits, self._pending = logits, ()

    def held(self) -> Sequence[tuple[Sequence[int], Segment]]:
        return list(self._held.values())

    def release(self, prefixes: Prefixes) -> None:
        self.prompt.release(prefixes)
        if self._rows is not None:
            self._rows.release()
            self._rows = None

    def end(self, finish: Finish) -> None:
        """End the rows that still go on."""
        live = self.siblings.live
        self.siblings.end(finish)
        self._hold(live)

    def _extend(
        self,
        tokens: Sequence[int],
        log_probs: Sequence[float],
        sure: Sequence[float],
        parents: Sequence[int] | None = None,
        done: Sequence[bool] | None = None,
    ) -> None:
        went_on = self.siblings.live
        self.siblings.extend(tokens, log_probs, sure, parents, done)
        self.logits = None
        self.watch(self.siblings, parents)
        live = self.siblings.live
        came_from = parents or range(len(self.siblings.rows))
        # What nobody goes on from, or ends in, is not held any longer.
        self._held = {
            number: self._held[parent]
            for number, parent in enumerate(came_from)
            if parent in self._held
        }
        self._hold(
            number
            for number, parent in enumerate(came_from)
            if parent in went_on and number not in live
        )

    def _hold(self, ended: Iterable[int]) -> None:
        """Keep what was read of rows before they leave the batch."""
        if self._rows is None or not self._rows.length:
            return
        length = self._rows.length
        for number in ended:
            place = self.siblings.place(number)
            tokens = self.siblings.rows[number].tokens[:length]
            segment = self._rows.segment(place, length).clone()
            self._held[number] = ((*self.prompt.tokens, *tokens), segment)

    def _spread(self, logits: Tensor) -> Tensor:
        """Return logits of all k rows: plugins see those that ended as they were."""
        count = self.request.candidates
        if self._all_logits is None:
            self._all_logits = logits.expand(count, -1)
        else:
            live = torch.tensor(self.siblings.live, device=logits.device)
            self._all_logits = self._all_logits.index_copy(0, live, logits)
        return self._all_logits


@dataclass(slots=True, eq=False, kw_only=True)
class Scoring(Job):
    """
    log p of given continuations, none of them empty. The last token of the text before
    them is not part of `prompt`: it is read with each, so that one pass gives all.
    """

    last: int
    continuations: Sequence[Sequence[int]]
    padding: int
    most_rows: int
    scored: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return len(self.scored) == len(self.continuations)

    def reads(self) -> Sequence[Read]:
        batch = self._batch()
        longest = max(map(len, batch))
        # Padding is on the right, where a causal model cannot see it.
        rows = [
            [self.last, *row[:-1], *[self.padding] * (longest - len(row))]
            for row in batch
        ]
        return [
            Read(
                tokens=torch.tensor(rows),
                prefix=self.prompt.segments(),
                rows=Rows(self.shape, len(rows), longest),
                outputs="all",
            )
        ]

    def take(self, logits: Tensor) -> None:
        batch = self._batch()
        by_row = logits.view(len(batch), -1, logits.shape[1])
        for row, own in zip(batch, by_row, strict=True):
            tokens = torch.tensor(row, device=logits.device).unsqueeze(1)
            chosen = own[: len(row)].gather(1, tokens).squeeze(1)
            found = chosen - own[: len(row)].logsumexp(dim=1)
            self.scored.append(found.cpu().numpy())

    def _batch(self) -> Sequence[Sequence[int]]:
        return self.continuations[len(self.scored) :][: self.most_rows]
