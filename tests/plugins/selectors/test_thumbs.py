"""Thumbs by arm: what is counted, and that the selector reads what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bot.conversation.state import Judged
from bot.evaluation.thumbs import arm_counts
from plugins.selectors.thompson import Thumbs, read_thumbs

JUDGED = Judged(
    turn="t1",
    digest="0123456789ab",
    platform="slack",
    time=datetime(2026, 1, 1, tzinfo=UTC),
    good=1,
    bad=0,
    candidate=0,
    origin="model",
    recorded=True,
)


def test_thumbs_are_added_up_by_who_wrote_the_reply() -> None:
    judgements = [
        JUDGED,
        replace(JUDGED, turn="t2", good=2, bad=3),
        replace(JUDGED, turn="t3", origin="quotation", good=0, bad=1),
    ]

    assert arm_counts(judgements) == {
        "arms": {"model": {"up": 3, "down": 3}, "quotation": {"up": 0, "down": 1}}
    }


def test_a_variant_that_is_known_is_an_arm_of_its_own() -> None:
    judgements = [JUDGED, replace(JUDGED, turn="t2", good=0, bad=1)]

    found = arm_counts(judgements, {"t2": "brief"})

    assert found == {
        "arms": {"model": {"up": 1, "down": 0}, "model: brief": {"up": 0, "down": 1}}
    }


def test_a_reply_that_no_candidate_was_belongs_to_no_arm() -> None:
    assert arm_counts([replace(JUDGED, origin="", candidate=None)]) == {"arms": {}}
    assert arm_counts([]) == {"arms": {}}


def test_the_selector_reads_what_is_written(tmp_path: Path) -> None:
    written = tmp_path / "arms.json"

    written.write_text(json.dumps(arm_counts([JUDGED])))

    assert read_thumbs(written) == {"model": Thumbs(up=1)}
