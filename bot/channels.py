"""
Which plugins serve which chats: the whole bot's, and those of each channel of its own.

Loads every list of the configuration, says what is wrong with it and with the names
that were chosen from it, and tells plugins what they are to be told. Builds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bot import plugin_manager
from bot.config import Channel, Config, RankingConfig, Use
from bot.config_file import did_you_mean
from bot.interfaces import ReadsVocabulary, Truncates, UsesClassifiers
from bot.model import Address, Event, Record, Reply, Turn
from bot.plugin_manager import Plugins


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPlugins:
    """The plugins of the whole bot, and those of each channel that has its own."""

    everywhere: Plugins
    channels: Sequence[tuple[Channel, Plugins]] = field(default_factory=list)

    @classmethod
    def load(
        cls, config: Config, where: str, mistakes: Sequence[str] = ()
    ) -> tuple[ChannelPlugins, list[str]]:
        """
        Return what could be loaded, and the problems of all lists, of the names chosen
        from them and of the plugins with the whole. `mistakes` are the file's own: with
        any, `config` is only what is right in it.
        """
        problems = list(mistakes)

        def loaded(uses: Mapping[str, Use]) -> Plugins:
            # A setting whose secret is not set is told already, and once is enough.
            whole = {
                at: use
                for at, use in uses.items()
                if not any(mistake.startswith(f"{at}.") for mistake in mistakes)
            }
            plugins, wrong = plugin_manager.load_sound(whole)
            problems.extend(wrong)
            return plugins

        everywhere = loaded(
            _placed(config.plugins, f"{where}: plugins")
            | _placed(config.connectors, f"{where}: connectors")
        )
        channels = [
            (channel, everywhere)
            if channel.plugins is None
            else (channel, loaded(_placed(channel.plugins, _place(where, number))))
            for number, channel in enumerate(config.channels)
        ]
        plugins = cls(everywhere=everywhere, channels=channels)
        names = plugins._unknown_names(config, where, problems, draft=bool(mistakes))
        told = [f"{where}: {problem}" for problem in names]
        told += [f"{where}: {problem}" for problem in plugins._need_logits(config)]
        told += [f"{where}: {problem}" for problem in plugins._need_replies(config)]
        if not mistakes:  # plugins are promised a whole configuration
            wrong = everywhere.check_config(config)
            told += [f"{where}: {problem}" for problem in wrong]
        return plugins, [*problems, *told]

    # Told as the manager tells: everyone of the bot's life, a channel's of its turns

    async def bot_started(self) -> None:
        for plugins in self._distinct():
            await plugins.bot_started()

    async def bot_stopped(self) -> None:
        for plugins in self._distinct():
            await plugins.bot_stopped()

    async def turn_started(self, turn: Turn) -> None:
        await self._of(turn.message.address).turn_started(turn)

    def hear_of_replies(self, address: Address) -> bool:
        return self._of(address).hear_of_replies()

    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        await self._of(turn.message.address).reply_sent(turn, reply)

    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        await self._of(turn.message.address).turn_failed(turn, error)

    async def feedback_received(self, event: Event, record: Record | None) -> None:
        await self._of(event.address).feedback_received(event, record)

    async def conversation_handed_over(self, turn: Turn, reason: str) -> None:
        address = turn.message.address
        await self._of(address).conversation_handed_over(turn, reason)

    async def conversation_resumed(self, address: Address) -> None:
        await self._of(address).conversation_resumed(address)

    def classifiers(self) -> dict[str, str | None]:
        """Return the source and the hash of each model that plugins classify with."""
        found: dict[str, str | None] = {}
        for plugins in self._distinct():
            asking = (*plugins.candidate_filters, *plugins.scorers, *plugins.rerankers)
            for one in asking:
                if isinstance(one, UsesClassifiers):
                    found |= one.classifiers
        return found

    def vocabulary_readers(self) -> list[ReadsVocabulary]:
        """Return the samplers and logits processors that want to know the tokens."""
        return [
            one
            for plugins in self._distinct()
            for one in (*plugins.samplers, *plugins.logits_processors)
            if isinstance(one, ReadsVocabulary)
        ]

    def _of(self, address: Address) -> Plugins:
        own = (plugins for channel, plugins in self.channels if channel.covers(address))
        return next(own, self.everywhere)

    def _distinct(self) -> list[Plugins]:
        every = [self.everywhere, *(plugins for _, plugins in self.channels)]
        return list({id(plugins): plugins for plugins in every}.values())

    def _need_logits(self, config: Config) -> Iterable[str]:
        """Return a sentence for each plugin that a model server cannot run."""
        if config.generation.backend == "transformers":
            return
        yield from _beyond_truncation(config, self.everywhere, "")
        for number, (channel, plugins) in enumerate(self.channels):
            if channel.plugins is not None:
                at = f"channels[{number}]: "
                yield from _beyond_truncation(config, plugins, at)

    def _need_replies(self, config: Config) -> Iterable[str]:
        """Return a sentence if replies come in blocks and siblings differ by prompt."""
        variants = [one for each in self._distinct() for one in each.prompt_variants]
        # Every block goes on from one prompt; siblings of several have no such thing.
        if config.generation.mode == "blocks" and variants:
            names = ", ".join(dict.fromkeys(repr(one.name) for one in variants))
            yield (
                "generation.mode: 'blocks' goes on from one prompt, and siblings have "
                f"several ({names}); disable the plugin that has these prompt "
                "variants, such as 'styles', or use mode 'replies'"
            )

    def _unknown_names(
        self, config: Config, where: str, problems: Sequence[str], *, draft: bool
    ) -> Iterable[str]:
        """
        Return a sentence for each name that no enabled plugin answers to. A list with
        a mistake is passed over: the plugin that has the name may be the wrong one. So
        are the defaults of a draft: the key that is misspelt may be the name's.
        """

        def sound(list_of: str) -> bool:
            return not any(problem.startswith(list_of) for problem in problems)

        everywhere = sound(f"{where}: plugins") and bool(config.plugins or not draft)
        if everywhere:
            yield from _unknown(_choices(config, self.everywhere), draft=draft)
        for number, (channel, plugins) in enumerate(self.channels):
            own = channel.plugins is not None
            if not sound(_place(where, number)) or not (own or everywhere):
                continue
            chosen = _channel_choices(config, channel, plugins, f"channels[{number}]")
            yield from _unknown(chosen, draft=draft)


def _place(where: str, number: int) -> str:
    return f"{where}: channels[{number}].plugins"


def _placed(uses: Sequence[Use], where: str) -> dict[str, Use]:
    """Give each its place; the stand-in for one that could not be read has no name."""
    return {f"{where}[{number}]": use for number, use in enumerate(uses) if use.use}


@dataclass(frozen=True, slots=True)
class _Choice:
    """A name that the operator chose, or left to the default, and what there is."""

    key: str
    name: str
    enabled: Sequence[str]
    written: bool


def _choices(config: Config, plugins: Plugins) -> list[_Choice]:
    return [
        _sampler(config, plugins, "generation"),
        _Choice(
            "knowledge.embedder",
            config.knowledge.embedder,
            [*(one.name for one in plugins.embedders), "minilm"],
            "embedder" in config.knowledge.model_fields_set,
        ),
        *_ranking(config.ranking, plugins, "ranking"),
    ]


def _channel_choices(
    config: Config, channel: Channel, plugins: Plugins, at: str
) -> Iterable[_Choice]:
    """Only what differs from the bot's own, so that nothing is told twice."""
    if channel.plugins is not None:
        yield _sampler(config, plugins, f"{at}: generation")
    if channel.ranking is not None:
        yield from _ranking(channel.ranking, plugins, f"{at}.ranking")
    elif channel.plugins is not None:
        yield from _ranking(config.ranking, plugins, f"{at}: ranking")


def _sampler(config: Config, plugins: Plugins, key: str) -> _Choice:
    return _Choice(
        f"{key}.sampler",
        config.generation.sampler,
        [one.name for one in plugins.samplers],
        "sampler" in config.generation.model_fields_set,
    )


def _ranking(ranking: RankingConfig, plugins: Plugins, key: str) -> Iterable[_Choice]:
    yield _Choice(
        f"{key}.selector",
        ranking.selector,
        [one.name for one in plugins.selectors],
        "selector" in ranking.model_fields_set,
    )
    scorers = [one.name for one in plugins.scorers]
    for name in ranking.weights:
        yield _Choice(f"{key}.weights.{name}", name, scorers, written=True)


def _beyond_truncation(config: Config, plugins: Plugins, at: str) -> Iterable[str]:
    server = "which backend 'openai' does not give"
    for one in plugins.samplers:
        chosen = one.name == config.generation.sampler
        if chosen and not isinstance(one, Truncates):
            yield (
                f"{at}generation.sampler: {one.name!r} draws from logits, {server}; "
                "choose one that only truncates, such as 'multinomial'"
            )
    for processor in plugins.logits_processors:
        if not (isinstance(processor, Truncates) and processor.truncation.is_min_p):
            yield (
                f"{at}generation.backend: the logits processor {processor.name!r} "
                f"changes logits, {server}; disable it, or use backend 'transformers'"
            )


def _unknown(choices: Iterable[_Choice], *, draft: bool) -> Iterable[str]:
    for choice in choices:
        if choice.name not in choice.enabled and (choice.written or not draft):
            near = did_you_mean(choice.name, choice.enabled)
            yield f"{choice.key}: no enabled plugin provides {choice.name!r}; {near}"
