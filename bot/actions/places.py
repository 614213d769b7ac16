"""
Where the actions of a configuration are: its classes, its servers, its plugins.

Builds each place and says what is wrong with it, by its key in the file. Knows nothing
of how any of them runs an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bot.actions.calls import ActionPlace
from bot.actions.doing import CORE
from bot.actions.in_process import InProcess
from bot.actions.plugin_place import PluginPlace
from bot.actions.remote import Remote
from bot.actions.threads import ActionThreads
from bot.actions_config import ActionsConfig, ActionSource
from bot.errors import ConfigError
from bot.interfaces import Action


def load(
    config: ActionsConfig, plugins: Sequence[Action]
) -> tuple[list[ActionPlace], list[str]]:
    """
    Return the places that could be built, first in line first, and every problem: a
    class that cannot be loaded, or an action that two of them have.
    """
    places: list[ActionPlace] = []
    problems: list[str] = []
    owners = dict.fromkeys(CORE, "the core")
    threads = ActionThreads()
    for number, source in enumerate(config.sources):
        at = f"actions.sources[{number}]"
        try:
            place = _place(source, threads)
        except ConfigError as error:
            problems += [f"{at}.use: {problem}" for problem in error.problems]
            continue
        places.append(place)
        problems += _claimed(_known(place, source), at, owners)
    places += [PluginPlace(action) for action in plugins]
    problems += _claimed([action.name for action in plugins], "plugins", owners)
    return places, problems


def known_names(config: ActionsConfig, places: Iterable[ActionPlace]) -> list[str]:
    """Return the names of the actions that are known without asking a server."""
    own = [place.name for place in places if isinstance(place, InProcess | PluginPlace)]
    listed = [name for source in config.sources for name in source.actions]
    return [*own, *listed]


def are_all_known(config: ActionsConfig) -> bool:
    """Say whether no server has to be asked what it has."""
    return all(source.use or source.actions for source in config.sources)


def _place(source: ActionSource, threads: ActionThreads) -> ActionPlace:
    if source.use is not None:
        return InProcess(
            source.use,
            timeout_s=source.timeout_s,
            reword=source.reword,
            threads=threads,
        )
    return Remote(
        url=source.url or "",
        token=source.token,
        actions=source.actions,
        streams=source.streams,
        timeout_s=source.timeout_s,
        reword=source.reword,
    )


def _known(place: ActionPlace, source: ActionSource) -> Sequence[str]:
    return [place.name] if isinstance(place, InProcess) else source.actions


def _claimed(names: Iterable[str], at: str, owners: dict[str, str]) -> Iterable[str]:
    for name in names:
        owner = owners.setdefault(name, at)
        if owner != at:
            yield f"{at}: {owner} has an action {name!r} already; give it another name"
