"""
Picks the first of the ranked candidates. The default.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from bot import hookimpl
from bot.interfaces import Selector
from bot.model import Candidate, Selection, Turn


class Best:
    """Trusts the ranking. The same candidates give the same reply."""

    name = "best"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def selectors(self) -> list[Selector]:
        return [self]

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        first = ranked[0]
        total = "" if first.total is None else f", total {first.total:.2f}"
        return Selection(index=0, why=f"ranked first of {len(ranked)}{total}")
