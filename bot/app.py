"""
The only place that builds things: from one configuration to a running bot.

Knows every part and none of their work. Each part is built when it is first asked for,
because `chorus search` needs no generator and `chorus plugins` needs no model at all.
Heavy libraries are imported where their part is built.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs

from bot import config as configuration
from bot import explain, plugin_manager
from bot.config import Channel, Config, Use, did_you_mean
from bot.errors import ConfigError
from bot.inference import InferenceThread
from bot.interfaces import Connector, Embedder, LanguageModel, Named, Progress
from bot.model import Address
from bot.plugin_manager import Plugins
from bot.ranking import Ranking
from bot.turn import Answerer, Pipeline

if TYPE_CHECKING:
    from bot.conversation.manager import ConversationManager
    from bot.conversation.store import Store
    from bot.generation.models import ModelStore, Weights
    from bot.knowledge.index import Index
    from bot.knowledge.ingest import IngestReport
    from bot.knowledge.retriever import HybridRetriever

Choice = TypeVar("Choice", bound=Named)


class App:
    """Everything built from one configuration. Construct with `from_file`."""

    def __init__(
        self,
        config: Config,
        plugins: ChannelPlugins,
        progress: Progress,
        loaded: _Loaded | None = None,
    ) -> None:
        self.config = config
        self.plugins = plugins.everywhere
        self._plugins = plugins
        self._progress = progress
        self._loaded = loaded or _Loaded()

    @classmethod
    def from_file(cls, path: Path, progress: Progress) -> App:
        """Raise ConfigError with every problem of the file and of its plugins."""
        return cls.from_config(configuration.load(path), progress, str(path))

    @classmethod
    def from_config(
        cls,
        config: Config,
        progress: Progress,
        where: str,
        loaded: _Loaded | None = None,
    ) -> App:
        plugins = ChannelPlugins.load(config, where)
        problems = [f"{where}: {problem}" for problem in plugins.problems(config)]
        if problems:
            raise ConfigError(problems)
        return cls(config, plugins, progress, loaded)

    def variant(self, config: Config) -> App:
        """Return the app of another configuration that shares the loaded models."""
        return App.from_config(config, self._progress, "variant", self._loaded)

    # Models

    @cached_property
    def models(self) -> ModelStore:
        from bot.generation.models import ModelStore

        cache = platformdirs.user_cache_path("chorus") / "models"
        return ModelStore(cache, self._progress)

    def weights(self) -> list[Weights]:
        """Describe the configured models, without touching the network."""
        return [self.models.describe(*source) for source in self._sources()]

    def fetch_models(self) -> None:
        for source in self._sources():
            self.models.fetch(*source)

    def embedder(self) -> Embedder:
        name = self.config.knowledge.embedder
        for embedder in self.plugins.embedders:
            if embedder.name == name:
                return embedder
        if self._loaded.embedder is None:
            from bot.knowledge.embedding import MiniLM

            folder = self.models.fetch(*self._sources()[0])
            self._progress("Loading the embedder", 0, None)
            self._loaded.embedder = MiniLM(folder)
        return self._loaded.embedder

    def language_model(self) -> LanguageModel:
        if self._loaded.language_model is None:
            from bot.generation.language_model import TransformersModel

            settings = self.config.generation
            folder = self.models.fetch(*self._sources()[1])
            self._progress("Loading the generator", 0, None)
            self._loaded.language_model = TransformersModel(
                folder, name=settings.model, device=settings.device
            )
        return self._loaded.language_model

    def _sources(self) -> list[tuple[str, str | None]]:
        knowledge, generation = self.config.knowledge, self.config.generation
        return [
            (knowledge.model, knowledge.model_sha256),
            (generation.model, generation.model_sha256),
        ]

    # Knowledge

    def ingest(self, paths: Sequence[Path] | None = None) -> IngestReport:
        """Bring the index up to date with `paths`, by default the configured ones."""
        from bot.knowledge.ingest import ingest

        return ingest(
            paths or self.config.knowledge.paths,
            self._index_folder,
            self.embedder(),
            self.config.knowledge,
            self._progress,
        )

    @property
    def _index_folder(self) -> Path:
        return self.config.data / "index"

    def index(self) -> Index:
        from bot.knowledge.index import Index

        return Index.open(self._index_folder, self.embedder())

    def retriever(self, legs: frozenset[str] | None = None) -> HybridRetriever:
        """Return the built-in retriever; `legs` leaves out some of its parts."""
        from bot.knowledge.retriever import LEGS, HybridRetriever

        return HybridRetriever(self.index(), self.embedder(), legs or LEGS)

    # Answering

    @cached_property
    def inference(self) -> InferenceThread:
        return InferenceThread()

    def answerer(self) -> Answerer:
        retriever = self.retriever()
        everywhere = self._pipeline(self.plugins, None, retriever)
        channels = [
            (channel, self._pipeline(plugins, channel, retriever))
            for channel, plugins in self._plugins.channels
        ]

        def pipeline(address: Address) -> Pipeline:
            matching = (own for channel, own in channels if channel.covers(address))
            return next(matching, everywhere)

        return Answerer(
            config=self.config,
            pipeline=pipeline,
            model=self.language_model(),
            embedder=self.embedder(),
            inference=self.inference,
        )

    def _pipeline(
        self, plugins: Plugins, channel: Channel | None, retriever: HybridRetriever
    ) -> Pipeline:
        from bot.generation.prompt import PromptBuilder

        ranking = (channel and channel.ranking) or self.config.ranking
        return Pipeline(
            plugins=plugins,
            retrievers=(retriever, *plugins.retrievers),
            prompt_parts=plugins.prompt_parts,
            prompter=PromptBuilder(
                model=self.language_model(),
                name=self.config.name,
                persona=(channel and channel.persona) or self.config.persona,
                knowledge=self.config.knowledge,
                conversation=self.config.conversation,
                reply_tokens=self.config.generation.max_new_tokens,
            ),
            sampler=_named(plugins.samplers, self.config.generation.sampler),
            logits_processors=plugins.logits_processors,
            ranking=Ranking(
                inference=self.inference,
                writers=plugins.writers,
                filters=plugins.candidate_filters,
                scorers=plugins.scorers,
                weights=ranking.weights,
                rerankers=plugins.rerankers,
                selector=_named(plugins.selectors, ranking.selector),
                plugin_timeout_s=ranking.plugin_timeout_s,
            ),
        )

    # Conversations

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """Open the state, in the configured Redis or in a server of our own."""
        async with self._state() as (store, _):
            yield store

    @asynccontextmanager
    async def _state(self) -> AsyncIterator[tuple[Store, bool]]:
        """Open the store; also tell whether no other process is at work on it."""
        from bot.conversation.redis_server import EmbeddedRedis
        from bot.conversation.store import Store

        url, settings = self.config.redis.url, self.config.conversation
        if url is not None:
            async with Store(url=url.get_secret_value(), settings=settings) as store:
                yield store, True
            return
        folder, fsync = self.config.data / "redis", self.config.redis.fsync
        with EmbeddedRedis(folder, fsync=fsync) as server:
            async with Store(url=server.url, settings=settings, embedded=True) as store:
                yield store, server.owned

    @asynccontextmanager
    async def running(
        self,
        connectors: Mapping[str, Connector] | None = None,
        *,
        seeds: Callable[[], int] | None = None,
        resumes: bool = True,
    ) -> AsyncIterator[ConversationManager]:
        """
        Build everything, and close it in the opposite order. `resumes` takes up what a
        process that died left unanswered, unless another process is still at work.
        """
        from bot.conversation.manager import ConversationManager

        if connectors is None:
            connectors = {one.name: one for one in self.plugins.connectors}
        async with self._state() as (store, alone):
            manager = ConversationManager(
                store=store,
                answerer=self.answerer(),
                connectors=connectors,
                observers=self.plugins,
                actions=self.plugins.actions,
                explain=explain.text,
                config=self.config,
                clock=lambda: datetime.now(UTC),
                seeds=seeds or (lambda: secrets.randbits(63)),
                resumes=resumes and alone,
            )
            await self.plugins.bot_started()
            try:
                async with manager:
                    yield manager
            finally:
                await self.plugins.bot_stopped()

    # Describing

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the file, with the settings of every plugin."""
        whole = Config.model_json_schema()
        whole["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        whole["$defs"]["Use"]["allOf"] = [
            {
                "if": {"properties": {"use": {"const": name}}, "required": ["use"]},
                "then": {"properties": {"settings": settings}},
            }
            for name, settings in plugin_manager.settings_schemas().items()
        ]
        return whole


@dataclass(slots=True)
class _Loaded:
    """The models in memory, shared by the variants of an app."""

    embedder: Embedder | None = None
    language_model: LanguageModel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPlugins:
    """The plugins of the whole bot, and those of each channel that has its own."""

    everywhere: Plugins
    channels: Sequence[tuple[Channel, Plugins]] = field(default_factory=list)

    @classmethod
    def load(cls, config: Config, where: str) -> ChannelPlugins:
        """Raise ConfigError with the problems of all lists together."""
        problems: list[str] = []

        def loaded(uses: Mapping[str, Use]) -> Plugins:
            try:
                return plugin_manager.load(uses)
            except ConfigError as error:
                problems.extend(error.problems)
                return Plugins()

        everywhere = loaded(
            _placed(config.plugins, f"{where}: plugins")
            | _placed(config.connectors, f"{where}: connectors")
        )
        channels = [
            (channel, loaded(_placed(channel.plugins, f"{where}: channels[{number}]")))
            if channel.plugins is not None
            else (channel, everywhere)
            for number, channel in enumerate(config.channels)
        ]
        if problems:
            raise ConfigError(problems)
        return cls(everywhere=everywhere, channels=channels)

    def problems(self, config: Config) -> list[str]:
        """Return what the parts and the plugins have against the whole."""
        found = [*_unknown_names(config, self.everywhere)]
        for number, (channel, plugins) in enumerate(self.channels):
            ranking = channel.ranking or config.ranking
            narrowed = config.model_copy(update={"ranking": ranking})
            found += [
                f"channels[{number}]: {problem}"
                for problem in _unknown_names(narrowed, plugins)
            ]
        return [*found, *self.everywhere.check_config(config)]


def _placed(uses: Sequence[Use], where: str) -> dict[str, Use]:
    return {f"{where}[{number}]": use for number, use in enumerate(uses)}


def _unknown_names(config: Config, plugins: Plugins) -> Iterable[str]:
    """Return a sentence for each name that no enabled plugin answers to."""
    embedders = [*(one.name for one in plugins.embedders), "minilm"]
    scorers = [one.name for one in plugins.scorers]
    choices = [
        (
            "generation.sampler",
            config.generation.sampler,
            [one.name for one in plugins.samplers],
        ),
        (
            "ranking.selector",
            config.ranking.selector,
            [one.name for one in plugins.selectors],
        ),
        ("knowledge.embedder", config.knowledge.embedder, embedders),
        *(
            (f"ranking.weights.{name}", name, scorers)
            for name in config.ranking.weights
        ),
    ]
    for key, name, enabled in choices:
        if name not in enabled:
            near = did_you_mean(name, enabled)
            yield f"{key}: no enabled plugin provides {name!r}; {near}"


def _named(choices: Sequence[Choice], name: str) -> Choice:
    return next(one for one in choices if one.name == name)
