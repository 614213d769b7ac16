"""How a reply looks as messages: formats, cuts, sources and buttons."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.model import Button, Citation, Reply
from connectors.telegram import rendering
from connectors.telegram.additions import additions_of
from connectors.telegram.buttons import pressed, with_choice
from connectors.telegram.rendering import Part, preview
from connectors.telegram.rendering import rendered as rendered_with
from connectors.telegram.splitting import Entity, Formatted, split
from tests.connectors.telegram.limits import check_keyboard, check_text, cut, units
from tests.connectors.telegram.talking import TURN


def rendered(reply: Reply, *, feedback: bool = False) -> list[Part]:
    return rendered_with(reply, additions_of(reply), TURN, feedback=feedback)


def parts_of(text: str, **more: object) -> list[Part]:
    return rendered(Reply(text=text, **more))  # type: ignore[arg-type]


def formats(part: Part) -> list[tuple[str, str]]:
    """Return each format with the words that have it."""
    return [(one.type, cut(part.text, one.offset, one.length)) for one in part.entities]


def check(part: Part) -> None:
    """Let the stand-in look at a message as Telegram would."""
    entities = [entity.wire for entity in part.entities]
    check_text({"text": part.text, "entities": entities})
    check_keyboard({"inline_keyboard": part.keyboard})


def test_markdown_becomes_text_with_formats() -> None:
    (part,) = parts_of(
        "# Refunds\n\n🚲 **5 days**, _not_ `six`:\n\n- by card\n- [by post](https://x.example)"
    )

    assert part.text == "Refunds\n\n🚲 5 days, not six:\n\n• by card\n• by post"
    assert [one for one in formats(part) if one[1] != "Refunds"] == [
        ("bold", "5 days"),
        ("italic", "not"),
        ("code", "six"),
        ("text_link", "by post"),
    ]
    check(part)


def test_a_link_leads_to_a_web_page_or_nowhere() -> None:
    (part,) = parts_of(
        "[a](javascript:alert(1)) [b](tg://user?id=5) [c](https://x.example/)"
    )

    assert part.text == "a b c"
    assert formats(part) == [("text_link", "c")]


@pytest.mark.parametrize(
    "text",
    [
        "half \ud83d character",
        "zero \x00 byte",
        "**unclosed",
        "```\nopen",
        "<b>x",
        "a|b",
    ],
)
def test_odd_text_is_shown_somehow(text: str) -> None:
    (part,) = parts_of(text)

    check(part)


def test_what_is_no_text_as_markdown_is_shown_as_it_is() -> None:
    (part,) = parts_of("<!-- thinking -->")

    assert part.text == "<!-- thinking -->"


def test_a_text_that_the_converter_stumbles_over_is_shown_plain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stumbles(*_: object, **__: object) -> None:
        raise IndexError

    monkeypatch.setattr("telegramify_markdown.convert", stumbles)

    (part,) = parts_of("**bold**")

    assert part.text == "**bold**"


def test_nothing_to_show_is_no_message() -> None:
    assert parts_of(" \n ") == []


def test_a_long_reply_is_cut_between_its_paragraphs() -> None:
    paragraphs = [f"{number} " + "word " * 300 for number in range(6)]

    parts = parts_of("\n\n".join(paragraphs))

    assert len(parts) == 3
    assert [part.text[0] for part in parts] == ["0", "2", "4"]
    assert " ".join(part.text for part in parts).split() == " ".join(paragraphs).split()


def test_a_code_block_is_closed_and_opened_again_where_it_is_cut() -> None:
    lines = [f"line {number} = {number}" for number in range(600)]

    parts = parts_of("Look:\n\n```python\n" + "\n".join(lines) + "\n```\n\nThat is it.")

    assert len(parts) > 1
    for part in parts:
        (code,) = [one for one in part.entities if one.type == "pre"]
        assert code.language == "python"
        for line in cut(part.text, code.offset, code.length).strip().split("\n"):
            assert line in lines
        check(part)


def test_a_short_code_block_is_not_cut_if_it_need_not_be() -> None:
    code = "\n\n".join(f"x{number} = 1" for number in range(100))

    first, second = parts_of("word " * 700 + f"\n\n```\n{code}\n```")

    assert "x0" not in first.text
    assert [one.type for one in second.entities] == ["pre"]


def test_no_character_is_cut_in_two() -> None:
    parts = parts_of("🚲" * 5000)

    assert "".join(part.text for part in parts) == "🚲" * 5000
    assert [units(part.text) for part in parts] == [4096, 4096, 1808]


@given(
    st.text(alphabet=st.sampled_from("ab \n🚲é*_`>#-[]()|~"), max_size=300),
    st.integers(min_value=2, max_value=40),
)
def test_whatever_is_cut_keeps_its_words_and_its_formats_fit(
    text: str, limit: int
) -> None:
    whole = rendering._formatted(text)

    pieces = split(whole, limit)

    for piece in pieces:
        assert 0 < units(piece.text) <= limit
        entities = [entity.wire for entity in piece.entities]
        check_text({"text": piece.text, "entities": entities})
    kept = "".join("".join(piece.text.split()) for piece in pieces)
    assert kept == "".join(whole.text.split())


def test_a_link_that_is_cut_leads_there_from_both_sides() -> None:
    link = Entity(type="text_link", offset=2, length=16, url="https://x.example")

    pieces = split(Formatted(text="a 🚲🚲🚲🚲 🚲🚲🚲 b", entities=[link]), 10)

    assert len(pieces) > 1
    assert {one.url for piece in pieces for one in piece.entities} == {link.url}


def test_sources_are_the_last_paragraph_each_once() -> None:
    citations = [
        Citation(
            source="refunds.md", passage="p1", title="Refunds", url="https://x.example"
        ),
        Citation(
            source="refunds.md", passage="p2", title="Refunds", url="https://x.example"
        ),
        Citation(source="opening.txt", passage="p3"),
        Citation(source="c", passage="p4", title="*C*", url="javascript:x"),
    ]

    (part,) = parts_of("Five 🚲 days.", citations=citations)

    assert part.text == "Five 🚲 days.\n\n[1] Refunds\n[2] opening.txt\n[3] *C*"
    assert formats(part) == [("text_link", "[1] Refunds")]


def test_buttons_are_under_the_last_message_and_fit_into_64_bytes() -> None:
    buttons = [Button(text=f"Choice {n}", payload="x" * 5000) for n in range(3)]
    reply = Reply(text="word " * 1500, buttons=buttons, feedback=True)

    *before, last = rendered(reply, feedback=True)

    assert [part.keyboard for part in before] == [[]]
    assert [[button["text"] for button in row] for row in last.keyboard] == [
        ["Choice 0"],
        ["Choice 1"],
        ["Choice 2"],
        ["👍", "👎"],
    ]
    for row in last.keyboard:
        for button in row:
            assert len(button["callback_data"].encode()) <= 64
            assert pressed(button["callback_data"]) is not None


def test_more_buttons_than_a_keyboard_holds_are_left_out() -> None:
    buttons = [Button(text="", payload="x")] * 500

    (part,) = parts_of("Which?", buttons=buttons)

    assert len(part.keyboard) == 98
    check(part)


def test_a_choice_is_marked_in_the_keyboard() -> None:
    (part,) = rendered(
        Reply(text="Five.", buttons=[Button(text="Yes", payload="y")]),
        feedback=True,
    )
    shown = {"inline_keyboard": part.keyboard}

    marked = with_choice(shown, -1)

    assert marked is not None
    assert [[one["text"] for one in row] for row in marked["inline_keyboard"]] == [
        ["Yes"],
        ["👍", "👎 ✓"],
    ]
    assert with_choice(marked, -1) is None


def test_a_preview_is_one_message() -> None:
    shown = preview("**so far** " + "word " * 3000)

    assert shown is not None
    assert units(shown.text) <= 4096
    assert preview("  ") is None
