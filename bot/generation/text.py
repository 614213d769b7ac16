"""
Text: between a model's token ids and what people read and write.

Knows the tokenizer and its chat template, nothing about weights. What people wrote is
never read as the model's own marks: whatever in it the tokenizer would take for a
control token, such as `<|im_end|>`, is broken apart before the template is applied.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError
from tokenizers.decoders import DecodeStream

from bot.interfaces import ChatMessage, ToolSchema

# For models that were never taught to chat.
PLAIN_TEMPLATE = """\
{% for message in messages %}{{ message['role'] | capitalize }}: \
{{ message['content'] }}

{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""


# Rendered once to see whether a template knows tools.
A_TOOL = ToolSchema(
    name="mark_of_a_tool",
    description="What it does.",
    parameters={"type": "object", "properties": {"n": {"type": "integer"}}},
)
A_CHAT = (
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content="hello"),
)
# Where a template has no words for tools: the marks of Hermes' and Qwen's format, which
# many models have seen.
TOOLS = """\
You can call these functions, each described in JSON:
<tools>
{tools}
</tools>
To call one, answer with a JSON object of its name and arguments inside these tags:
<tool_call>
{{"name": <name of the function>, "arguments": <object of its arguments>}}
</tool_call>"""


class Text:
    """`tokenizer` is a fast tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._control = _control_tokens(tokenizer)
        self._template = None if tokenizer.chat_template else PLAIN_TEMPLATE
        self._has_system_role = self._renders_system_role()

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of `text`, nothing added; templates bring their own."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def text(self, tokens: Sequence[int], stop: Sequence[str] = ()) -> str:
        """
        Return what is to be read: without control tokens, without a last character
        of which only some bytes were drawn, up to the first of `stop`, stripped.
        """
        text = self.raw(tokens)
        ends = [text.find(each) for each in stop if each in text]
        text = text[: min(ends)] if ends else text.rstrip("\N{REPLACEMENT CHARACTER}")
        return text.strip()

    def growing(self, tokens: Sequence[int]) -> Growing:
        """Return a text that goes on from what `tokens` spell."""
        # A stream takes whole characters as its beginning; the rest is added to it.
        whole = len(tokens)
        while (text := self.raw(tokens[:whole])).endswith("\N{REPLACEMENT CHARACTER}"):
            whole -= 1
        stream = DecodeStream(ids=list(tokens[:whole]), skip_special_tokens=True)
        growing = Growing(self._tokenizer.backend_tokenizer, stream, text)
        for token in tokens[whole:]:
            growing.add(token)
        growing.length = 0
        return growing

    def raw(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def pieces(self, size: int) -> list[str]:
        """
        Return what each of the first `size` tokens adds to a text. Of one that stands
        alone some tokenizers drop the space before it, so it is read behind another.
        """
        before = self.tokens("a")
        length = len(self.raw(before))
        texts: list[str] = self._tokenizer.batch_decode(
            [[*before, token] for token in range(size)], skip_special_tokens=True
        )
        return [text[length:] for text in texts]

    def render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        """Return the chat as the model was taught to read it, its own part opened."""
        messages = [
            replace(message, content=self.harmless(message.content))
            for message in messages
        ]
        if tools and not self._knows_tools:
            messages, tools = with_tools(messages, tools), ()
        return self._in_its_roles(messages, tools)

    def _in_its_roles(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema]
    ) -> str:
        if not self._has_system_role:
            messages = [replace(each, role=_folded(each.role)) for each in messages]
        return self._apply(_merged(messages), tools)

    def harmless(self, text: str) -> str:
        """Return `text` with a space inside everything that is a control token."""
        while spans := self._control_spans(text):
            for start, end in reversed(spans):
                middle = text[start:end]
                text = f"{text[:start]}{middle[:1]} {middle[1:]}{text[end:]}"
                if len(middle) == 1:
                    text = f"{text[:start]} {text[end + 1 :]}"
        return text

    def _control_spans(self, text: str) -> list[tuple[int, int]]:
        encoded = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True
        )
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [span for token, span in pairs if token in self._control]

    def _renders_system_role(self) -> bool:
        mark = "mark of the system role"
        try:
            rendered = self._apply(
                [
                    ChatMessage(role="system", content=mark),
                    ChatMessage(role="user", content="hello"),
                ]
            )
        except TemplateError:  # how a template says that it knows no such role
            return False
        return mark in rendered

    @cached_property
    def _knows_tools(self) -> bool:
        """A template that does not know tools leaves them out, or fails."""
        try:
            return A_TOOL.name in self._in_its_roles(A_CHAT, [A_TOOL])
        except TemplateError:
            return False

    def _apply(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema] = ()
    ) -> str:
        rendered: str = self._tokenizer.apply_chat_template(
            [{"role": each.role, "content": each.content} for each in messages],
            tools=[as_function(each) for each in tools] or None,
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return rendered


class TextVocabulary:
    """What plugins may know of the tokens; `size` is the width of the logits."""

    def __init__(self, text: Text, size: int, end_tokens: frozenset[int]) -> None:
        self._text = text
        self.size = size
        self.end_tokens = end_tokens

    def encode(self, text: str) -> list[int]:
        return self._text.tokens(text)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._text.raw(tokens)

    @cached_property
    def _pieces(self) -> list[str]:
        return self._text.pieces(self.size)

    def piece(self, token: int) -> str:
        return self._pieces[token]


class Growing:
    """
    A text that tokens are added to. A character of which only some bytes have come is
    held back, and so are control tokens.
    """

    def __init__(self, tokenizer: Any, stream: DecodeStream, begun: str) -> None:
        self._tokenizer = tokenizer
        self._stream = stream
        self.text = begun
        self.length = 0

    def add(self, token: int) -> bool:
        """Add a token; return whether the text has grown by it."""
        more = self._stream.step(self._tokenizer, token)
        self.length += 1
        self.text += more or ""
        return bool(more)

    def copy(self) -> Growing:
        """Return another that goes its own way from here."""
        twin = Growing(self._tokenizer, copy.copy(self._stream), self.text)
        twin.length = self.length
        return twin


def settled(text: str, stop: Sequence[str]) -> str:
    """
    Return what of a growing text can be shown: up to the first of `stop`, and without
    an end that one of them might begin with.
    """
    ends = [text.find(each) for each in stop if each in text]
    if ends:
        return text[: min(ends)]
    held = max(
        (
            size
            for each in stop
            for size in range(1, len(each))
            if text.endswith(each[:size])
        ),
        default=0,
    )
    return text[: len(text) - held]


def _control_tokens(tokenizer: Any) -> frozenset[int]:
    """Special tokens, and those added ones that look like marks, such as <think>."""
    added = {
        token
        for token, entry in tokenizer.added_tokens_decoder.items()
        if entry.special or (len(entry.content) > 2 and entry.content[0] in "<[")  # noqa: PLR2004 -- shorter is no mark
    }
    return frozenset(added | set(tokenizer.all_special_ids))


def as_function(tool: ToolSchema) -> dict[str, Any]:
    """Return a tool in the words of OpenAI's API, which templates read."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def with_tools(
    messages: Sequence[ChatMessage], tools: Sequence[ToolSchema]
) -> list[ChatMessage]:
    """Return the messages, the system's followed by what says how to call the tools."""
    told = "\n".join(
        json.dumps(as_function(each), ensure_ascii=False) for each in tools
    )
    system = [each for each in messages if each.role == "system"]
    rest = [each for each in messages if each.role != "system"]
    offer = ChatMessage(role="system", content=TOOLS.format(tools=told))
    return [*system, offer, *rest]


def _folded(role: str) -> Any:
    return "user" if role == "system" else role


def _merged(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Many templates refuse two messages of one role in a row."""
    merged: list[ChatMessage] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            content = f"{merged[-1].content}\n\n{message.content}"
            merged[-1] = replace(message, content=content)
        else:
            merged.append(message)
    return merged
