"""
The engine: candidate sets of many conversations, written in one running batch.

One thread takes steps. In each, sets are drawn for, rows that ended leave, a waiting
job is taken up if there is memory for it, and one pass of the network reads a chunk of
the newcomer's prompt beside the next token of every row. Customers' jobs go before
background ones, texts to be scored (the end of a turn) before sets (its beginning).

Memory is a number of tokens: what is kept for everybody and what each job may come to
hold beyond that stay below it together. Whatever fails, fails one job. A plugin that
hangs keeps the thread it hangs in; another thread goes on without that job.

Knows nothing about text, nor about transformers.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch

from bot import metrics
from bot.errors import (
    ChorusError,
    Overloaded,
    PluginError,
    TurnCancelled,
    TurnError,
)
from bot.generation.attention import Read
from bot.generation.decoding import Calls, called, certainties
from bot.generation.jobs import Job, Writing
from bot.generation.kv import Shape
from bot.generation.prefixes import Prefixes
from bot.generation.truncation import draw
from bot.interfaces import Truncation

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
logger = logging.getLogger(__name__)

CHUNK_ALONE = 512  # tokens of a prompt read in one pass
CHUNK_BESIDE = 128  # the same while others write, who would wait for it
HANGS = 3  # of one plugin, before sets that use it are refused


class Reader(Protocol):
    """The network, as far as the engine knows it."""

    @property
    def shape(self) -> Shape: ...
    def forward(self, reads: Sequence[Read]) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`tokens` of memory, sets in the `queue`, seconds for one call of a plugin."""

    tokens: int = 32_768
    queue: int = 64
    plugin_s: float = 5.0


class _Abandoned(BaseException):
    """This thread's work is another's by now."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A plugin at work, for whom, since when."""

    plugin: str
    job: Job
    since: float


class Engine:
    """
    Takes jobs from any thread; their results are futures. `close` ends it; `look_after`
    is to be called now and then by whoever waits, for nobody else sees a hang.
    """

    def __init__(
        self,
        network: Reader,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._limits = limits
        self._clock = clock
        self._prefixes = Prefixes()
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._calling: _Call | None = None
        self._hangs: Counter[str] = Counter()
        self._short_of_memory = False
        self._thread = self._new_thread()
        self._thread.start()

    def submit(self, job: Job) -> None:
        """
        Put a job in line. Raises Overloaded when too many sets wait, PluginError for
        a plugin that hung too often, TurnError for what can never fit into memory.
        """
        self._check_size(job)
        with self._changed:
            if self._closed:
                raise TurnError(f"{job.name}: the generator is shutting down")
            if isinstance(job, Writing):
                self._check_plugins(job)
                self._check_queue(job)
            job.submitted = self._clock()
            self._waiting.append(job)
            self._changed.notify()

    def look_after(self) -> None:
        """Take a job away from a plugin that has hung in it for too long."""
        with self._changed:
            call = self._calling
            if call is None or self._clock() - call.since < self._limits.plugin_s:
                return
            self._hangs[call.plugin] += 1
            self._calling = None
            self._remove(call.job)
            self._thread = self._new_thread()
            self._thread.start()
        metrics.set_over("failed")
        wrong = f"no answer within {self._limits.plugin_s:g} s; its set was given up"
        call.job.result.set_exception(PluginError(call.plugin, wrong))

    def close(self) -> None:
        """Fail what is not finished, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=self._limits.plugin_s)

    # Taking jobs in

    def _check_size(self, job: Job) -> None:
        if job.need > self._limits.tokens:
            raise TurnError(
                f"{job.name}: needs memory for {job.need} tokens, "
                f"{len(job.prompt.tokens)} of the prompt and the rest for what is "
                f"written, and generation.kv_tokens is {self._limits.tokens}; raise "
                "it, or lower generation.candidates or max_new_tokens"
            )

    def _check_plugins(self, job: Writing) -> None:
        used = [*job.request.logits_processors, job.request.sampler]
        for plugin in used:
            if self._hangs[plugin.name] >= HANGS:
                raise PluginError(
                    plugin.name, f"left out, because it hung {HANGS} times; mend it"
                )

    def _check_queue(self, job: Writing) -> None:
        # What lets a customer go first does not keep him out either.
        ahead = [
            each for each in _sets(self._waiting) if job.background >= each.background
        ]
        sets = len(ahead)
        if sets >= self._limits.queue:
            metrics.set_over("refused")
            raise Overloaded(
                f"{job.name}: {sets} candidate sets wait already, and generation.queue "
                f"is {self._limits.queue}; ask again later, or add processes"
            )

    # The thread

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._work, name="engine", daemon=True)

    def _work(self) -> None:
        with torch.inference_mode():
            try:
                while self._wait():
                    self._guarded_step()
            except _Abandoned:
                pass

    def _guarded_step(self) -> None:
        try:
            self._step()
        # Whatever is wrong with us must not leave those who wait without an answer.
        except Exception as error:  # noqa: BLE001
            self._recover(list(self._running), error)

    def _wait(self) -> bool:
        """Wait for something to do; return whether to go on."""
        with self._changed:
            self._check_thread()
            while not (self._waiting or self._running or self._closed):
                self._changed.wait()
            if self._closed:
                self._end_all(TurnError("the generator is shutting down"))
            return not self._closed

    def _check_thread(self) -> None:
        if threading.current_thread() is not self._thread:
            raise _Abandoned

    def _step(self) -> None:
        self._end_some()
        self._draw()
        self._finish()
        self._take_up()
        self._read()
        metrics.engine(
            waiting=len(self._waiting),
            kv_tokens=self._prefixes.tokens + self._charged(),
        )

    # A step's parts, in order

    def _end_some(self) -> None:
        """End what was cancelled, and what has had its time."""
        for job in [*self._waiting, *self._running]:
            if job.cancelled is not None and job.cancelled.is_set():
                self._fail(job, TurnCancelled(f"{job.name}: stopped on request"))
        now = self._clock()
        for job in _sets(self._running):
            limit = job.request.timeout_s
            if limit is not None and now >= job.begun + limit:
                job.end("length")

    def _draw(self) -> None:
        """Draw for every set that has logits, many at once where that is possible."""
        ready = [
            (job, job.logits)
            for job in _sets(self._running)
            if job.logits is not None and not job.finished
        ]
        for job, logits in ready:
            metrics.tokens_drawn(len(job.siblings.live))
            if job.truncation is None:
                self._guarded(job, partial(job.draw, logits, self._calls(job)))
        together = [(job, logits) for job, logits in ready if job.truncation]
        if together:
            self._draw_together(together)
        for job, _ in ready:
            self._note_first_token(job)

    def _note_first_token(self, job: Writing) -> None:
        if job.first_token is None:
            job.first_token = self._clock()
            metrics.first_token(job.first_token - job.submitted)

    def _draw_together(self, ready: Sequence[tuple[Writing, Tensor]]) -> None:
        counts = [len(job.siblings.live) for job, _ in ready]
        # A prompt's one row of logits is every sibling's.
        rows = [
            logits.expand(count, -1)
            for (_, logits), count in zip(ready, counts, strict=True)
        ]
        uniforms = torch.cat([job.uniforms() for job, _ in ready])
        logits = rows[0] if len(rows) == 1 else torch.cat(rows)
        truncations = [
            job.truncation or Truncation()
            for (job, _), count in zip(ready, counts, strict=True)
            for _ in range(count)
        ]
        drawn, scores = draw(logits, truncations, uniforms.to(logits.device))
        told = torch.stack([scores, certainties(logits)]).tolist()
        columns = [iter(drawn.tolist()), *map(iter, told)]
        for (job, _), count in zip(ready, counts, strict=True):
            own = [list(islice(column, count)) for column in columns]
            self._guarded(job, partial(_take_drawn, job, *own))

    def _finish(self) -> None:
        for job in [job for job in self._running if job.finished]:
            for tokens, segment in job.held():
                self._prefixes.keep(tokens, len(job.prompt.tokens), segment, soon=False)
            self._let_go(job)
            self._prefixes.make_room(self._limits.tokens - self._charged())
            if isinstance(job, Writing):
                job.ended = self._clock()
                metrics.set_over("written")
            job.result.set_result(None)

    def _take_up(self) -> None:
        """Take up waiting jobs while there is memory and a prompt can be read."""
        with self._changed:
            waiting = sorted(self._waiting, key=_urgency)
        for job in waiting:
            unread = sum(each.prompt.left for each in self._running)
            if unread >= self._chunk() or not self._began(job):
                return  # nobody overtakes: a large set would wait for ever

    def _began(self, job: Job) -> bool:
        """Begin a job, or fail it, unless it would better wait; return whether."""
        try:
            return self._begin(job)
        # Left in line, it would do the same at every step, and all would wait for it.
        except Exception as error:  # noqa: BLE001
            self._fail(job, _fault(job, error))
            return True

    def _begin(self, job: Job) -> bool:
        known = self._prefixes.known(job.prompt.tokens)
        for other in self._running:
            # Somebody is just reading what this one could go on from.
            if other.prompt.left and job.prompt.shared_with(other.prompt) > known:
                return False
        job.prompt.begin(self._prefixes)
        charge = job.need - job.prompt.found
        room = self._limits.tokens - self._charged() - charge
        self._prefixes.make_room(room)
        if self._prefixes.tokens > room:
            job.prompt.release(self._prefixes)
            return False
        job.charge = charge
        job.begun = self._clock()
        with self._changed:
            self._waiting.remove(job)
            self._running.append(job)
        metrics.prompt(found=job.prompt.found, read=job.prompt.left)
        return True

    def _read(self) -> None:
        """One pass of the network over all that is to be read."""
        jobs, reads = list[Job](), list[Read]()
        for job in list(self._running):
            for read in self._wanted(job, sum(map(_chunk_of, reads))):
                jobs.append(job)
                reads.append(read)
        if not reads:
            return
        try:
            logits = self._network.forward(reads)
        except Exception as error:  # noqa: BLE001 - whatever torch raises
            self._recover(jobs, error)
            return
        self._short_of_memory = False
        sizes = [read.wanted for read in reads]
        for job, own in zip(jobs, logits.split_with_sizes(sizes), strict=True):
            self._guarded(job, partial(self._hand_out, job, own))

    def _wanted(self, job: Job, chunks: int) -> Sequence[Read]:
        """Return what a job reads in this pass, beside `chunks` tokens of prompts."""
        try:
            if job.prompt.left:
                most = self._chunk() - chunks
                shape = self._network.shape
                return [job.prompt.read(most, shape)] if most > 0 else ()
            return job.reads()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            self._fail(job, _too_large(job))
            return ()

    def _hand_out(self, job: Job, logits: Tensor) -> None:
        if not job.prompt.unkept:
            job.take(logits)
            return
        if job.prompt.left == 0:
            job.charge -= job.prompt.keep(self._prefixes)
            if len(logits):
                job.take(logits)

    def _recover(self, jobs: Sequence[Job], error: Exception) -> None:
        """
        Short of memory: first let go of all that is kept, then of the youngest job.
        Everything else is a fault of ours, and fails whoever was concerned.
        """
        if not _is_out_of_memory(error):
            logger.error("a step of the generator failed", exc_info=error)
            for job in dict.fromkeys(jobs):
                self._fail(job, _fault(job, error))
            return
        logger.warning("the generator ran out of memory; prompts kept are let go")
        self._prefixes.make_room(0)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._short_of_memory and jobs:
            youngest = max(jobs, key=lambda job: job.begun)
            self._fail(youngest, _too_large(youngest))
        self._short_of_memory = True

    # Jobs

    def _calls(self, job: Job) -> Calls:
        """Return what runs plugins' functions so that a hang is seen."""

        def call(plugin: str, function: Callable[..., T], *arguments: object) -> T:
            with self._changed:
                self._calling = _Call(plugin, job, self._clock())
            try:
                return called(plugin, function, *arguments)
            finally:
                with self._changed:
                    self._check_thread()
                    self._calling = None

        return call

    def _guarded(self, job: Job, step: Callable[[], None]) -> None:
        """Let what goes wrong with one job be its own."""
        try:
            step()
        except ChorusError as error:
            self._fail(job, error)
        except Exception as error:  # noqa: BLE001 - what looks on, or torch
            self._fail(job, _fault(job, error))

    def _fail(self, job: Job, error: Exception) -> None:
        self._let_go(job)
        if isinstance(job, Writing):
            cancelled = isinstance(error, TurnCancelled)
            metrics.set_over("cancelled" if cancelled else "failed")
        job.result.set_exception(error)

    def _end_all(self, error: TurnError) -> None:
        for job in [*self._waiting, *self._running]:
            self._fail(job, error)

    def _let_go(self, job: Job) -> None:
        with self._changed:
            self._remove(job)

    def _remove(self, job: Job) -> None:
        for jobs in (self._waiting, self._running):
            if job in jobs:
                jobs.remove(job)
        job.release(self._prefixes)
        job.charge = 0

    def _charged(self) -> int:
        return sum(job.charge for job in self._running)

    def _chunk(self) -> int:
        writes = any(_rows(job) for job in self._running)
        return CHUNK_BESIDE if writes else CHUNK_ALONE


def _sets(jobs: Sequence[Job]) -> list[Writing]:
    return [job for job in jobs if isinstance(job, Writing)]


def _rows(job: Job) -> int:
    """How many rows a job writes at the moment."""
    writes = isinstance(job, Writing) and not job.prompt.left
    return len(job.siblings.live) if isinstance(job, Writing) and writes else 0


def _chunk_of(read: Read) -> int:
    count, new = read.tokens.shape
    return new if count == 1 and new > 1 else 0


def _urgency(job: Job) -> tuple[bool, bool, float]:
    return job.background, isinstance(job, Writing), job.submitted


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a class for the GPU's memory, and only words for the machine's.
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error) if isinstance(error, RuntimeError) else ""
    return "not enough memory" in said or "can't allocate memory" in said


def _take_drawn(
    job: Writing, tokens: list[int], log_probs: list[float], sure: list[float]
) -> None:
    if any(map(math.isnan, log_probs)):
        raise TurnError(
            f"{job.name}: the model gave NaN; use another generation.precision, or "
            "another model"
        )
    job.drawn(tokens, log_probs, sure)


def _fault(job: Job, error: Exception) -> TurnError:
    if _is_out_of_memory(error):
        return _too_large(job)
    what = f"{type(error).__name__}: {error}"
    return TurnError(f"{job.name}: the generator failed ({what})")


def _too_large(job: Job) -> TurnError:
    return TurnError(
        f"{job.name}: out of memory while it was written; lower generation.kv_tokens, "
        "generation.candidates or max_new_tokens"
    )
