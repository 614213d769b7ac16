"""
The canonical line per turn.

Message text never appears here: ids, numbers and reasons only.
"""

from __future__ import annotations

import logging

from bot.model import Record

logger = logging.getLogger("chorus.turn")


def turn_over(record: Record) -> None:
    """Write the canonical line of a finished turn."""
    logger.info("turn", extra=_fields(record))


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
        # What an exception says may quote a message; its class does not.
        "why": record.why.partition(":")[0],
        "problems": len(record.problems),
        "config": record.config,
        **{f"ms_{stage}": round(ms, 1) for stage, ms in record.ms.items()},
    }
