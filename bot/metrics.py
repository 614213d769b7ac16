"""
The line per turn, and the sinks that count and time.

Message text never appears here: ids, numbers and reasons only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bot.interfaces import MetricsSink
from bot.model import Record

logger = logging.getLogger("chorus.turn")


def turn_over(record: Record, sinks: Sequence[MetricsSink]) -> None:
    """Write the canonical line of a finished turn and tell every sink."""
    logger.info("turn", extra=_fields(record))
    for sink in sinks:
        try:
            sink.turn_over(record)
        except Exception:
            # A stranger's code: a failing sink must not cost the customer the answer.
            logger.exception("metrics sink %r failed", sink.name)


def _fields(record: Record) -> dict[str, object]:
    dropped = sum(candidate.dropped is not None for candidate in record.candidates)
    return {
        "turn": record.turn.id,
        "conversation": record.turn.message.address.key,
        "outcome": record.outcome,
        "passages": len(record.turn.passages),
        "candidates": len(record.candidates),
        "dropped": dropped,
        "chosen": record.chosen,
        "why": record.why,
        "problems": len(record.problems),
        "config": record.config,
        **{f"ms_{stage}": round(ms, 1) for stage, ms in record.ms.items()},
    }
