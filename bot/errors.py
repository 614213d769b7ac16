"""
What can go wrong, sorted by who can put it right.

    ChorusError
    ├── ConfigError      the operator: a file, a key, a secret, a missing service
    │   ├── KnowledgeError   a document or an index
    │   ├── ModelError       weights: not found, refused, wrong hash
    │   └── StoreError       Redis: unreachable, in use, corrupt
    ├── PluginError      the plugin's author: it raised, hung, or answered nonsense
    ├── TurnError        this turn alone; the customer gets the apology
    │   ├── TurnCancelled    the customer or a newer message stopped it
    │   ├── ActionError      an action crashed, hung, rejected, or was not there
    │   └── Overloaded       too many sets wait for the generator already
    └── DeliveryError    a connector could not send a reply

Each message is one sentence: where, what was found, what to do. Errors know nothing
about how they are shown; the command line prints them and chooses the exit code.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Literal


class ChorusError(Exception):
    """Anything Chorus raises on purpose."""


def place_of(error: BaseException) -> str:
    """
    Say what was raised and where, as a log may: `KeyError at plugins/mine.py:12`. What
    a stranger's exception says may quote a message, or name a person.
    """
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{at}"


class ConfigError(ChorusError):
    """What the operator can put right; carries every problem found, not the first."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class KnowledgeError(ConfigError):
    """A document cannot be read; an index is missing, corrupt or of another model."""


class ModelError(ConfigError):
    """Weights cannot be had, do not match their hash, or were refused as unsafe."""


class StoreError(ConfigError):
    """Redis cannot be reached or started, or its data folder is in use."""


class PluginError(ChorusError):
    """A plugin broke its contract; `plugin` names it and the sentence says how."""

    def __init__(self, plugin: str, message: str) -> None:
        self.plugin = plugin
        super().__init__(f"plugin {plugin!r}: {message}")


class TurnError(ChorusError):
    """This turn cannot be answered; nothing else is affected."""


class TurnCancelled(TurnError):
    """The turn was stopped on request before it had an answer."""


ActionFault = Literal["missing", "rejected", "crashed", "late", "away", "nonsense"]


class ActionError(TurnError):
    """
    An action has not done its work; `fault` says how: nobody has it, it rejected the
    call, raised, took too long, its server could not be reached, or its answer is none.
    """

    def __init__(self, action: str, fault: ActionFault, message: str) -> None:
        self.action = action
        self.fault = fault
        super().__init__(f"action {action!r}: {message}")


class Overloaded(TurnError):
    """The generator has as many sets waiting as it takes; nothing was begun."""


class DeliveryError(ChorusError):
    """
    A reply did not reach the platform. `retryable` says whether to try again,
    `retry_after_s` when, where the platform says so, and `elsewhere` that another
    process has to, because this one's connector does not reach the address.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool,
        retry_after_s: float | None = None,
        elsewhere: bool = False,
    ) -> None:
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.elsewhere = elsewhere
        super().__init__(message)
