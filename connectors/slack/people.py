"""
People: to which team somebody belongs who writes from another workspace.

Slack wants it with each stream. Only remembered in memory: without it a reply comes
whole. Knows no messages.
"""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED = 10_000


class People:
    """The team of each person that was heard lately."""

    def __init__(self) -> None:
        self._teams: OrderedDict[tuple[str, str], str] = OrderedDict()

    def remember(self, account: str, user: str, team: str) -> None:
        self._teams[account, user] = team
        self._teams.move_to_end((account, user))
        if len(self._teams) > REMEMBERED:
            self._teams.popitem(last=False)

    def team_of(self, account: str, user: str) -> str:
        return self._teams.get((account, user), account)
