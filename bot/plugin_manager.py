"""
Finds, checks and orders plugins, and is the typed way to everything they contribute.

pluggy registers; the core calls the contributed objects itself, in the operator's
order. Every mistake that pluggy would accept silently or word obscurely is refused
here, in our own sentences and all at once. Knows nothing about what plugins compute.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pluggy
from pydantic import BaseModel, ValidationError

from bot import hookspecs
from bot.config import Config, Use
from bot.config_file import did_you_mean, sentences
from bot.errors import ConfigError, place_of

if TYPE_CHECKING:
    import click
    from pydantic import JsonValue

    from bot.interfaces import (
        Action,
        CandidateFilter,
        Connector,
        Embedder,
        LogitsProcessor,
        MetricsSink,
        PromptPart,
        PromptVariant,
        Reranker,
        Retriever,
        Sampler,
        Scorer,
        Selector,
        Writer,
    )
    from bot.model import Address, Candidate, Event, Record, Reply, Turn

logger = logging.getLogger(__name__)

GROUP = "chorus.plugins"
OBSERVER_TIMEOUT_S = 5.0

# What a contribution of each kind must be able to do: method, and whether it waits.
METHODS: Mapping[str, tuple[str, bool]] = {
    "retrievers": ("retrieve", True),
    "prompt_parts": ("render", False),
    "prompt_variants": ("instruction", False),
    "logits_processors": ("begin", False),
    "samplers": ("begin", False),
    "writers": ("write", False),
    "candidate_filters": ("keep", False),
    "scorers": ("score", False),
    "rerankers": ("rerank", False),
    "selectors": ("select", False),
    "actions": ("run", True),
    "connectors": ("send", True),
    "embedders": ("embed", False),
    "metrics_sinks": ("turn_over", False),
    "commands": ("main", False),
}


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("chorus")
    for group in (hookspecs.Nouns, hookspecs.Imperatives, hookspecs.PastEvents):
        manager.add_hookspecs(group)
    return manager


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One plugin that could be used: what `chorus plugins` lists."""

    name: str
    kinds: Sequence[str]
    contributes: Sequence[str]
    origin: str
    description: str
    settings: Mapping[str, JsonValue]
    enabled: bool
    configured: Mapping[str, JsonValue] | None
    """The operator's settings over the defaults; None where not enabled or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """
    Everything the enabled plugins contribute, in the operator's order, and the only
    way by which the core asks or tells a plugin something.
    """

    retrievers: Sequence[Retriever] = ()
    prompt_parts: Sequence[PromptPart] = ()
    prompt_variants: Sequence[PromptVariant] = ()
    logits_processors: Sequence[LogitsProcessor] = ()
    samplers: Sequence[Sampler] = ()
    writers: Sequence[Writer] = ()
    candidate_filters: Sequence[CandidateFilter] = ()
    scorers: Sequence[Scorer] = ()
    rerankers: Sequence[Reranker] = ()
    selectors: Sequence[Selector] = ()
    actions: Sequence[Action] = ()
    connectors: Sequence[Connector] = ()
    embedders: Sequence[Embedder] = ()
    metrics_sinks: Sequence[MetricsSink] = ()
    commands: Sequence[click.Command] = ()
    manager: pluggy.PluginManager = field(default_factory=_new_manager, repr=False)

    def check_config(self, config: Config) -> list[str]:
        """Return every problem that any plugin has with `config`."""
        problems: list[str] = []
        for name, ask in self._implementations("check_config"):
            try:
                problems += [f"{name}: {problem}" for problem in ask(config=config)]
            except Exception as error:  # noqa: BLE001 (a stranger's code)
                problems.append(f"{name}: check_config failed with {_told(error)}")
        return problems

    async def needs_person(self, turn: Turn) -> str | None:
        """Return the first reason any plugin gives; a failing plugin gives none."""
        for name, ask in self._implementations("needs_person"):
            reason: object = await _alone(name, "needs_person", ask(turn=turn))
            if isinstance(reason, str) and reason.strip():
                return reason.strip()
            if reason is not None:
                logger.warning(
                    "plugin %r: needs_person returned %s, not a reason or None",
                    name,
                    _a(reason),
                )
        return None

    async def answer_directly(self, turn: Turn) -> Reply | None:
        """Return the first reply any plugin gives; a failing plugin gives none."""
        for name, ask in self._implementations("answer_directly"):
            reply: Reply | None = await _alone(name, "answer_directly", ask(turn=turn))
            if reply is not None:
                return reply
        return None

    async def bot_started(self) -> None:
        await self._tell("bot_started")

    async def bot_stopped(self) -> None:
        await self._tell("bot_stopped")

    async def turn_started(self, turn: Turn) -> None:
        await self._tell("turn_started", turn=turn)

    async def candidates_ranked(
        self, turn: Turn, candidates: Sequence[Candidate]
    ) -> None:
        await self._tell("candidates_ranked", turn=turn, candidates=candidates)

    def hear_of_replies(self) -> bool:
        """Say whether any plugin wants to be told of replies sent."""
        return bool(self._implementations("reply_sent"))

    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        await self._tell("reply_sent", turn=turn, reply=reply)

    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        await self._tell("turn_failed", turn=turn, error=error)

    async def feedback_received(self, event: Event, record: Record | None) -> None:
        await self._tell("feedback_received", event=event, record=record)

    async def conversation_handed_over(self, turn: Turn, reason: str) -> None:
        await self._tell("conversation_handed_over", turn=turn, reason=reason)

    async def conversation_resumed(self, address: Address) -> None:
        await self._tell("conversation_resumed", address=address)

    async def _tell(self, hook: str, **facts: Any) -> None:
        for name, tell in self._implementations(hook):
            await _alone(name, hook, tell(**facts))

    def _implementations(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """
        List (plugin, call), first in line first. Implementations are called one by
        one: in pluggy one that raises keeps the others from being called, and the
        first awaitable would end a `firstresult`.
        """
        caller = getattr(self.manager.hook, hook)
        return [
            (implementation.plugin_name, _with_known_arguments(implementation))
            for implementation in reversed(caller.get_hookimpls())
        ]


async def _alone(plugin: str, hook: str, call: Awaitable[Any]) -> Any:
    """Await one plugin; its failure is logged and reaches nobody else."""
    try:
        return await asyncio.wait_for(call, OBSERVER_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 (a stranger's code)
        # What it says may quote a message.
        logger.warning("plugin %r: %s failed with %s", plugin, hook, place_of(error))
        return None


def _with_known_arguments(implementation: pluggy.HookImpl) -> Callable[..., Any]:
    """A hook may leave out arguments that it does not need."""

    def call(**facts: Any) -> Any:
        return implementation.function(
            **{name: facts[name] for name in implementation.argnames}
        )

    return call


def load(uses: Mapping[str, Use]) -> Plugins:
    """
    Find, check, construct and register plugins, first in line first.

    The keys of `uses` say where each stands (`config/bot.yaml: plugins[2]`) and begin
    every sentence about it. Raises ConfigError with all problems of all plugins.
    """
    plugins, problems = load_sound(uses)
    if problems:
        raise ConfigError(problems)
    return plugins


def load_sound(uses: Mapping[str, Use]) -> tuple[Plugins, list[str]]:
    """Do as `load` does, but return what could be loaded beside the problems."""
    problems: list[str] = []
    plugins: dict[str, tuple[str, object]] = {}
    for at, use in uses.items():
        if use.use in plugins:
            problems.append(f"{at}.use: {use.use!r} is listed twice; keep one")
            continue
        plugin = _construct(use, at, problems)
        if plugin is not None:
            plugins[use.use] = (at, plugin)
    contributions = _contributions(plugins.values(), problems)
    manager = _new_manager()
    # pluggy calls the last registered first.
    for name, (_, plugin) in reversed(plugins.items()):
        manager.register(plugin, name)
    return Plugins(manager=manager, **contributions), problems


def installed(uses: Sequence[Use]) -> list[Installed]:
    """List the enabled plugins in order, then the others by name."""
    others = sorted(set(_entry_points()) - {use.use for use in uses})
    return [
        *(_described(use.use, use) for use in uses),
        *(_described(name, None) for name in others),
    ]


def settings_schemas() -> dict[str, Mapping[str, JsonValue]]:
    """Return the JSON Schema of every installed plugin's settings, by plugin name."""
    return {plugin.name: plugin.settings for plugin in installed([])}


# Finding


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


def class_of(use: str) -> type:
    """Return the plugin class that `use` names, or raise ConfigError."""
    points = _entry_points()
    if use in points:
        reference = points[use].value
    elif ":" in use:
        reference = use
    else:
        raise ConfigError(f"no plugin {use!r}; {did_you_mean(use, points)}")
    module_name, _, class_name = reference.partition(":")
    # Look the module up before loading it, so that an error inside it is its own.
    try:
        module = importlib.import_module(module_name)
    # A stranger's module runs here and may raise anything.
    except Exception as error:
        raise ConfigError(
            f"{use!r}: module {module_name!r} cannot be imported: {_told(error)}"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        near = did_you_mean(class_name, _classes_in(module))
        raise ConfigError(f"{use!r}: {module_name} has no {class_name!r}; {near}")
    if not isinstance(found, type):
        raise ConfigError(
            f"{use!r}: {reference} is {_a(found)}, not a class; name the class, "
            "Chorus constructs it"
        )
    return found


def _classes_in(module: object) -> list[str]:
    return [name for name, _ in inspect.getmembers(module, inspect.isclass)]


def _settings_of(plugin: type) -> type[BaseModel]:
    settings = getattr(plugin, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise ConfigError(
            f"{plugin.__name__} has no nested pydantic class Settings; add one, "
            "empty if there is nothing to set"
        )
    return settings


# Checking, in our own words (STYLE.md section D says what pluggy would do instead)


def _construct(use: Use, at: str, problems: list[str]) -> object | None:
    """Return the plugin, or None with the reasons added to `problems`."""
    try:
        plugin_class = class_of(use.use)
        settings_class = _settings_of(plugin_class)
    except ConfigError as error:
        problems += [f"{at}.use: {problem}" for problem in error.problems]
        return None
    wrong = [*_settings_problems(settings_class), *_hook_problems(plugin_class)]
    if wrong:
        problems += [f"{at}.use: {use.use!r}: {problem}" for problem in wrong]
        return None
    try:
        settings = settings_class.model_validate(use.settings)
    except ValidationError as error:
        problems += sentences(error, settings_class, f"{at}.settings.")
        return None
    try:
        plugin: object = plugin_class(settings)
    except ConfigError as error:
        problems += [f"{at}: {problem}" for problem in error.problems]
    except Exception as error:  # noqa: BLE001 (a stranger's code)
        problems.append(f"{at}: {use.use!r} failed to start with {_told(error)}")
    else:
        return plugin
    return None


def _settings_problems(settings: type[BaseModel]) -> Iterable[str]:
    if settings.model_config.get("extra") != "forbid":
        yield 'Settings must have extra="forbid", so that a misspelt key is found'
    if not settings.model_config.get("frozen"):
        yield "Settings must be frozen=True"
    for name, description in settings.model_fields.items():
        if not description.description:
            yield f"Settings.{name} needs a description; operators read it"


def _hook_problems(plugin: type) -> list[str]:
    manager = _new_manager()
    specs = _specs()
    problems: list[str] = []
    hooks = 0
    for name, member in inspect.getmembers(plugin, inspect.isroutine):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            if name in specs:
                problems.append(f"{name} is a hook's name; decorate it with @hookimpl")
            continue
        hooks += 1
        problems += _options_problems(name, options)
        if name not in specs:
            problems.append(f"no hook {name!r}; {did_you_mean(name, specs)}")
        else:
            problems += _signature_problems(name, member, specs[name])
    if not hooks and not problems:
        problems.append("has no hook; decorate at least one method with @hookimpl")
    return problems


def _specs() -> dict[str, Callable[..., Any]]:
    groups = (hookspecs.Nouns, hookspecs.Imperatives, hookspecs.PastEvents)
    return {
        name: spec
        for group in groups
        for name, spec in inspect.getmembers(group, inspect.isfunction)
    }


def _options_problems(hook: str, options: Mapping[str, Any]) -> Iterable[str]:
    refused = {
        "tryfirst": "the operator's list decides the order",
        "trylast": "the operator's list decides the order",
        "wrapper": "a wrapper ends before the coroutine it wraps has run",
        "hookwrapper": "a wrapper ends before the coroutine it wraps has run",
        "optionalhook": "an unknown hook is a mistake",
        "specname": "a hook's method bears its name",
    }
    for option, reason in refused.items():
        if options.get(option):
            yield f"{hook} uses {option}; remove it, {reason}"


def _signature_problems(
    hook: str, member: Callable[..., Any], spec: Callable[..., Any]
) -> Iterable[str]:
    known = [name for name in inspect.signature(spec).parameters if name != "self"]
    for name, parameter in inspect.signature(member).parameters.items():
        if name == "self":
            continue
        if name not in known:
            yield f"{hook} has no argument {name!r}; {did_you_mean(name, known)}"
        elif parameter.default is not parameter.empty:
            yield f"{hook}: argument {name!r} has a default; remove it"
        elif parameter.kind is parameter.KEYWORD_ONLY:
            yield f"{hook}: argument {name!r} is keyword-only; remove the '*'"
    waits = inspect.iscoroutinefunction(spec)
    if inspect.iscoroutinefunction(member) != waits:
        yield f"{hook} must be {'async def' if waits else 'def'}"


# Contributions


def _contributions(
    plugins: Iterable[tuple[str, object]], problems: list[str]
) -> dict[str, list[Any]]:
    contributions: dict[str, list[Any]] = {kind: [] for kind in METHODS}
    for at, plugin in plugins:
        for kind in METHODS:
            if not hasattr(plugin, kind):
                continue
            found, wrong = _contributed(plugin, kind)
            taken = {item.name for item in contributions[kind]}
            wrong += [
                f"{kind} has one named {item.name!r} already"
                for item in found
                if item.name in taken
            ]
            problems += [f"{at}: {problem}" for problem in wrong]
            contributions[kind] += found
    return contributions


def _contributed(plugin: object, kind: str) -> tuple[list[Any], list[str]]:
    try:
        contributed = getattr(plugin, kind)()
    except ConfigError as error:
        return [], list(error.problems)
    except Exception as error:  # noqa: BLE001 (a stranger's code)
        return [], [f"{kind} failed with {_told(error)}"]
    if not isinstance(contributed, Sequence):
        return [], [f"{kind} returned {_a(contributed)}; return a list"]
    wrong = [
        problem
        for item in contributed
        for problem in _contribution_problems(item, kind)
    ]
    return ([], wrong) if wrong else (list(contributed), [])


def _contribution_problems(item: object, kind: str) -> Iterable[str]:
    method, waits = METHODS[kind]
    if isinstance(item, type):
        yield f"{kind} returned the class {item.__name__}; return an instance of it"
        return
    if not isinstance(getattr(item, "name", None), str):
        yield f"{kind} returned {_a(item)} without a name; give it one"
    implementation = getattr(item, method, None)
    if implementation is None:
        yield f"{kind} returned {_a(item)} without {method}(); see bot.interfaces"
    elif inspect.iscoroutinefunction(implementation) != waits:
        form = "async def" if waits else "def"
        yield f"{type(item).__name__}.{method} must be {form}"


# Describing


def _described(name: str, use: Use | None) -> Installed:
    """Describe one plugin; of one that cannot be loaded, say why."""
    try:
        plugin = class_of(name)
        settings = _settings_of(plugin)
    except ConfigError as error:
        return Installed(
            name=name,
            kinds=(),
            contributes=(),
            origin=_distribution(name) or name,
            description=f"cannot be loaded: {error}",
            settings={},
            enabled=use is not None,
            configured=None,
        )
    hooks = [hook for hook in _specs() if hasattr(plugin, hook)]
    documentation = inspect.getdoc(plugin) or inspect.getdoc(inspect.getmodule(plugin))
    return Installed(
        name=name,
        kinds=[hook.removesuffix("s") for hook in hooks if hook in METHODS],
        contributes=hooks,
        origin=_distribution(name) or inspect.getsourcefile(plugin) or name,
        description=(documentation or "").strip().partition("\n")[0],
        settings=settings.model_json_schema(),
        enabled=use is not None,
        configured=None if use is None else _configured(settings, use),
    )


def _configured(settings: type[BaseModel], use: Use) -> dict[str, JsonValue] | None:
    """Through the plugin's own class: it knows which settings are secrets to mask."""
    try:
        return settings.model_validate(use.settings).model_dump(mode="json")
    except ValueError:  # `chorus check` says what is wrong; a list shows the rest
        return None


def _distribution(name: str) -> str | None:
    point = _entry_points().get(name)
    if point is None or point.dist is None:
        return None
    return f"{point.dist.name} {point.dist.version}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _a(value: object) -> str:
    return f"a {type(value).__name__}"
