"""
The only place that builds things: from one configuration to a running bot.

Knows every part and none of their work. Each part is built when it is first asked for,
because `chorus search` needs no generator and `chorus plugins` needs no model at all.
Heavy libraries are imported where their part is built.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import sys
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import platformdirs

from bot import config_file, experiment, explain, plugin_manager
from bot.actions_config import ActionsConfig, ActionsServerConfig
from bot.channels import ChannelPlugins
from bot.config import (
    BASE,
    Channel,
    Config,
    OperationsConfig,
)
from bot.errors import ConfigError, StoreError
from bot.experiment import ArmObservers, Arms, Shadows, quiet
from bot.inference import InferenceThread
from bot.interfaces import (
    AnswersRequests,
    Connector,
    Embedder,
    Keeps,
    LanguageModel,
    Named,
    Progress,
    TellsTrouble,
)
from bot.model import Address
from bot.plugin_manager import Plugins
from bot.ranking import Classifies, Ranking
from bot.turn import Answerer, Pipeline

if TYPE_CHECKING:
    from bot.actions.dialogue import Dialogue
    from bot.actions_server.server import ActionsServer
    from bot.conversation import worker
    from bot.conversation.manager import ConversationManager, Role
    from bot.conversation.redis_server import EmbeddedRedis
    from bot.conversation.store import Store
    from bot.generation.grid import GridSize
    from bot.generation.models import ModelStore, Weights
    from bot.knowledge.index import Index
    from bot.knowledge.ingest import IngestReport
    from bot.knowledge.retriever import HybridRetriever
    from bot.operations import Check
    from bot.web import Web

logger = logging.getLogger(__name__)

PROMPT_AROUND = 512  # tokens of a prompt beside passages and history, and a margin

Choice = TypeVar("Choice", bound=Named)


class App:
    """
    Everything built from one configuration. Construct with `from_file`. `web_url` is
    where services reach its connectors once it is running, empty where none does.
    """

    def __init__(
        self,
        config: Config,
        plugins: ChannelPlugins,
        progress: Progress,
        loaded: _Loaded | None = None,
        folder: Path = Path(),
    ) -> None:
        self.config = config
        self.web_url = ""
        self.plugins = plugins.everywhere
        self._plugins = plugins
        self._progress = progress
        self._loaded = loaded or _Loaded()
        self._folder = folder  # the file's, which the arms' files are relative to
        self._dialogue: Dialogue | None = None

    @classmethod
    def from_file(cls, path: Path, progress: Progress) -> App:
        """
        Raise ConfigError with every problem of the file and of its plugins, in the
        order of the file. A document that is not there counts as one.
        """
        draft = config_file.read(path)
        plugins, problems = ChannelPlugins.load(
            draft.config, str(path), mistakes=draft.problems
        )
        problems += [f"{path}: {problem}" for problem in _missing_paths(draft.config)]
        problems += _load_arms(draft.config, path.parent)[1]
        problems += [
            f"{path}: {problem}"
            for problem in _wrong_actions(
                draft.config, plugins, path.parent, draft=bool(draft.problems)
            )
        ]
        if problems:
            raise ConfigError(config_file.in_order(problems, draft.keys, f"{path}: "))
        return cls(draft.config, plugins, progress, folder=path.parent)

    @classmethod
    def from_config(
        cls,
        config: Config,
        progress: Progress,
        where: str,
        loaded: _Loaded | None = None,
    ) -> App:
        plugins, problems = ChannelPlugins.load(config, where)
        folder = Path(where).parent
        problems += [
            f"{where}: {problem}" for problem in _wrong_actions(config, plugins, folder)
        ]
        if problems:
            raise ConfigError(problems)
        return cls(config, plugins, progress, loaded, folder)

    def variant(self, config: Config) -> App:
        """Return the app of another configuration; models that both use are shared."""
        alone = config.model_copy(update={"experiment": None})
        loaded = self._loaded.shared_between(self.config, config)
        return App.from_config(alone, self._progress, "variant", loaded)

    def arms(self) -> dict[str, App]:
        """
        Return the apps of the experiment's arms, but the base, which is this one. They
        share what is loaded. Raise ConfigError with every problem of their files.
        """
        found, problems = _load_arms(self.config, self._folder)
        if problems:
            raise ConfigError(problems)
        return {
            name: App(config, plugins, self._progress, self._loaded)
            for name, (config, plugins) in found.items()
        }

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
            # There is a url exactly where the backend is a server.
            url = self.config.generation.url
            model = self._served_model(url) if url else self._model_in_process()
            self._loaded.language_model = model
        return self._loaded.language_model

    def _served_model(self, url: str) -> LanguageModel:
        from bot.generation.openai_server import OpenAIServer

        settings = self.config.generation
        self._progress("Asking the model server", 0, None)
        return OpenAIServer(
            settings.model, url, settings.api_key, settings.context_tokens
        )

    def _model_in_process(self) -> LanguageModel:
        from bot.generation.engine import Limits
        from bot.generation.language_model import TransformersModel

        settings = self.config.generation
        folder = self.models.fetch(*self._sources()[1])
        self._progress("Loading the generator", 0, None)
        return TransformersModel(
            folder,
            name=settings.model,
            device=settings.device,
            limits=Limits(
                tokens=settings.kv_tokens,
                queue=settings.queue,
                plugin_s=self.config.ranking.plugin_timeout_s,
            ),
            precision=settings.precision,
            grid=self._grid(),
        )

    def _grid(self) -> GridSize | None:
        """Return places for the sets of all turns that there are at once, on a GPU."""
        from bot.generation.grid import GridSize
        from bot.generation.network import is_on_gpu

        settings = self.config.generation
        if not is_on_gpu(settings.device):
            return None
        prompt = self.config.knowledge.budget_tokens + PROMPT_AROUND
        # The siblings of each prompt variant are a set of their own.
        variants = max(1, min(len(self.plugins.prompt_variants), settings.candidates))
        return GridSize(
            sets=self.config.workers.concurrency * variants,
            rows=math.ceil(settings.candidates / variants),
            prompt_tokens=prompt + self.config.conversation.window_tokens,
            reply_tokens=settings.max_new_tokens,
        )

    def close(self) -> None:
        """End what the generator is writing, for this app and its variants."""
        if self._loaded.language_model is not None:
            self._loaded.language_model.close()

    def _sources(self) -> list[tuple[str, str | None]]:
        """List the weights of this process; a server has its own."""
        knowledge, generation = self.config.knowledge, self.config.generation
        sources = [(knowledge.model, knowledge.model_sha256)]
        if generation.backend == "transformers":
            sources.append((generation.model, generation.model_sha256))
        return [*sources, *self._plugins.classifiers().items()]

    def classifiers(self) -> Mapping[str, Classifies]:
        """Load what plugins classify with, each model once."""
        from bot.generation.classifier import Classifier

        loaded = self._loaded.classifiers
        for source, sha256 in self._plugins.classifiers().items():
            if source not in loaded:
                folder = self.models.fetch(source, sha256)
                self._progress("Loading a classifier", 0, None)
                loaded[source] = Classifier(folder)
        return loaded

    def _tell_vocabulary(self) -> None:
        """Let the plugins that have to know what tokens say read the vocabulary."""
        readers = self._plugins.vocabulary_readers()
        vocabulary = getattr(self.language_model(), "vocabulary", None)
        if vocabulary is not None:
            for reader in readers:
                reader.read_vocabulary(vocabulary)

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
            whole=not paths,
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

    def _answerers(self, arms: Mapping[str, App]) -> dict[str, Answerer]:
        """Return each arm's answerer, the base's with them; they search one index."""
        retriever = self.retriever()
        divided = self.config.experiment
        if divided is None:
            return {BASE: self.answerer(retriever)}
        for app in arms.values():
            app._dialogue = self.dialogue()  # noqa: SLF001 (of its own class)
        return {
            name: replace(app.answerer(retriever), arm=experiment.label(divided, name))
            for name, app in {BASE: self, **arms}.items()
        }

    def answerer(self, retriever: HybridRetriever | None = None) -> Answerer:
        """Return what answers turns; `retriever` is the built-in one, if it is open."""
        retriever = retriever or self.retriever()
        self._tell_vocabulary()
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
            classifiers=self.classifiers(),
            dialogue=self.dialogue(),
        )

    # Actions

    def dialogue(self) -> Dialogue | None:
        """Return what answers messages by actions; None where there are none."""
        if self._dialogue is None and self._acts():
            self._dialogue = self._new_dialogue()
        return self._dialogue

    def _acts(self) -> bool:
        return self.config.actions != ActionsConfig() or bool(self.plugins.actions)

    def _new_dialogue(self) -> Dialogue:
        from bot.actions import domain, places
        from bot.actions.dialogue import Dialogue
        from bot.actions.doing import Parts
        from bot.actions.responses import Responses
        from bot.actions.rules import Rules
        from bot.actions.runner import Runner

        actions = self.config.actions
        built, problems = places.load(actions, self.plugins.actions)
        if problems:
            raise ConfigError(problems)
        names = places.known_names(actions, built)
        return Dialogue(
            parts=Parts(
                config=actions,
                runner=Runner(built),
                rules=Rules(actions.rules, self.embedder().embed),
                responses=Responses(actions.responses),
                domain=orjson.dumps(domain.domain_of(actions, names)),
            ),
            model=self.language_model(),
            persona=self.config.persona,
            plugins={one.name: one.description for one in self.plugins.actions},
        )

    async def _close_actions(self) -> None:
        if self._dialogue is not None:
            await self._dialogue.parts.runner.close()

    @asynccontextmanager
    async def serving_rasa(
        self, settings: ActionsServerConfig
    ) -> AsyncIterator[ActionsServer]:
        """Load everything, then serve actions, replies and wordings to Rasa."""
        from bot.actions.responses import Responses
        from bot.actions.runner import Runner
        from bot.actions_server.replying import Replying
        from bot.actions_server.server import ActionsServer, check
        from bot.actions_server.service import Service
        from bot.actions_server.wording import Wordings

        check(settings)  # before the model is loaded for nothing
        loaded = await asyncio.to_thread(self.answerer)
        parts = loaded.dialogue.parts if loaded.dialogue else None
        # Which actions run, and when, is Rasa's to say here.
        answerer = replace(loaded, dialogue=None)
        config = self.config
        service = Service(
            runner=parts.runner if parts else Runner(()),
            replying=Replying(answers=answerer, config=config),
            wordings=Wordings(
                responses=Responses(config.actions.responses),
                words=answerer,
                config=config,
            ),
        )
        async with AsyncExitStack() as opened:
            opened.push_async_callback(self._close_actions)
            await self._plugins.bot_started()
            opened.push_async_callback(self._plugins.bot_stopped)
            server = ActionsServer(settings=settings, service=service)
            yield await opened.enter_async_context(server)

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
            prompt_variants=plugins.prompt_variants,
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
    async def _state(self) -> AsyncIterator[tuple[Store, EmbeddedRedis | None]]:
        """Open the store, and the server of our own where no other is configured."""
        from bot.conversation.redis_server import EmbeddedRedis
        from bot.conversation.store import Store

        redis, settings = self.config.redis, self.config.conversation
        if redis.url is not None:
            url = redis.url.get_secret_value()
            async with Store(url=url, settings=settings, shards=redis.shards) as store:
                yield store, None
            return
        with EmbeddedRedis(self.config.data / "redis", fsync=redis.fsync) as server:
            async with Store(
                url=server.url, settings=settings, shards=redis.shards, embedded=True
            ) as store:
                yield store, server

    @asynccontextmanager
    async def running(  # noqa: PLR0913 (what a process may do differently)
        self,
        connectors: Mapping[str, Connector] | None = None,
        *,
        roles: Collection[Role] = ("connectors", "workers"),
        seeds: Callable[[], int] | None = None,
        shares: bool = True,
        patient: bool = True,
        operations: OperationsConfig | None = None,
    ) -> AsyncIterator[ConversationManager]:
        """
        Build everything, and close it in the opposite order. A process that does not
        `share` is refused while another one is at work in its data folder: what is
        said to a person at a terminal must not come out at another one. `operations`
        says where health and metrics are served; None: nowhere. Conversations of an
        experiment are those on the configured connectors, where processes share.
        """
        from bot.conversation.manager import ConversationManager
        from bot.conversation.worker import unheard

        arms = self.arms() if shares and connectors is None else {}
        observers = self._observers(arms)
        after_commit: worker.AfterCommit = unheard
        if connectors is None:
            connectors = {one.name: one for one in self.plugins.connectors}
        async with AsyncExitStack() as opened:
            store, server = await opened.enter_async_context(self._state())
            for connector in connectors.values():
                if isinstance(connector, Keeps):
                    connector.keep_on(store.shelf(connector.name))
            if not shares and server is not None and not server.owned:
                raise StoreError(
                    f"data: {str(self.config.data)!r}: in use by another Chorus "
                    f"process; end that one, or name another `data` folder for this one"
                )
            answers = _Answers()
            talking = connectors.values() if "connectors" in roles else ()
            if operations is not None:
                checks = _checks(store, server, talking)
                if "workers" in roles:
                    checks["model"] = answers.trouble
                await opened.enter_async_context(_watched(operations, store, checks))
            web = await opened.enter_async_context(self._web(talking))
            if "workers" in roles:
                # Beside the loop, so that health and readiness can be asked meanwhile.
                answering = self._answering(arms, store)
                loaded = await opened.enter_async_context(answering)
                answers.answerer, after_commit = loaded
                answers.dialogue = await asyncio.to_thread(self.dialogue)
                opened.push_async_callback(self._close_actions)
            manager = ConversationManager(
                store=store,
                answerer=answers.answerer,
                connectors=connectors,
                observers=observers,
                actions=answers.dialogue,
                explain=explain.text,
                config=self.config,
                clock=lambda: datetime.now(UTC),
                seeds=seeds or (lambda: secrets.randbits(63)),
                roles=roles,
                patient=patient,
                alone=server is not None and server.alone,
                after_commit=after_commit,
            )
            await observers.bot_started()
            opened.push_async_callback(observers.bot_stopped)
            running = await opened.enter_async_context(manager)
            if web is not None:
                await opened.enter_async_context(web.answering())
            yield running

    def _observers(self, arms: Mapping[str, App]) -> ChannelPlugins | ArmObservers:
        """Return who is told what happens in which conversation."""
        if self.config.experiment is None or not arms:
            return self._plugins
        every = {BASE: self, **arms}
        return ArmObservers(
            experiment=self.config.experiment,
            plugins={
                name: app._plugins  # noqa: SLF001 (of its own class)
                for name, app in every.items()
            },
        )

    @asynccontextmanager
    async def _answering(
        self, arms: Mapping[str, App], store: Store
    ) -> AsyncIterator[tuple[worker.Answerer, worker.AfterCommit]]:
        """Load and yield who answers, and who is told of each turn that was kept."""
        from bot.conversation.records import ShadowKeeper
        from bot.conversation.worker import unheard

        divided = self.config.experiment
        if divided is None or not arms:
            yield await asyncio.to_thread(self.answerer), unheard
            return
        answerers = await asyncio.to_thread(self._answerers, arms)
        answering = Arms(experiment=divided, answerers=answerers)
        if not divided.shadow:
            yield answering, unheard
            return
        async with Shadows(
            experiment=divided,
            answerers={name: quiet(one) for name, one in answerers.items()},
            keeper=ShadowKeeper(store, divided.name),
        ) as shadows:
            yield answering, shadows.after

    @asynccontextmanager
    async def _web(self, connectors: Iterable[Connector]) -> AsyncIterator[Web | None]:
        """Listen for the services that speak by HTTP; yield None where none does."""
        if not any(isinstance(one, AnswersRequests) for one in connectors):
            yield None
            return
        from bot.web import Web, routes

        paths = routes(connectors)
        if not paths:
            yield None
            return
        settings = self.config.web
        async with Web(host=settings.host, port=settings.port, routes=paths) as web:
            self.web_url = web.url
            logger.info(
                "services reach %s", ", ".join(web.url + path for path in paths)
            )
            yield web

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


def _generator(config: Config) -> tuple[object, ...]:
    """Return what makes the generator another one; all else is asked turn by turn."""
    settings = config.generation
    return (
        settings.backend,
        settings.model,
        settings.model_sha256,
        settings.url,
        settings.device,
        settings.precision,
        settings.kv_tokens,
    )


def _embedder(config: Config) -> tuple[object, ...]:
    settings = config.knowledge
    return settings.embedder, settings.model, settings.model_sha256


@dataclass(slots=True)
class _Answers:
    """Who answers, once everything that it needs is loaded, and by which actions."""

    answerer: worker.Answerer | None = None
    dialogue: Dialogue | None = None

    async def trouble(self) -> str | None:
        loaded = self.answerer is not None
        return None if loaded else "index and model are still being loaded"


@dataclass(slots=True)
class _Loaded:
    """The models in memory, shared by the variants of an app."""

    embedder: Embedder | None = None
    language_model: LanguageModel | None = None
    classifiers: dict[str, Classifies] = field(default_factory=dict)

    def shared_between(self, one: Config, other: Config) -> _Loaded:
        """Return what a bot of another configuration can use of the models of `one`."""
        if _generator(one) == _generator(other) and _embedder(one) == _embedder(other):
            return self
        return _Loaded(
            embedder=self.embedder if _embedder(one) == _embedder(other) else None,
            classifiers=self.classifiers,
        )


@asynccontextmanager
async def _watched(
    settings: OperationsConfig, store: Store, checks: Mapping[str, Check]
) -> AsyncIterator[None]:
    """Serve health, readiness and metrics."""
    from bot.conversation import overview
    from bot.operations import Operations

    if settings.port is None:
        yield
        return
    async with Operations(
        host=settings.host,
        port=settings.port,
        checks=checks,
        backlogs=partial(overview.backlogs, store),
    ) as serving:
        logger.info("health, readiness and metrics are at %s", serving.url)
        yield


def _checks(
    store: Store, server: EmbeddedRedis | None, connectors: Iterable[Connector]
) -> dict[str, Check]:
    """Return what readiness asks, by its name there."""

    async def redis() -> str | None:
        if server is not None and server.failed is not None:
            return server.failed
        try:
            await store.ping()
        except StoreError as error:
            return str(error)
        return None

    async def told(connector: TellsTrouble) -> str | None:
        return connector.trouble()

    return {"redis": redis} | {
        f"connector {connector.name}": partial(told, connector)
        for connector in connectors
        if isinstance(connector, TellsTrouble)
    }


def _load_arms(
    config: Config, folder: Path
) -> tuple[dict[str, tuple[Config, ChannelPlugins]], list[str]]:
    """Return what could be loaded of the experiment's arms, and every problem."""
    if config.experiment is None:
        return {}, []
    configs, problems = experiment.read_arms(config, folder)
    found = {}
    for name, own in configs.items():
        path = folder / config.experiment.arms[name].config
        plugins, wrong = ChannelPlugins.load(own, str(path))
        found[name] = (own, plugins)
        problems += wrong
    return found, problems


def _wrong_actions(
    config: Config, plugins: ChannelPlugins, folder: Path, *, draft: bool = False
) -> Iterable[str]:
    """
    Load the classes of actions; yield what is wrong with them, and with their rules
    where nothing else is: in a `draft` a name that is missing may be a misspelt one.
    """
    actions = config.actions
    if actions == ActionsConfig():
        return
    from bot.actions import places, rules
    from bot.actions.doing import CORE

    # As with `python -m rasa_sdk`: modules that lie beside the file can be named.
    if str(folder.resolve()) not in sys.path:
        sys.path.append(str(folder.resolve()))
    built, problems = places.load(actions, plugins.everywhere.actions)
    yield from problems
    if not problems and not draft:
        names = places.known_names(actions, built)
        all_known = places.are_all_known(actions)
        yield from rules.problems(actions, [*names, *CORE], all_known=all_known)


def _missing_paths(config: Config) -> Iterable[str]:
    for path in config.knowledge.paths:
        if not path.exists():
            yield (
                f"knowledge.paths: no such file or folder {str(path)!r}; correct the "
                "path or remove it"
            )


def _named(choices: Sequence[Choice], name: str) -> Choice:
    return next(one for one in choices if one.name == name)
