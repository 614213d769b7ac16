"""Makes the turn that asks one question, as if a customer had just begun to write."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

from bot.model import Address, Event, Turn


def asking(question_id: str, question: str) -> Turn:
    """The seed follows from the id, so a second run draws the same candidates."""
    address = Address(platform="evaluation", account="eval", chat=question_id)
    # No answer may depend on when it was measured.
    message = Event(
        id=question_id,
        kind="message",
        address=address,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        text=question,
    )
    return Turn(
        id=question_id, message=message, seed=zlib.crc32(question_id.encode("utf-8"))
    )
