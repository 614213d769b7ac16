"""What is counted and timed, and what the line per turn says and does not say."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, get_args

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot import metrics
from bot.interfaces import Accepted
from bot.metrics import Backlog, Delivery, Leased, reading
from bot.model import Outcome, Record, Reply
from bot.testing.makers import a_candidate, a_turn, an_address, an_event

WORDS = "my IBAN is DE02 1203 0000 0000 2020 51"
PERSON = "U0PERSON"

BACKLOG = Backlog(
    platform="slack",
    lanes=2,
    waiting=5,
    oldest_waiting_s=61.5,
    addresses=1,
    undelivered=3,
    oldest_undelivered_s=7,
)


def a_record(**more: Any) -> Record:
    address = an_address(PERSON, platform="slack", user=PERSON)
    made: dict[str, Any] = {
        "turn": a_turn(message=an_event(WORDS, id=PERSON, address=address)),
        "outcome": "answered",
        "reply": Reply(text=WORDS),
        "why": f"ValueError: {WORDS}",
        "config": "abc123",
        "candidates": (a_candidate(WORDS), a_candidate(dropped=WORDS)),
        "chosen": 0,
        "problems": (WORDS,),
        "ms": {"retrieve": 4.0, "generate": 2500.0, "rank": 35.54, "total": 2540.0},
    }
    return Record(**(made | more))


def samples(exposition: bytes) -> dict[str, float]:
    """Read the text as Prometheus does: `name{label=value,label=value}` to number."""
    return {
        _name(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


def _name(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    pairs = ",".join(f"{label}={value}" for label, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}"


def test_the_line_of_a_turn_has_its_numbers_and_the_digest_of_its_conversation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "chorus.turn")
    record = a_record()

    metrics.turn_over(record)

    (line,) = caplog.records
    fields = vars(line)
    assert line.getMessage() == "turn"
    assert fields["conversation"] == record.turn.message.address.digest
    assert fields["turn"] == "t1"
    assert fields["outcome"] == "answered"
    assert (fields["candidates"], fields["dropped"], fields["chosen"]) == (2, 1, 0)
    assert (fields["why"], fields["problems"]) == ("ValueError", 1)
    assert fields["ms_rank"] == 35.5


def test_the_line_of_a_turn_holds_neither_a_person_nor_a_word_of_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "chorus.turn")

    metrics.turn_over(a_record())

    (line,) = caplog.records
    assert WORDS not in str(vars(line))
    assert PERSON not in str(vars(line))


def test_no_metric_holds_a_person_or_a_word_of_the_message() -> None:
    metrics.turn_over(a_record())

    text = metrics.exposition([BACKLOG], 0).decode()

    assert WORDS not in text
    assert PERSON not in text


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_a_turn_is_counted_by_platform_and_outcome(outcome: Outcome) -> None:
    def turns() -> float:
        return reading("chorus_turns_total", platform="slack", outcome=outcome)

    before = turns()

    metrics.turn_over(a_record(outcome=outcome))

    assert turns() == before + 1


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [("retrieve", 0.004), ("generate", 2.5), ("rank", 0.03554), ("total", 2.54)],
)
def test_every_stage_of_a_turn_is_timed_in_seconds(stage: str, seconds: float) -> None:
    sum_before = reading("chorus_turn_seconds_sum", stage=stage)
    count_before = reading("chorus_turn_seconds_count", stage=stage)

    metrics.turn_over(a_record())

    spent = reading("chorus_turn_seconds_sum", stage=stage) - sum_before
    assert spent == pytest.approx(seconds)
    assert reading("chorus_turn_seconds_count", stage=stage) == count_before + 1


def test_a_stage_that_a_turn_did_not_reach_is_not_timed() -> None:
    before = reading("chorus_turn_seconds_count", stage="generate")

    metrics.turn_over(a_record(outcome="direct", ms={"total": 1.0}))

    assert reading("chorus_turn_seconds_count", stage="generate") == before


@pytest.mark.parametrize("answer", get_args(Accepted))
def test_an_event_is_counted_by_platform_and_answer(answer: Accepted) -> None:
    def events() -> float:
        return reading("chorus_events_total", platform="slack", answer=answer)

    before = events()

    metrics.accepted("slack", answer)

    assert events() == before + 1


@pytest.mark.parametrize("outcome", get_args(Delivery))
def test_a_delivery_is_counted_by_platform_and_outcome(outcome: Delivery) -> None:
    def deliveries() -> float:
        return reading("chorus_deliveries_total", platform="slack", outcome=outcome)

    before = deliveries()

    metrics.delivered("slack", outcome)

    assert deliveries() == before + 1


@pytest.mark.parametrize("of", get_args(Leased))
def test_a_lost_lease_is_counted_by_what_was_lost(of: Leased) -> None:
    before = reading("chorus_lease_losses_total", of=of)

    metrics.lease_lost(of)

    assert reading("chorus_lease_losses_total", of=of) == before + 1


def test_a_message_set_aside_is_counted_by_platform() -> None:
    before = reading("chorus_dead_lettered_total", platform="slack")

    metrics.set_aside("slack")

    assert reading("chorus_dead_lettered_total", platform="slack") == before + 1


def test_a_store_that_does_not_answer_is_counted() -> None:
    before = reading("chorus_store_failures_total")

    metrics.store_failed()

    assert reading("chorus_store_failures_total") == before + 1


def test_a_wait_falls_into_the_bucket_of_its_length() -> None:
    def waits(upper: str) -> float:
        return reading("chorus_wait_seconds_bucket", le=upper)

    before = waits("2.5"), waits("5.0")

    metrics.waited(3)

    assert (waits("2.5"), waits("5.0")) == (before[0], before[1] + 1)


def test_what_waits_is_shown_by_platform() -> None:
    shown = samples(metrics.exposition([BACKLOG], 4))

    expected = {
        "chorus_lanes{platform=slack}": 2,
        "chorus_waiting_messages{platform=slack}": 5,
        "chorus_oldest_waiting_seconds{platform=slack}": 61.5,
        "chorus_outbox_addresses{platform=slack}": 1,
        "chorus_outbox_replies{platform=slack}": 3,
        "chorus_outbox_oldest_seconds{platform=slack}": 7,
        "chorus_dead_letters": 4,
        "chorus_redis_up": 1,
    }
    assert expected.items() <= shown.items()


def test_one_scrape_does_not_show_what_an_earlier_one_found() -> None:
    metrics.exposition([BACKLOG], 4)

    shown = samples(metrics.exposition([], 0))

    assert "chorus_waiting_messages{platform=slack}" not in shown
    assert shown["chorus_dead_letters"] == 0


def test_without_redis_its_gauges_are_left_out_and_the_rest_is_shown() -> None:
    metrics.accepted("slack", "accepted")

    shown = samples(metrics.exposition(None, None))

    assert shown["chorus_redis_up"] == 0
    assert "chorus_dead_letters" not in shown
    assert not any(name.startswith(("chorus_lanes", "chorus_outbox")) for name in shown)
    assert shown["chorus_events_total{answer=accepted,platform=slack}"] >= 1
    assert shown["process_resident_memory_bytes"] > 0


def test_the_first_lost_lease_is_a_step_from_zero() -> None:
    shown = samples(metrics.exposition(None, None))

    assert {f"chorus_lease_losses_total{{of={of}}}" for of in get_args(Leased)} <= {
        *shown
    }


def test_a_platform_with_a_strange_name_cannot_break_the_text() -> None:
    name = 'a"b\\c\nd'

    metrics.set_aside(name)

    shown = samples(metrics.exposition(None, None))
    assert shown[f"chorus_dead_lettered_total{{platform={name}}}"] >= 1


def test_what_others_count_in_this_process_is_not_shown() -> None:
    prometheus_client.Counter("of_a_library", "…", ["user"]).labels(PERSON).inc()

    text = metrics.exposition(None, None).decode()

    assert "of_a_library" not in text


def test_every_metric_says_what_it_means_and_is_written_once() -> None:
    text = metrics.exposition([BACKLOG], 4).decode()

    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    assert len({family.name for family in families}) == len(families)
    assert "_created" not in text
