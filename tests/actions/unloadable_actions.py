# mypy: disable-error-code="misc"
# (rasa-sdk has no types: its classes are Any.)
"""Classes that cannot be actions of a configuration, and say why."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from rasa_sdk import Action, FormValidationAction

from tests.actions.demo_actions import Events, Named, Raises

__all__ = ["Action", "FormValidationAction"]  # as a configuration may name them, too

NOT_A_CLASS = 5


class NoAction:
    pass


class NoRun(Named):
    pass


class Abstract(Named, ABC):
    @abstractmethod
    def answer(self) -> str: ...

    def run(self, dispatcher: Any, tracker: Any, domain: Any) -> Events:
        return []


class NeedsArguments(Raises):
    def __init__(self, url: str, *, key: str, retries: int = 3) -> None:
        self.url = url


class CannotBeMade(Raises):
    def __init__(self) -> None:
        raise OSError("no such file: keys.json")


class ExitsWhenMade(Raises):
    def __init__(self) -> None:
        raise SystemExit(1)


class InterruptedWhenMade(Raises):
    def __init__(self) -> None:
        raise asyncio.CancelledError


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


class MuteWhenMade(Raises):
    def __init__(self) -> None:
        raise Mute


class Wordy(Raises):
    def __init__(self) -> None:
        raise ValueError("one\ntwo\n" + 10_000 * "x" + "\ud83d")


class ExitsWhenNamed(Raises):
    def name(self) -> str:
        raise SystemExit(1)


class OddBeyondWords(Raises):
    def name(self) -> Any:
        return Unshowable()


class Unshowable:
    def __repr__(self) -> str:
        raise SystemExit(1)


class ExitsWhenCopied(Raises):
    def __copy__(self) -> None:
        raise SystemExit(1)


class NoType:
    """A stand-in that says nothing of itself yet, as frameworks have them."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("nobody is served")


NO_TYPE = NoType()


class Nameless(Raises):
    def name(self) -> str:
        raise NotImplementedError


class OddName(Raises):
    def name(self) -> Any:
        return 5


class TakesTooLittle(Named):
    def run(self, dispatcher: Any) -> Any:
        return []


class CannotBeCopied(Raises):
    def __copy__(self) -> None:
        raise TypeError("one is enough")
