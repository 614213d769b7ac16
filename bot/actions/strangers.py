"""
What a stranger's exception says.

Its words are the stranger's code as well: they may be endless, or none, or raise. Knows
neither who raised it nor what becomes of it.
"""

from __future__ import annotations

LONGEST_SAID = 300  # characters


def said(error: BaseException) -> str:
    """Return the words of an exception, cut; or what came instead of them."""
    try:
        return f"{error}"[:LONGEST_SAID].encode(errors="replace").decode()
    # Even an exit is no more than a way to have no words.
    except BaseException as another:  # noqa: BLE001
        return f"its words raised {type(another).__name__}"
