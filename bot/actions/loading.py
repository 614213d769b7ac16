"""
From `module:Class` in the configuration to an action of rasa-sdk.

Only this class is taken: rasa-sdk's own way registers every action that was ever
imported, and ends the process when a module is missing. Loads rasa-sdk.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TypeGuard

from rasa_sdk.interfaces import Action

from bot.actions.strangers import said
from bot.config_file import did_you_mean
from bot.errors import ConfigError, place_of
from bot.text import on_one_line

# At each turn it warns of what is allowed, and its other lines name slots.
logging.getLogger("rasa_sdk").setLevel(logging.ERROR)

LONGEST_NAME = 100
_ARGUMENTS = 3  # dispatcher, tracker and domain


def loaded(use: str) -> Action:
    """
    Return the class's one instance; ConfigError says in the operator's words why there
    is none, but not where in the configuration it was asked for.
    """
    module_name, _, class_name = use.partition(":")
    module = _module(module_name)
    with _of_the_author(f"{class_name!r} of {module_name!r}"):
        action_class = _class_in(module, class_name)
    action = _instance(action_class)
    _check(action)
    return action


@contextmanager
def _of_the_author(what: str) -> Iterator[None]:
    """
    The author's code runs within, and may do anything, even exit: ConfigError says what
    it raised. Only the operator's interrupt is obeyed.
    """
    try:
        yield
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:
        words = on_one_line(said(error))
        raise ConfigError(f"{what} raised {place_of(error)}: {words}") from error


def _module(name: str) -> ModuleType:
    with _of_the_author(f"importing {name!r}"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(
                    f"{name!r} imports {error.name!r}, which is not installed; install "
                    "it"
                ) from error
            raise ConfigError(
                f"no module {name!r}; put it beside the configuration file, or install "
                "it"
            ) from error
        except SyntaxError as error:
            if error.filename is None:  # no parser's: the module raises it
                raise
            raise ConfigError(
                f"{error.filename}, line {error.lineno}, is no Python: {error.msg}; "
                "correct it"
            ) from error


def _class_in(module: ModuleType, name: str) -> type[Action]:
    found = getattr(module, name, None)
    if found is None:
        there = [one for one, value in vars(module).items() if _is_action(value)]
        raise ConfigError(
            f"{module.__name__!r} has no {name!r}; {did_you_mean(name, there)}"
        )
    if not _is_action(found):
        kind = "a class" if _is_class(found) else type(found).__name__
        raise ConfigError(
            f"{name!r} of {module.__name__!r} is {kind}, not an Action of "
            "rasa_sdk; let it inherit from rasa_sdk.Action"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise ConfigError(f"{name!r} is abstract; write its {missing}")
    if found.run is Action.run:
        raise ConfigError(f"{name!r} has no run of its own; write one")
    action_class: type[Action] = found
    return action_class


def _is_action(value: object) -> bool:
    return (
        _is_class(value)
        and issubclass(value, Action)
        and not value.__module__.startswith("rasa_sdk.")
    )


def _is_class(value: object) -> TypeGuard[type]:
    """As isinstance, which asks the value, too: a proxy may raise."""
    return issubclass(type(value), type)


def _instance(action_class: type[Action]) -> Action:
    name = action_class.__name__
    with _of_the_author(f"the __init__ of {name!r}"):
        try:
            return action_class()
        except TypeError as error:
            needs = [
                one.name
                for one in _parameters(action_class)
                if one.default is one.empty
                and one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}
            ]
            if not needs:
                raise
            raise ConfigError(
                f"{name!r} is made without arguments, and its __init__ needs "
                f"{', '.join(needs)}; give them defaults"
            ) from error


def _parameters(of: object) -> list[inspect.Parameter]:
    return list(inspect.signature(of).parameters.values())  # type: ignore[arg-type]  # a class or a method


def _check(action: Action) -> None:
    cls = type(action).__name__
    with _of_the_author(f"the name of {cls!r}"):
        name = action.name()
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
            found = repr(name)[:LONGEST_NAME]
            raise ConfigError(f"the name of {cls!r} is {found}, not a short text")
    with _of_the_author(f"the run of {cls!r}"):
        takes = len(_parameters(action.run))
    if takes < _ARGUMENTS:
        raise ConfigError(
            f"the run of {cls!r} does not take dispatcher, tracker and domain"
        )
    try:
        copy.copy(action)
    except KeyboardInterrupt:
        raise
    # The author's class may define how, and forbid it.
    except BaseException as error:
        raise ConfigError(
            f"{cls!r} cannot be copied ({place_of(error)}), and every run works on a "
            "copy, so that conversations do not mix; let copy.copy work"
        ) from error
