# ruff: noqa: RUF001 - Chinese marks are meant
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import JsonValue

from bot.actions.responses import (
    LONGEST_VALUE,
    Rendered,
    Responses,
    UnknownResponse,
    literal,
)
from bot.actions_config import ResponseConfig

READERS = [MarkdownIt("commonmark"), MarkdownIt("commonmark").enable(["table"])]
READERS[1].enable("strikethrough")

MARKUP = st.text(alphabet="ab1 \n\t[]()<>{}!*_`~\\&#;:/.+-=|\"'@。ä🙂")
TYPED = st.one_of(
    st.text(),
    MARKUP,
    st.sampled_from(
        [
            "[click](http://evil)",
            "![x](http://evil/x.png)",
            "x](http://evil)[",
            "<http://evil>",
            "<a href=http://evil>",
            "[shop]: http://evil",
            "a) [c](http://evil",
            "x> [c](http://evil)",
            "` [c](http://evil) `",
            "\\[c](http://evil)",
            "&#91;c](http://evil)",
        ]
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def a_responses(*wordings: Mapping[str, Any]) -> Responses:
    """Make responses of one name, `utter_it`."""
    made = tuple(ResponseConfig.model_validate(wording) for wording in wordings)
    return Responses({"utter_it": made})


def rendered(
    wording: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
    slots: Mapping[str, JsonValue] | None = None,
) -> Rendered:
    return a_responses(wording).render(
        "utter_it", values or {}, platform="slack", slots=slots or {}, seed=1
    )


def text_of(text: str, **values: Any) -> Any:
    return rendered({"text": text}, values).response.get("text", "")


def tokens_of(markdown: str, reader: MarkdownIt) -> Iterator[Token]:
    for block in reader.parse(markdown):
        yield block
        yield from block.children or ()


def shown(markdown: str, reader: MarkdownIt) -> str:
    """What a reader sees of one paragraph."""
    kinds = {"text", "text_special"}
    return "".join(
        token.content if token.type in kinds else "\n"
        for token in tokens_of(markdown, reader)
        if token.type in kinds or token.type in {"softbreak", "hardbreak"}
    )


def test_a_blank_is_what_the_action_gave_else_a_slot() -> None:
    found = rendered(
        {"text": "{order} of {name}"}, {"order": 7}, {"order": 8, "name": "Ada"}
    )

    assert found.response == {"text": "7 of Ada"}
    assert found.problems == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (5, "5"),
        (5.5, "5.5"),
        (True, "True"),
        (float("nan"), "nan"),
        (["a", 2, None], "a, 2"),
        ({"size": "L"}, '{"size": "L"}'),
        ("退款 🙂", "退款 🙂"),
        ("half \ud83d\x00", "half "),
    ],
)
def test_values_are_written_as_people_read_them(value: Any, expected: str) -> None:
    found = rendered(
        {"buttons": [{"title": "({value})", "payload": "/x"}]}, {"value": value}
    )

    assert found.response["buttons"] == [{"title": f"({expected})", "payload": "/x"}]
    assert found.problems == ()


@pytest.mark.parametrize(
    "make", [set, object, lambda: 10**5000, lambda: [10**5000], lambda: [[object()]]]
)
def test_what_cannot_be_written_is_left_out_and_told(make: Callable[[], Any]) -> None:
    found = rendered({"text": "({value})"}, {"value": make()})

    assert found.response["text"] == "()"
    assert "what 'value' holds cannot be written" in str(found.problems)


def test_a_value_without_end_is_cut() -> None:
    found = text_of("{value}", value="x" * 10 * LONGEST_VALUE)

    assert found == "x" * LONGEST_VALUE + "…"


def test_double_braces_are_braces() -> None:
    assert text_of("{{name}} {{{name}}} }}{{ { {}", name="x") == "{name} {x} }{ { {}"


@pytest.mark.parametrize("blank", ["{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{ a }"])
def test_what_stands_in_braces_is_a_name_and_never_evaluated(blank: str) -> None:
    found = rendered({"text": f"it is {blank}"}, {"a": "secret"})

    assert found.response["text"] == f"it is {blank}"
    (problem,) = found.problems
    assert problem.startswith("response 'utter_it': ")
    assert repr(blank[1:-1]) in problem


def test_an_unknown_blank_stays_and_the_others_are_filled() -> None:
    found = rendered({"text": "{who} and {name} and {who}"}, {"name": "Ada"})

    assert found.response["text"] == "{who} and Ada and {who}"
    assert len(found.problems) == 1


def test_values_are_not_filled_again() -> None:
    assert text_of("{a}", a="{b} {{", b="no") == "{b} {{"


def test_buttons_addresses_and_nested_custom_are_filled_without_escapes() -> None:
    found = rendered(
        {
            "buttons": [
                {"title": "Track *{id}*", "payload": '/track{{"order": "{id}"}}'},
                {"title": "Page", "url": "https://shop.example/{id}"},
            ],
            "image": "https://shop.example/{id}.png",
            "attachment": "{page}",
            "custom": {"blocks": [{"text": "*{id}*", "at": 1}], "ok": True},
        },
        {"id": "a*b c", "page": "https://shop.example/a?b=c&d=%20"},
    )

    assert found.response == {
        "buttons": [
            {"title": "Track *a*b c*", "payload": '/track{"order": "a*b c"}'},
            {"title": "Page", "url": "https://shop.example/a%2Ab%20c"},
        ],
        "image": "https://shop.example/a%2Ab%20c.png",
        "attachment": "https://shop.example/a?b=c&d=%20",
        "custom": {"blocks": [{"text": "*a*b c*", "at": 1}], "ok": True},
    }


def test_custom_of_a_configuration_is_json_and_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"in": deep}

    found = rendered({"custom": {"on": date(2026, 1, 2), "deep": deep}})

    assert json.loads(json.dumps(found.response["custom"]))["on"] == "2026-01-02"
    assert "nested" in str(found.problems)


def test_wordings_for_the_platform_come_before_those_for_all() -> None:
    responses = a_responses(
        {"text": "all"},
        {"text": "here", "channel": "slack"},
        {"text": "there", "channel": "telegram"},
    )

    said = [
        responses.render("utter_it", {}, platform=platform, slots={}, seed=seed)
        for platform in ("slack", "telegram", "terminal")
        for seed in range(5)
    ]

    texts = [each.response["text"] for each in said]
    assert texts == ["here"] * 5 + ["there"] * 5 + ["all"] * 5


def test_the_seed_draws_the_wording() -> None:
    responses = a_responses({"text": "a"}, {"text": "b"}, {"text": "c"})

    def drawn(seed: int) -> Any:
        said = responses.render("utter_it", {}, platform="x", slots={}, seed=seed)
        return said.response["text"]

    seeds = [*range(-20, 20), 2**64, 2**70]
    assert [drawn(seed) for seed in seeds] == [drawn(seed) for seed in seeds]
    assert {drawn(seed) for seed in seeds} == {"a", "b", "c"}


def test_a_wording_says_whether_it_is_worded_anew() -> None:
    assert rendered({"text": "a", "reword": True}).reword
    assert not rendered({"text": "a"}).reword


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(UnknownResponse, match=r"'utter_its'; did you mean 'utter_it'"):
        a_responses({"text": "a"}).render(
            "utter_its", {}, platform="slack", slots={}, seed=1
        )


def test_a_response_for_other_platforms_only_says_so() -> None:
    responses = a_responses({"text": "a", "channel": "slack"})

    assert responses.has("utter_it")
    with pytest.raises(UnknownResponse, match="no wording for 'terminal'"):
        responses.render("utter_it", {}, platform="terminal", slots={}, seed=1)


@pytest.mark.parametrize(
    "value",
    [
        "LB-10023",
        "ada_lovelace+shop@example.co.uk",
        "https://shop.example/orders?id=1&page=2#top",
        "5 * 3 - 2 = 13",
        "a < 5 and b <= 6",
        "C:\\Users",
        "AT&T (R&D) #1!",
        "-5 °C, 3.5 kg, $12.50",
        "退款：需要五天。",
        "👩‍👩‍👧 🙂",
    ],
)
def test_a_value_that_is_no_markup_stays_letter_for_letter(value: str) -> None:
    assert text_of("It is {value}", value=value) == f"It is {value}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[click](http://evil)", "\\[click\\](http://evil)"),
        ("*loud* _soft_ `x`", "\\*loud\\* \\_soft\\_ \\`x\\`"),
        ("<b>", "\\<b>"),
        ("&lt;", "\\&lt;"),
        ("# a\n- b\n1. c\n> d\n===", "\\# a\n\\- b\n1\\. c\n\\> d\n\\==="),
    ],
)
def test_markup_in_a_value_is_escaped(value: str, expected: str) -> None:
    assert text_of("{value}", value=value) == expected


def test_a_value_within_an_address_is_a_part_of_it() -> None:
    found = text_of(
        "[Track {id}](https://shop.example/{id}/{id}) or https://shop.example/{id}",
        id="a) [b](http://evil",
    )

    links = [
        token.attrs["href"]
        for token in tokens_of(found, READERS[0])
        if token.type == "link_open"
    ]
    part = "a%29%20%5Bb%5D%28http://evil"
    assert links == [f"https://shop.example/{part}/{part}"]


def test_a_value_before_a_link_makes_no_image_of_it() -> None:
    found = text_of("{name}[here](https://shop.example)", name="Hi!")

    assert not any(token.type == "image" for token in tokens_of(found, READERS[0]))


@pytest.mark.parametrize("reader", READERS)
@given(value=st.text(alphabet="ab1 []()<>!*_`~\\&#;:/.+-=|\"'@ä"))
def test_what_is_filled_in_is_read_as_it_was_typed(
    reader: MarkdownIt, value: str
) -> None:
    found = text_of("It is x{value}x.", value=value)

    assert shown(found, reader) == f"It is x{value}x."


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "template",
    [
        "{a}",
        "Dear {a}, see [our {b}](https://shop.example/{a}?x={b}) {b}",
        "{a}{b}",
        "- {a}\n  {b}\n\n> {a}\n\n# {b}",
        "`{a}` **{b}** _{a}_",
        "![{a}](https://shop.example/{b}.png) <https://shop.example/{a}>",
        "| {a} | {b} |\n| --- | --- |\n| {b} | {a} |",
        "[{a}][shop]\n\n[shop]: https://shop.example/{b}",
    ],
)
@given(a=TYPED, b=TYPED)
def test_no_value_is_a_link_an_image_or_html(
    template: str, reader: MarkdownIt, a: str, b: str
) -> None:
    found = text_of(template, a=a, b=b)

    for token in tokens_of(found, reader):
        assert "html" not in token.type
        for at in (token.attrs.get("href"), token.attrs.get("src")):
            assert at is None or urlsplit(str(at)).hostname == "shop.example"


@given(
    template=st.text() | st.text(alphabet="{}ab[]()!:./ \n"),
    values=st.dictionaries(st.sampled_from(["a", "b", "ab"]), JSON),
)
def test_no_template_and_no_value_makes_it_raise(
    template: str, values: dict[str, JsonValue]
) -> None:
    found = rendered({"text": template, "custom": {"x": template}}, values)

    assert isinstance(found.response.get("text", ""), str)


def test_hostile_text_is_read_once() -> None:
    # A pattern that reads twice would take minutes for each of these.
    for piece in ("{", "}", "[", "\\", "&a", "*", "_", "1", " ", "\n", "<", "-", "="):
        many = piece * 200_000
        assert literal(many)
        assert rendered({"text": f"{many}{{a}}"}, {"a": many}).response["text"]
