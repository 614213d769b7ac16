"""
What is counted and timed, and the canonical line per turn.

Callers say what happened; only this module knows Prometheus. Counts are of this
process; what waits in Redis is asked for at every scrape and handed to `exposition`.
Message text and ids of people never appear here: labels are platforms, stages and
outcomes, and the line names a conversation by its digest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bot.errors import ActionFault
from bot.interfaces import Accepted
from bot.model import Record

Leased = Literal["lane", "outbox"]
Delivery = Literal["ok", "rejected", "later", "unknown"]
SetOutcome = Literal["written", "cancelled", "failed", "refused"]
ActionOutcome = ActionFault | Literal["done", "cancelled"]

UNKNOWN_ACTION = "unknown"

# What generate_latest writes; servers that know only this version read it too.
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

logger = logging.getLogger("chorus.turn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """
    What waits in Redis for one platform: messages in lanes, replies in outboxes.
    `addresses` are the outboxes that hold something; ages are in seconds, 0 for none.
    """

    platform: str
    lanes: int
    waiting: int
    oldest_waiting_s: float
    addresses: int
    undelivered: int
    oldest_undelivered_s: float


def accepted(platform: str, answer: Accepted) -> None:
    """Count what a connector handed in, by what it was answered."""
    _EVENTS.labels(platform, answer).inc()


def waited(seconds: float) -> None:
    """Time a message from its acceptance to the beginning of its turn."""
    _WAIT.observe(seconds)


def turn_over(record: Record) -> None:
    """Write the canonical line of a finished turn, count it and keep its times."""
    logger.info("turn", extra=_fields(record))
    _TURNS.labels(record.turn.message.address.platform, record.outcome).inc()
    if record.arm:
        _ARM_TURNS.labels(record.arm, record.outcome).inc()
    for stage, ms in record.ms.items():
        _TURN.labels(stage).observe(ms / 1000)


def shadows_left_out(turns: int) -> None:
    """Count turns that no arm answered in the shadow, because too many waited."""
    _SHADOWS_LEFT_OUT.inc(turns)


def lease_lost(of: Leased) -> None:
    """Count a lane or an outbox that this process had and another one took."""
    _LEASE_LOSSES.labels(of).inc()


def set_aside(platform: str) -> None:
    """Count a message that failed too often and became a dead letter."""
    _DEAD_LETTERED.labels(platform).inc()


def delivered(platform: str, outcome: Delivery) -> None:
    """Count one attempt to send a reply, by what became of it."""
    _DELIVERIES.labels(platform, outcome).inc()


def set_over(outcome: SetOutcome) -> None:
    """Count a candidate set by what became of it."""
    _SETS.labels(outcome).inc()


def action_over(action: str, outcome: ActionOutcome, seconds: float) -> None:
    """
    Count and time a run of an action. `action` has to be one that somebody has; beyond
    so many names, which only a server makes up, they are one.
    """
    if action not in _ACTIONS_COUNTED:
        if len(_ACTIONS_COUNTED) >= _MOST_ACTIONS:
            action = UNKNOWN_ACTION
        _ACTIONS_COUNTED.add(action)
    _ACTIONS.labels(action, outcome).inc()
    _ACTION_SECONDS.labels(action).observe(seconds)


def first_token(seconds: float) -> None:
    """Time a candidate set from when it was asked for to its first tokens."""
    _FIRST_TOKEN.observe(seconds)


def tokens_drawn(count: int) -> None:
    """Count the tokens of one step, of all rows of all sets."""
    _TOKENS.inc(count)
    _BATCH.observe(count)


def prompt(*, found: int, read: int) -> None:
    """Count a prompt's tokens, those that were kept from before and those to read."""
    _PROMPT_TOKENS.labels("found").inc(found)
    _PROMPT_TOKENS.labels("read").inc(read)


def engine(*, waiting: int, kv_tokens: int) -> None:
    """Say what the generator has in line and in memory at the moment."""
    _QUEUE.set(waiting)
    _KV_TOKENS.set(kv_tokens)


def store_failed() -> None:
    """Count a time that Redis did not answer."""
    _STORE_FAILURES.inc()


def exposition(backlogs: Sequence[Backlog] | None, dead_letters: int | None) -> bytes:
    """Return what Prometheus reads; None stands for a Redis that did not answer."""
    return generate_latest(_REGISTRY) + generate_latest(_Stored(backlogs, dead_letters))


def reading(sample: str, **labels: str) -> float:
    """Return one number of this process as it stands, 0 before the first count."""
    return _REGISTRY.get_sample_value(sample, labels) or 0.0


def _fields(record: Record) -> dict[str, object]:
    dropped = sum(candidate.dropped is not None for candidate in record.candidates)
    return {
        "turn": record.turn.id,
        "conversation": record.turn.message.address.digest,
        "outcome": record.outcome,
        "passages": len(record.turn.passages),
        "candidates": len(record.candidates),
        "dropped": dropped,
        "chosen": record.chosen,
        # What an exception says may quote a message; its class does not.
        "why": record.why.partition(":")[0],
        "problems": len(record.problems),
        "config": record.config,
        **({"arm": record.arm} if record.arm else {}),
        **{f"ms_{stage}": round(ms, 1) for stage, ms in record.ms.items()},
    }


class _Stored(Collector):
    """The gauges of one scrape: they live in Redis, not in this process."""

    def __init__(
        self, backlogs: Sequence[Backlog] | None, dead_letters: int | None
    ) -> None:
        self._backlogs = backlogs
        self._dead_letters = dead_letters

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = self._backlogs is not None and self._dead_letters is not None
        yield GaugeMetricFamily(
            "chorus_redis_up", "1 when Redis answered this scrape, else 0.", value=up
        )
        if self._backlogs is not None:
            for name, meaning, number in _GAUGES:
                gauge = GaugeMetricFamily(name, meaning, labels=["platform"])
                for backlog in self._backlogs:
                    gauge.add_metric([backlog.platform], number(backlog))
                yield gauge
        if self._dead_letters is not None:
            yield GaugeMetricFamily(
                "chorus_dead_letters",
                "Messages set aside that nobody has retried yet.",
                value=self._dead_letters,
            )


_GAUGES: Sequence[tuple[str, str, Callable[[Backlog], float]]] = (
    (
        "chorus_lanes",
        "Conversations with a message that waits or is being answered.",
        lambda backlog: backlog.lanes,
    ),
    (
        "chorus_waiting_messages",
        "Accepted messages that are not answered yet.",
        lambda backlog: backlog.waiting,
    ),
    (
        "chorus_oldest_waiting_seconds",
        "Age of the oldest message that is not answered yet.",
        lambda backlog: backlog.oldest_waiting_s,
    ),
    (
        "chorus_outbox_addresses",
        "Addresses with a reply that is not delivered yet.",
        lambda backlog: backlog.addresses,
    ),
    (
        "chorus_outbox_replies",
        "Committed replies that are not delivered yet.",
        lambda backlog: backlog.undelivered,
    ),
    (
        "chorus_outbox_oldest_seconds",
        "Age of the oldest reply that is not delivered yet.",
        lambda backlog: backlog.oldest_undelivered_s,
    ),
)

# Without this every counter gets a second series with the time of its first count.
disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs has no types

# Of our own: a library that counts in prometheus_client's registry must not get a
# customer's id into our output.
_REGISTRY = CollectorRegistry()
ProcessCollector(registry=_REGISTRY)

# Seconds: a direct answer takes milliseconds, a long one on a CPU a minute or two.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)

_EVENTS = Counter(
    "chorus_events_total",
    "Events that connectors handed in, by answer.",
    ["platform", "answer"],
    registry=_REGISTRY,
)
_WAIT = Histogram(
    "chorus_wait_seconds",
    "Time from a message's acceptance to the beginning of its turn.",
    buckets=_BUCKETS,
    registry=_REGISTRY,
)
_TURNS = Counter(
    "chorus_turns_total",
    "Turns that are over, by outcome.",
    ["platform", "outcome"],
    registry=_REGISTRY,
)
_ARM_TURNS = Counter(
    "chorus_arm_turns_total",
    "Turns of an experiment that are over, by arm and outcome.",
    ["arm", "outcome"],
    registry=_REGISTRY,
)
_SHADOWS_LEFT_OUT = Counter(
    "chorus_shadows_left_out_total",
    "Turns that no arm answered in the shadow, because too many waited.",
    registry=_REGISTRY,
)
_TURN = Histogram(
    "chorus_turn_seconds",
    "Time of turns, by stage.",
    ["stage"],
    buckets=_BUCKETS,
    registry=_REGISTRY,
)
_LEASE_LOSSES = Counter(
    "chorus_lease_losses_total",
    "Leases that this process lost while it worked.",
    ["of"],
    registry=_REGISTRY,
)
_DEAD_LETTERED = Counter(
    "chorus_dead_lettered_total",
    "Messages set aside because their turns failed too often.",
    ["platform"],
    registry=_REGISTRY,
)
_DELIVERIES = Counter(
    "chorus_deliveries_total",
    "Attempts to send a reply, by outcome.",
    ["platform", "outcome"],
    registry=_REGISTRY,
)
_STORE_FAILURES = Counter(
    "chorus_store_failures_total",
    "Times that Redis did not answer.",
    registry=_REGISTRY,
)
_SETS = Counter(
    "chorus_sets_total",
    "Candidate sets that are over, by outcome.",
    ["outcome"],
    registry=_REGISTRY,
)
_MOST_ACTIONS = 200
_ACTIONS_COUNTED: set[str] = set()
_ACTIONS = Counter(
    "chorus_actions_total",
    "Runs of actions, by outcome.",
    ["action", "outcome"],
    registry=_REGISTRY,
)
_ACTION_SECONDS = Histogram(
    "chorus_action_seconds",
    "Time of actions' runs.",
    ["action"],
    buckets=_BUCKETS,
    registry=_REGISTRY,
)
_TOKENS = Counter(
    "chorus_tokens_total", "Tokens drawn, of all candidates.", registry=_REGISTRY
)
_BATCH = Histogram(
    "chorus_batch_rows",
    "Candidates that one step of the generator drew a token for.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    registry=_REGISTRY,
)
_PROMPT_TOKENS = Counter(
    "chorus_prompt_tokens_total",
    "Tokens of prompts, found in memory or read.",
    ["how"],
    registry=_REGISTRY,
)
_QUEUE = Gauge("chorus_queue", "Jobs that wait for the generator.", registry=_REGISTRY)
_KV_TOKENS = Gauge(
    "chorus_kv_tokens",
    "Tokens whose keys and values the generator holds or has promised.",
    registry=_REGISTRY,
)
_FIRST_TOKEN = Histogram(
    "chorus_first_token_seconds",
    "Time from when a candidate set was asked for to its first tokens.",
    buckets=_BUCKETS,
    registry=_REGISTRY,
)

# The first loss must be a step from 0: a series that begins at 1 raises no alert.
for _leased in get_args(Leased):
    _LEASE_LOSSES.labels(_leased)
