"""
What customers thought of the kinds of replies: thumbs by arm, as `thompson` reads them.

An arm of that selector is who wrote a reply, and with which prompt variant where one is
known: "quotation", "model", "model: brief". Knows nothing of files and stores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from bot.conversation.state import Judged

Arms = Mapping[str, Mapping[str, Mapping[str, int]]]


def arm_counts(
    judgements: Iterable[Judged], variants: Mapping[str, str] | None = None
) -> Arms:
    """
    Return {"arms": {arm: {"up": …, "down": …}}}, sorted by arm. A thumb counts once for
    each person who gave it. `variants` says by turn which prompt variant the reply was
    written with, for as many turns as there are records of; a reply that no candidate
    was, of a plugin or an action, belongs to no arm.
    """
    counted = defaultdict[str, dict[str, int]](lambda: {"up": 0, "down": 0})
    for one in judgements:
        if not one.origin:
            continue
        variant = (variants or {}).get(one.turn, "")
        thumbs = counted[f"{one.origin}: {variant}" if variant else one.origin]
        thumbs["up"] += one.good
        thumbs["down"] += one.bad
    return {"arms": dict(sorted(counted.items()))}
