"""
Picks by what customers liked, and goes on trying what is not known yet.

    θ_a ~ Beta(prior_up + up_a, prior_down + down_a) for each arm a of the good replies
    picked = the first in rank of the arm with the largest θ

Thompson 1933, Biometrika 25; Chapelle and Li 2011, "An empirical evaluation of Thompson
sampling". An arm is who wrote a reply, and with which prompt variant: "quotation",
"model", "model: brief". An arm is picked as often as it is likely to be the best, so
exploring ends by itself. Only replies near the best total compete: to learn is no
reason to send a bad one. The draw depends on the turn's seed alone and can be repeated.

The thumbs come from a JSON file, {"arms": {"quotation": {"up": 12, "down": 3}}}, which
`chorus feedback count` writes and which is read when the bot starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot import hookimpl
from bot.distributions import comparable
from bot.errors import ConfigError
from bot.interfaces import Selector
from bot.model import Candidate, Selection, Turn

# numpy's seeds are not negative; a turn's may be.
_SEED_MASK = (1 << 64) - 1

# More people than there are; far from what a float cannot hold.
Thumb = Annotated[int, Field(ge=0, le=10**12)]


class Thumbs(BaseModel):
    """What customers said of one arm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    up: Thumb = 0
    down: Thumb = 0


class Counts(BaseModel):
    """The file, as `chorus feedback count` writes it."""

    model_config = ConfigDict(frozen=True)

    arms: Mapping[str, Thumbs]


class Thompson:
    """Lets the kinds of replies compete for thumbs."""

    name = "thompson"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        counts: str = Field(
            "thumbs.json",
            min_length=1,
            max_length=4096,
            description="file of thumbs by arm, from where you are; may be missing",
        )
        prior_up: float = Field(
            1.0, ge=0.01, le=10_000, description="good thumbs of an arm to begin with"
        )
        prior_down: float = Field(
            1.0, ge=0.01, le=10_000, description="bad thumbs of an arm to begin with"
        )
        within: float = Field(
            0.5, ge=0, le=100, description="how far below the best total may be sent"
        )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thumbs = read_thumbs(Path(settings.counts))

    @hookimpl
    def selectors(self) -> list[Selector]:
        return [self]

    def select(self, turn: Turn, ranked: Sequence[Candidate]) -> Selection:
        first = first_of_arms(ranked, self._settings.within)
        rng = np.random.default_rng(turn.seed & _SEED_MASK)
        drawn = draws(
            {name: self._posterior(name) for name in sorted(first)},
            rng,
        )
        winner = max(drawn, key=drawn.__getitem__)
        return Selection(index=first[winner], why=self._why(winner, drawn))

    def _posterior(self, name: str) -> tuple[float, float]:
        thumbs = (self._thumbs or {}).get(name, Thumbs())
        return (
            self._settings.prior_up + thumbs.up,
            self._settings.prior_down + thumbs.down,
        )

    def _why(self, winner: str, drawn: Mapping[str, float]) -> str:
        if self._thumbs is None:
            known = f"no thumbs are known, {self._settings.counts} is missing"
        else:
            thumbs = self._thumbs.get(winner, Thumbs())
            known = f"{thumbs.up} up and {thumbs.down} down"
        others = ", ".join(
            f"{name} {theta:.2f}" for name, theta in drawn.items() if name != winner
        )
        against = f" against {others}" if others else ", alone"
        return f"arm {winner!r} drew {drawn[winner]:.2f}{against}; {known}"


def arm(candidate: Candidate) -> str:
    """Return the arm that a candidate belongs to."""
    if not candidate.variant:
        return candidate.origin
    return f"{candidate.origin}: {candidate.variant}"


def first_of_arms(ranked: Sequence[Candidate], within: float) -> dict[str, int]:
    """
    Return the best-ranked position of each arm among the totals that are near the best
    one. A total that is missing is near none, unless nobody has one.
    """
    totals = [comparable(one.total) for one in ranked]
    bar = max(totals) - within
    first: dict[str, int] = {}
    for position, (one, total) in enumerate(zip(ranked, totals, strict=True)):
        if total >= bar:
            first.setdefault(arm(one), position)
    return first


def draws(
    posteriors: Mapping[str, tuple[float, float]], rng: np.random.Generator
) -> dict[str, float]:
    """Draw each arm's chance of a good thumb from its Beta(up, down), in order."""
    return {name: float(rng.beta(*counts)) for name, counts in posteriors.items()}


def read_thumbs(path: Path) -> Mapping[str, Thumbs] | None:
    """Return the thumbs by arm, None if there is no such file."""
    try:
        return Counts.model_validate_json(path.read_bytes()).arms
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"settings.counts: {path} cannot be read ({error.strerror}); name the file "
            "that `chorus feedback count` writes"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"settings.counts: {path}: {where}: {first['msg']}; write it anew with "
            "`chorus feedback count`"
        ) from error
