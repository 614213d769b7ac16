"""
What the arms of an experiment came to: turns, thumbs, and how certain a difference is.

A conversation, not a turn, is what was given an arm, and one person's thumbs in it are
not independent of each other. So each conversation counts once, with its share of
thumbs up. A share lies between 0 and 1, and nothing that does has more variance than a
coin of the same mean, so intervals for coins hold for means of shares; they are a
little wide where a conversation has many thumbs.

The interval of a share is Wilson's, that of a difference Newcombe's hybrid of the two
(method 10). Both are right near 0 and 1, where most shares of thumbs are, and need no
resampling, which says nothing about an arm in which everybody was content.

Wilson, Probable inference, JASA 22 (1927). Newcombe, Interval estimation for the
difference between independent proportions, Statistics in Medicine 17 (1998).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from pydantic import JsonValue

from bot.config import BASE
from bot.conversation.state import Judged
from bot.evaluation.metrics import Interval, mean
from bot.evaluation.replay import says_the_same
from bot.model import Record

Z = 1.959964  # of 95 % of a normal distribution
POWER_Z = 0.841621  # of 80 %, the chance to see a difference that is there
WORTH_SEEING = 0.1  # a difference of ten points
LEAST_JUDGED = 10  # conversations, below which a share says nothing yet

Word = Literal["better", "worse", "too little to tell"]


@dataclass(slots=True)
class Tally:
    """What is counted of one arm, record after record."""

    conversations: set[str] = field(default_factory=set)
    configs: set[str] = field(default_factory=set)
    outcomes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    ms: list[float] = field(default_factory=list)
    differs: list[float] = field(default_factory=list)
    thumbs: defaultdict[str, list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0, 0])
    )

    def count(self, record: Record) -> None:
        self.conversations.add(record.turn.message.address.key)
        self.configs.add(record.config)
        self.outcomes[record.outcome] += 1
        if "total" in record.ms:
            self.ms.append(record.ms["total"])

    def judge(self, judged: Judged) -> None:
        good_bad = self.thumbs[judged.digest]
        good_bad[0] += judged.good
        good_bad[1] += judged.bad

    @property
    def turns(self) -> int:
        return sum(self.outcomes.values())

    def shares(self) -> list[float]:
        """Return each judged conversation's share of thumbs up."""
        return [good / (good + bad) for good, bad in self.thumbs.values() if good + bad]


class Tallies:
    """What is counted of one experiment, by arm."""

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self.by_arm: defaultdict[str, Tally] = defaultdict(Tally)

    def count(self, record: Record, shadow: Record | None = None) -> None:
        """Count a turn, and what its arm would have said in its shadow."""
        tally = self._of(record.arm)
        if tally is None:
            return
        tally.count(record)
        behind = None if shadow is None else self._of(shadow.arm)
        if shadow is not None and behind is not None:
            behind.count(shadow)
            behind.differs.append(float(not says_the_same(record, shadow)))

    def judge(self, judged: Judged) -> None:
        tally = self._of(judged.arm)
        if tally is not None:
            tally.judge(judged)

    def _of(self, label: str) -> Tally | None:
        """Return the arm's; None where another experiment, or none, was running."""
        experiment, _, arm = label.partition("/")
        return self.by_arm[arm] if arm and experiment == self._experiment else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much better than the base, with its interval, and what it says."""

    value: float
    interval: Interval
    word: Word
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """
    One arm's figures. `judged` are its conversations with thumbs, `share` the mean of
    their shares of thumbs up; None where there are none. `configurations` are those
    that answered: more than one says that the arm was changed on the way. `differs` is,
    in the shadow, the share of replies that are not what was said.
    """

    arm: str
    conversations: int
    turns: int
    up: int
    down: int
    judged: int
    share: float | None
    interval: Interval | None
    difference: Difference | None
    declined: float | None
    failed: float | None
    ms: float | None
    differs: float | None
    configurations: int

    def as_json(self) -> dict[str, JsonValue]:
        told = self.difference
        return {
            "arm": self.arm,
            "conversations": self.conversations,
            "turns": self.turns,
            "up": self.up,
            "down": self.down,
            "judged": self.judged,
            "share": self.share,
            "interval": None if self.interval is None else list(self.interval),
            "difference": None
            if told is None
            else {
                "value": told.value,
                "interval": list(told.interval),
                "word": told.word,
                "why": told.why,
            },
            "declined": self.declined,
            "failed": self.failed,
            "ms": self.ms,
            "differs": self.differs,
            "configurations": self.configurations,
        }


def figures(
    arms: Sequence[str], tallies: Mapping[str, Tally], *, compare: bool = True
) -> list[ArmFigures]:
    """
    Return each arm's figures, in the order of `arms`, the base among them. Without
    `compare` nobody read the arms' answers, so no difference is told.
    """
    empty = Tally()
    base = tallies.get(BASE, empty).shares()
    return [
        _figures(
            arm,
            tallies.get(arm, empty),
            None if arm == BASE or not compare else base,
        )
        for arm in arms
    ]


def _figures(arm: str, tally: Tally, base: Sequence[float] | None) -> ArmFigures:
    shares = tally.shares()
    good, bad = (sum(each[place] for each in tally.thumbs.values()) for place in (0, 1))
    turns = tally.turns
    return ArmFigures(
        arm=arm,
        conversations=len(tally.conversations),
        turns=turns,
        up=good,
        down=bad,
        judged=len(shares),
        share=mean(shares) if shares else None,
        interval=wilson(mean(shares), len(shares)) if shares else None,
        difference=None if base is None else difference(shares, base),
        declined=tally.outcomes["declined"] / turns if turns else None,
        failed=tally.outcomes["failed"] / turns if turns else None,
        ms=median(tally.ms) if tally.ms else None,
        differs=mean(tally.differs) if tally.differs else None,
        configurations=len(tally.configs),
    )


def difference(arm: Sequence[float], base: Sequence[float]) -> Difference | None:
    """Compare two arms' shares of thumbs up, one number for each conversation."""
    if not arm or not base:
        return None
    ours, theirs = mean(arm), mean(base)
    interval = newcombe((ours, len(arm)), (theirs, len(base)))
    word, why = _told(arm, base, interval)
    return Difference(value=ours - theirs, interval=interval, word=word, why=why)


def _told(
    arm: Sequence[float], base: Sequence[float], interval: Interval
) -> tuple[Word, str]:
    fewest = min(len(arm), len(base))
    pooled = mean([*arm, *base])
    if fewest < LEAST_JUDGED:
        few = f"an arm has {fewest} judged conversations, fewer than {LEAST_JUDGED}"
        return "too little to tell", f"{few}; {_wanted(pooled)}"
    low, high = interval
    if low > 0:
        return "better", "the interval of the difference lies above 0"
    if high < 0:
        return "worse", "the interval of the difference lies below 0"
    includes = "the interval of the difference includes 0"
    return "too little to tell", f"{includes}; {_wanted(pooled)}"


def _wanted(share: float) -> str:
    return (
        f"to see a difference of {100 * WORTH_SEEING:.0f} points, about "
        f"{conversations_needed(share)} judged conversations in each arm are needed"
    )


def conversations_needed(share: float) -> int:
    """
    Return how many judged conversations each arm needs for an 80 % chance that a
    difference of ten points shows: n = (z + z')² · 2 p (1 - p) / d².
    """
    # Close to 0 and 1 the formula asks for hardly any; a share is never so certain.
    likely = min(max(share, WORTH_SEEING), 1 - WORTH_SEEING)
    variance = 2 * likely * (1 - likely)
    return math.ceil((Z + POWER_Z) ** 2 * variance / WORTH_SEEING**2)


def wilson(share: float, n: int) -> Interval:
    """Return the 95 % interval of a share of `n`; (0, 1) where there are none."""
    if n == 0:
        return (0.0, 1.0)
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    spread = math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    spread *= Z
    # What rounding leaves of a border beyond it is cut off.
    return (max(0.0, centre - spread), min(1.0, centre + spread))


def newcombe(ours: tuple[float, int], theirs: tuple[float, int]) -> Interval:
    """Return the 95 % interval of a difference of two shares, each with its `n`."""
    (p1, _), (p2, _) = ours, theirs
    (l1, u1), (l2, u2) = wilson(*ours), wilson(*theirs)
    low = p1 - p2 - math.hypot(p1 - l1, u2 - p2)
    high = p1 - p2 + math.hypot(u1 - p1, p2 - l2)
    return (max(-1.0, low), min(1.0, high))
