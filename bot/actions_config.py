"""
The `actions` section: where actions are, when they run, and what they talk about.

Knows the shape, not what is done with it. Names are rasa-sdk's: an operator who comes
from Rasa finds slots, forms and responses as they know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import re2
from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bot.sections import HOUR_S, Section, checked_address, checked_key

# What is wrong with a pattern is told in our words; without it RE2 also writes them to
# standard error.
QUIET = re2.Options()
QUIET.log_errors = False


def _pattern(pattern: str) -> str:
    try:
        re2.compile(pattern, options=QUIET)
    except re2.error as error:
        raise PydanticCustomError(
            "pattern",
            "not a regular expression that RE2 reads ({told})",
            {"told": error.args[0].decode(errors="replace")},
        ) from error
    return pattern


Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,99}$")]


class ActionSource(Section):
    """
    Where actions are: a class of rasa-sdk's in this process, or a server of them.
    """

    use: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:Class of an action; the module is found beside this file "
        "or installed",
    )
    url: Annotated[str, AfterValidator(checked_address)] | None = Field(
        None, description="address of an action server, such as http://127.0.0.1:5055"
    )
    token: Annotated[SecretStr, AfterValidator(checked_key)] | None = Field(
        None, description="sent to the server as `Authorization: Bearer …`"
    )
    actions: tuple[Name, ...] = Field(
        (), description="the server's actions that may run; empty: all it lists"
    )
    streams: tuple[Name, ...] = Field(
        (),
        description="the server's actions that stream: over HTTP their chunks arrive "
        "as messages, and are joined to one text",
    )
    timeout_s: float = Field(
        10, gt=0, le=HOUR_S, description="seconds an action may take"
    )
    reword: bool = Field(
        default=False,
        description="what its actions say is worded by the generator, which has to "
        "keep every number and name",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.url is None) == (self.use is None):
            raise PydanticCustomError(
                "one_source", "write either use (a class) or url (a server)"
            )
        return self

    @field_validator("token", "actions", "streams")
    @classmethod
    def _for_a_server(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("use") is not None:
            raise PydanticCustomError(
                "other_source", "is for a server; remove it, or write url"
            )
        return value


class Rule(Section):
    """When an action runs: any one of its triggers is enough."""

    run: Name = Field(description="name of an action, a form or a response (utter_…)")
    command: Name | None = Field(
        None, description="the customer writes it after a slash"
    )
    intent: Name | None = Field(
        None,
        description="a button's payload `/intent{…}` or a reminder names it; actions "
        "read it as the intent of the message",
    )
    pattern: str | None = Field(
        None,
        min_length=1,
        description="a regular expression (RE2) found in the message; named groups "
        "fill the slots of their names",
    )
    keywords: tuple[str, ...] = Field(
        (), description="words or phrases of the message, whatever their case"
    )
    examples: tuple[str, ...] = Field(
        (), description="messages that mean the same, compared by embedding"
    )
    threshold: float = Field(
        0.6,
        gt=0,
        le=1,
        description="cosine similarity to the nearest example from which on it runs",
    )
    slot: Name | None = Field(None, description="a slot that was just filled")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return None if pattern is None else _pattern(pattern)

    @model_validator(mode="after")
    def _has_a_trigger(self) -> Self:
        triggers = (self.command, self.intent, self.pattern, self.slot)
        if not (any(triggers) or self.keywords or self.examples):
            raise PydanticCustomError(
                "no_trigger",
                "nothing says when it runs; write command, intent, pattern, keywords, "
                "examples or slot",
            )
        return self


class SlotConfig(Section):
    """One thing that is remembered of a conversation, and how a message fills it."""

    type: Literal["text", "bool", "float", "int", "categorical", "list", "any"] = Field(
        "text", description="what it holds; actions read it in the domain"
    )
    initial_value: Any = Field(None, description="what it holds at first")
    values: tuple[str, ...] = Field((), description="what a categorical one may hold")
    pattern: str | None = Field(
        None,
        min_length=1,
        description="a regular expression (RE2) that finds the value in a message: "
        "its group `value`, or all of it",
    )
    always: bool = Field(
        default=False,
        description="the pattern is looked for in every message, not only when a form "
        "asks for the slot",
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return None if pattern is None else _pattern(pattern)


class FormConfig(Section):
    """Slots that are asked for, one after the other."""

    slots: tuple[Name, ...] = Field(
        min_length=1,
        description="what it asks for, in order, by utter_ask_<form>_<slot>, "
        "utter_ask_<slot> or the actions action_ask_…",
    )
    submit: Name | None = Field(
        None, description="the action or response that runs once all are filled"
    )
    leave: tuple[str, ...] = Field(
        ("cancel", "never mind", "stop"),
        description="messages that leave the form; what is filled is kept, and the "
        "form goes on from there when it is started again",
    )
    left: str = Field(
        "All right, we leave it at that. What you told me is kept for later.",
        description="said when it is left",
    )


def _button(button: Mapping[str, str]) -> Mapping[str, str]:
    # Rasa's files give a url its type, `web_url`.
    unknown = [key for key in button if key not in {"title", "payload", "url", "type"}]
    if unknown:
        wrong = f"unknown key {unknown[0]!r}"
    elif not button.get("title", "").strip():
        wrong = "no title"
    elif not (button.get("payload") or button.get("url")):
        wrong = "no payload or url"
    else:
        return button
    raise PydanticCustomError(
        "button",
        "{wrong}; a button has a title, and a payload or a url",
        {"wrong": wrong},
    )


class ResponseConfig(Section):
    """One wording of a response; `{name}` is a slot or what the action gave."""

    text: str = Field("", description="Markdown")
    buttons: tuple[Annotated[Mapping[str, str], AfterValidator(_button)], ...] = Field(
        (), description="each with a title and a payload, or a url"
    )
    image: str | None = Field(None, description="address of a picture")
    attachment: str | None = Field(None, description="address of a file")
    custom: Mapping[str, Any] = Field(
        default_factory=dict, description="JSON for the connector"
    )
    channel: str | None = Field(None, description="the connector it is for; none: all")
    reword: bool = Field(default=False, description="worded by the generator")

    @model_validator(mode="after")
    def _shows_something(self) -> Self:
        parts = (self.buttons, self.image, self.attachment, self.custom)
        if not (self.text.strip() or any(parts)):
            raise PydanticCustomError(
                "shows_nothing",
                "shows nothing; write text, buttons, image, attachment or custom",
            )
        return self


def _worded(wordings: tuple[ResponseConfig, ...]) -> tuple[ResponseConfig, ...]:
    if not wordings:
        raise PydanticCustomError(
            "no_wording", "empty; write a wording, such as `- text: Hello`"
        )
    return wordings


class ToolConfig(Section):
    """An action that the model may call."""

    description: str = Field(min_length=1, description="what it does, for the model")
    slots: tuple[Name, ...] = Field(
        (), description="its arguments: slots, filled from the model's call"
    )


class ActionsServerConfig(Section):
    """Where `chorus actions-server` serves these actions to Rasa."""

    host: str = Field("127.0.0.1", min_length=1, description="address it listens on")
    port: int = Field(5055, ge=0, le=65_535, description="its port; 0: any free one")
    grpc_port: int | None = Field(
        None, ge=0, le=65_535, description="port of the gRPC service; none: not served"
    )
    token: Annotated[SecretStr, AfterValidator(checked_key)] | None = Field(
        None,
        description="what callers have to show; required unless host is a loopback "
        "address",
    )


class ActionsConfig(Section):
    """rasa-sdk's actions, when they run, and what they talk about."""

    sources: tuple[ActionSource, ...] = Field(
        (), description="where actions are, each a class (use) or a server (url)"
    )
    rules: tuple[Rule, ...] = Field(
        (), description="when which runs; the first that matches counts"
    )
    slots: Mapping[Name, SlotConfig] = Field(
        default_factory=dict, description="what is remembered"
    )
    forms: Mapping[Name, FormConfig] = Field(
        default_factory=dict, description="what is asked for"
    )
    responses: Mapping[
        Name, Annotated[tuple[ResponseConfig, ...], AfterValidator(_worded)]
    ] = Field(
        default_factory=dict, description="response templates, by their utter_ names"
    )
    by_model: bool = Field(
        default=False,
        description="the model may call the actions under `tools` for a message that "
        "no rule matches",
    )
    tools: Mapping[Name, ToolConfig] = Field(
        default_factory=dict, description="what the model is offered, by action"
    )
    server: ActionsServerConfig = ActionsServerConfig()
