"""
A bot that works for long under faults: `python tests/faults/soak.py --minutes 10`.

Real processes, two of connectors and two of workers, on a real redis-server. Customers
ask so many times a second. One message in a hundred meets a fault: a process is killed
(SIGKILL), one of workers is stopped for two leases (SIGSTOP), or the platform refuses
for now, loses its answer or drops the connection. Faults hit one process of each kind;
the other ones live through all of it, and are those whose memory is watched. Connectors
are not stopped, because no call to a platform can be taken back: one that is stopped
between its last look and the call sends what another one has sent meanwhile.

Says a line each minute and a verdict at the end, and ends with 1 when something that
must hold did not. A line's "calm" p99 is of the answers that no fault was near.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, count
from operator import attrgetter
from pathlib import Path

if __name__ == "__main__":
    # Not the folder of this file: there, too, is a module called platform.
    sys.path[0] = str(Path(__file__).parents[2])

from bot.conversation.manager import Role
from tests.conversation.redis_processes import RedisServer
from tests.faults.customers import Conversation, Customers, Tally, proof
from tests.faults.figures import tell
from tests.faults.platform import Platform, Treatment
from tests.faults.worker_process import Child, Fleet, Settings

CONVERSATIONS = 200
FAULTS = 0.01  # for each message
LEASE_S = 1.0
ANSWER_S = 0.05
SAMPLE_S = 5.0
AFTERWARDS_S = 1.0  # so long a fault is felt when it is over
LAST_ANSWERS_S = 60.0
LEAST = 3  # samples; fewer have neither a slope nor thirds

ERRORS: Sequence[Treatment] = ("later", "lose answer", "drop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was measured at a moment, of each process that lives through the run."""

    at_s: float
    rss_mib: Mapping[str, float]
    fds: Mapping[str, int]
    lag_s: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    When something was asked, how long its answer took, and how much later than it
    should have it was asked: that is the machine's doing, not the bot's.
    """

    asked_s: float
    took_s: float
    late_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    kind: str
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of it. Times are seconds since it began."""

    length_s: float
    samples: Sequence[Sample]
    answers: Sequence[Answer]
    faults: Sequence[Fault]
    tally: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What may be. Below `growth_mib` in all, and `p99_noise_s`, nothing is told from the
    noise of a machine: a short run sees large leaks only.
    """

    slope_mib_per_h: float = 1.0
    growth_mib: float = 4.0
    fds: int = 10
    p99: float = 1.1
    p99_noise_s: float = 0.02


# The verdict


def violations(run: Run, limits: Limits) -> list[str]:
    """Return what must hold and did not, one sentence each."""
    found = [
        f"{name.replace('_', ' ')}: {number}"
        for name in ("lost", "repeated", "out_of_order", "wrong_state")
        if (number := getattr(run.tally, name))
    ]
    warm = [one for one in run.samples if one.at_s >= warm_up_s(run.length_s)]
    if len(warm) < 3 or not run.answers:
        return [*found, "too little was measured"]
    for process in warm[0].rss_mib:
        found += _grown(process, warm, limits)
    first_s, last_s = p99_of_parts(run)
    if last_s > limits.p99 * first_s + limits.p99_noise_s:
        found.append(f"p99 was {1000 * first_s:.0f} ms and is {1000 * last_s:.0f} ms")
    return found


def _grown(process: str, warm: Sequence[Sample], limits: Limits) -> Iterator[str]:
    slope = slope_mib_per_h(process, warm)
    growth = slope * (warm[-1].at_s - warm[0].at_s) / 3600
    if slope > limits.slope_mib_per_h and growth > limits.growth_mib:
        yield f"{process} grow by {slope:.1f} MiB an hour"
    fds = [sample.fds[process] for sample in warm]
    third = len(fds) // 3
    before, after = max(fds[:third]), max(fds[-third:])
    if after > before + limits.fds:
        yield f"{process} had {before} files open and have {after}"


def slope_mib_per_h(process: str, samples: Sequence[Sample]) -> float:
    hours = [sample.at_s / 3600 for sample in samples]
    sizes = [sample.rss_mib[process] for sample in samples]
    return statistics.linear_regression(hours, sizes).slope


def p99_of_parts(
    run: Run, measured: Callable[[Answer], float] = attrgetter("took_s")
) -> tuple[float, float]:
    """
    Return the p99 of what is measured of the calm answers, in the first third after the
    warm-up and in the last.
    """
    begin = warm_up_s(run.length_s)
    third = (run.length_s - begin) / 3
    answers = calm(run.answers, run.faults)
    first = [measured(one) for one in answers if 0 <= one.asked_s - begin < third]
    last = [measured(one) for one in answers if one.asked_s >= run.length_s - third]
    return p99(first), p99(last)


def calm(answers: Sequence[Answer], faults: Sequence[Fault]) -> list[Answer]:
    """Return the answers that were asked for and came while no fault was felt."""
    ordered = sorted(faults, key=attrgetter("from_s"))
    begins = [fault.from_s for fault in ordered]
    ends = list(accumulate((fault.until_s for fault in ordered), max, initial=-1.0))
    return [
        one
        for one in answers
        if ends[bisect_right(begins, one.asked_s + one.took_s)] < one.asked_s
    ]


def p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else 0.0


def warm_samples(run: Run) -> list[Sample]:
    return [one for one in run.samples if one.at_s >= warm_up_s(run.length_s)]


def warm_up_s(length_s: float) -> float:
    return min(600.0, length_s / 4)


# The run


class Soak:
    """One run; inside it, `run` does everything."""

    def __init__(self, minutes: float, rate: float, folder: Path) -> None:
        self._length_s = 60 * minutes
        self._rate = rate
        self._folder = folder
        self._began = time.monotonic()
        self._asked: dict[str, tuple[float, float]] = {}
        self._answers: dict[str, Answer] = {}
        self._seen = 0
        self._samples: list[Sample] = []
        self._faults: list[Fault] = []
        self._random = random.Random(1)  # noqa: S311 (which fault comes next)

    async def run(self) -> Run:
        with RedisServer(self._folder / "redis") as server:
            async with Platform() as platform, Fleet(self._folder / "fleet") as fleet:
                settings = Settings(
                    url=server.url,
                    platform=str(platform.path),
                    workers={"lease_s": LEASE_S, "attempts": 1000},
                    answer_s=ANSWER_S,
                )
                customers = Customers(platform)
                await self._all(customers, platform, fleet, settings)
                self._read(platform)
        return Run(
            length_s=self._length_s,
            samples=self._samples,
            answers=list(self._answers.values()),
            faults=self._faults,
            tally=customers.tally(),
        )

    async def _all(
        self,
        customers: Customers,
        platform: Platform,
        fleet: Fleet,
        settings: Settings,
    ) -> None:
        kinds: Sequence[Role] = ("connectors", "workers")
        steady = [
            await fleet.start(replace(settings, roles=[kind]), f"steady {kind}")
            for kind in kinds
        ]
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            beside = [
                *(
                    tasks.create_task(
                        fleet.keep(1, partial(replace, settings, roles=[kind]))
                    )
                    for kind in kinds
                ),
                tasks.create_task(self._sample(steady, platform)),
                tasks.create_task(self._break(fleet, steady, platform)),
                tasks.create_task(self._tell(platform)),
            ]
            await self._ask(customers)
            # What is missing after that is what the tally finds lost.
            with contextlib.suppress(AssertionError):
                await customers.answered(LAST_ANSWERS_S)
            for task in beside:
                task.cancel()

    def _now_s(self) -> float:
        return time.monotonic() - self._began

    def _is_over(self) -> bool:
        return self._now_s() >= self._length_s

    # Customers

    async def _ask(self, customers: Customers) -> None:
        """Ask at an even pace, whether or not the answers come."""
        free = deque(customers.new() for _ in range(CONVERSATIONS))

        async def ask(conversation: Conversation, due_s: float) -> None:
            text, now_s = conversation.next_event({}).text, self._now_s()
            self._asked[text] = (now_s, now_s - due_s)
            await customers.ask(conversation)
            free.append(conversation)

        async with asyncio.TaskGroup() as tasks:
            for number in count():
                due_s = number / self._rate
                await asyncio.sleep(max(0.0, due_s - self._now_s()))
                if self._is_over():
                    break
                conversation = free.popleft() if free else customers.new()
                tasks.create_task(ask(conversation, due_s))

    def _read(self, platform: Platform) -> None:
        """Take the answers that have arrived since this was last done."""
        new = platform.arrived[self._seen :]
        self._seen += len(new)
        for arrived in new:
            proven = proof(arrived.text)
            if proven is None:  # the apology for a command that a fault cut short
                continue
            question = proven.question
            asked_s, late_s = self._asked[question]
            took_s = arrived.at - self._began - asked_s
            answer = Answer(asked_s=asked_s, took_s=took_s, late_s=late_s)
            self._answers.setdefault(question, answer)

    # Faults

    async def _break(
        self, fleet: Fleet, steady: Sequence[Child], platform: Platform
    ) -> None:
        kinds = ["kill connectors", "kill workers", "stop workers", "platform error"]
        for number in count(1):
            next_s = number / (self._rate * FAULTS)
            await asyncio.sleep(max(0.0, next_s - self._now_s()))
            kind = self._random.choice(kinds)
            if kind == "platform error":
                platform.treatments.append(self._random.choice(ERRORS))
                self._note(kind, AFTERWARDS_S)
                continue
            role = kind.partition(" ")[2]
            for child in fleet.alive:
                if child in steady or list(child.settings.roles) != [role]:
                    continue
                if kind == "stop workers":
                    self._note(kind, 2 * LEASE_S + AFTERWARDS_S)
                    child.pause()
                    await asyncio.sleep(2 * LEASE_S)
                    child.resume()
                else:
                    self._note(kind, LEASE_S + AFTERWARDS_S)
                    child.kill()

    def _note(self, kind: str, felt_s: float) -> None:
        now = self._now_s()
        self._faults.append(Fault(kind=kind, from_s=now, until_s=now + felt_s))

    # Measuring

    async def _sample(self, steady: Sequence[Child], platform: Platform) -> None:
        every_s = min(SAMPLE_S, self._length_s / 20)
        for number in count(1):
            await asyncio.sleep(max(0.0, number * every_s - self._now_s()))
            lags = {child.name: await _lag_s(child) for child in steady}
            sample = Sample(
                at_s=self._now_s(),
                rss_mib={child.name: child.rss_mib() for child in steady},
                fds={child.name: _open_files(child) for child in steady},
                lag_s=lags,
            )
            self._samples.append(sample)
            self._read(platform)

    async def _tell(self, platform: Platform) -> None:
        for minute in count(1):
            await asyncio.sleep(max(0.0, 60 * minute - self._now_s()))
            self._read(platform)
            tell(self._minute(minute))
            # All that was said is kept to the end: who looks through it for garbage
            # again and again is late for what arrives meanwhile.
            gc.freeze()

    def _minute(self, minute: int) -> str:
        since_s = 60 * (minute - 1)
        answers = [one for one in self._answers.values() if one.asked_s >= since_s]
        samples = [one for one in self._samples if one.at_s >= since_s]
        faults = Counter(one.kind for one in self._faults if one.from_s >= since_s)
        return line(f"minute {minute}", answers, samples, faults, self._faults)


def _open_files(child: Child) -> int:
    return len(list(Path(f"/proc/{child.pid}/fd").iterdir()))


async def _lag_s(child: Child) -> float:
    """Return how long its event loop lets a question wait."""
    began = time.perf_counter()
    await child.reading("chorus_store_failures_total")
    return time.perf_counter() - began


def line(
    name: str,
    answers: Sequence[Answer],
    samples: Sequence[Sample],
    kinds: Mapping[str, int],
    faults: Sequence[Fault],
) -> str:
    """Return the figures of some part of a run."""
    all_ms = 1000 * p99([one.took_s for one in answers])
    calm_ms = 1000 * p99([one.took_s for one in calm(answers, faults)])
    told = [
        f"{name}: {len(answers)} answers, p99 {all_ms:.0f} ms, calm {calm_ms:.0f} ms"
    ]
    if samples:
        last = samples[-1]
        told += [
            f"{process}: {last.rss_mib[process]:.1f} MiB, {last.fds[process]} files, "
            f"lag up to {1000 * max(one.lag_s[process] for one in samples):.0f} ms"
            for process in last.rss_mib
        ]
    told.append(", ".join(f"{number} x {kind}" for kind, number in kinds.items()))
    return "; ".join(told)


def verdict(run: Run, limits: Limits) -> tuple[str, Sequence[str]]:
    """Return the figures of the whole run, and what is wrong."""
    kinds = Counter(fault.kind for fault in run.faults)
    first_s, last_s = p99_of_parts(run)
    first_late_s, last_late_s = p99_of_parts(run, attrgetter("late_s"))
    warm = warm_samples(run)
    slopes = [
        f"{process} {slope_mib_per_h(process, warm):+.1f} MiB an hour"
        for process in (warm[0].rss_mib if len(warm) >= LEAST else ())
    ]
    late = f"{1000 * first_late_s:.0f} ms, {1000 * last_late_s:.0f} ms"
    told = [
        line("whole run", run.answers, run.samples, kinds, run.faults),
        *slopes,
        f"calm p99 first {1000 * first_s:.0f} ms, last {1000 * last_s:.0f} ms",
        f"the machine itself was late (p99) by {late}",
        str(run.tally),
    ]
    return "; ".join(told), violations(run, limits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chorus-soak-") as folder:
        soak = Soak(arguments.minutes, arguments.rate, Path(folder))
        told, wrong = verdict(asyncio.run(soak.run()), Limits())
    tell(told)
    tell("\n".join(["violated:", *wrong]) if wrong else "all of it holds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
