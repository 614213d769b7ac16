from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from rasa_sdk.executor import CollectingDispatcher

from bot.actions.replies import (
    LONGEST_PAYLOAD,
    LONGEST_TITLE,
    MOST_BUTTONS,
    MOST_PROBLEMS,
    Said,
    joined,
    reply_of,
)
from bot.actions.responses import Responses
from bot.actions_config import ResponseConfig
from bot.model import Button, Citation, Reply

ADDRESS = "https://shop.example/a"
TEMPLATES: Mapping[str, Sequence[ResponseConfig]] = {
    "utter_order": (
        ResponseConfig(
            text="Order {order} of {name} is {state}.",
            buttons=({"title": "Track", "payload": "/track"},),
            image="https://shop.example/{order}.png",
        ),
    ),
    "utter_soft": (ResponseConfig(text="Hello {name}", reword=True),),
    "utter_slack": (ResponseConfig(text="Hello", channel="slack"),),
}


def said(*responses: Any, slots: Mapping[str, Any] | None = None) -> Said:
    return reply_of(
        responses,
        templates=Responses(TEMPLATES),
        slots={"name": "Ada", **(slots or {})},
        platform="terminal",
        seed=1,
    )


def uttered(**parts: Any) -> dict[str, Any]:
    """Return the response that rasa-sdk's own dispatcher makes of an utterance."""
    dispatcher = CollectingDispatcher()
    dispatcher.utter_message(**parts)
    (message,) = dispatcher.messages
    return dict(message)


def reply(*responses: Any) -> Reply:
    found = said(*responses)
    assert found.problems == ()
    assert found.reply is not None
    return found.reply


def the_problem(*responses: Any) -> str:
    (problem,) = said(*responses).problems
    return problem


def test_what_an_action_said_is_one_reply_in_its_order() -> None:
    found = reply(
        uttered(text="One.", buttons=[{"title": "Yes", "payload": "/yes"}]),
        uttered(image=f"{ADDRESS}.png"),
        uttered(text="Two.\n\nThree.", json_message={"blocks": []}),
    )

    assert found == Reply(
        text="One.\n\nTwo.\n\nThree.",
        buttons=(Button(text="Yes", payload="/yes"),),
        images=(f"{ADDRESS}.png",),
        custom=({"blocks": []},),
    )


def test_who_says_nothing_has_no_reply_and_no_problem() -> None:
    assert said() == Said()


@pytest.mark.parametrize("response", [uttered(), {}, {"colour": "red"}])
def test_a_response_without_a_usable_part_is_told(response: Any) -> None:
    found = said(response)

    assert found.reply is None
    assert found.problems[0].startswith("response 1: shows nothing; give a text")


def test_a_template_is_filled_with_what_the_action_gave_and_slots() -> None:
    found = reply(uttered(response="utter_order", order="LB-10023", state="paid"))

    assert found == Reply(
        text="Order LB-10023 of Ada is paid.",
        buttons=(Button(text="Track", payload="/track"),),
        images=("https://shop.example/LB-10023.png",),
    )


def test_a_template_under_its_old_word_is_found() -> None:
    assert reply({"template": "utter_soft"}).text == "Hello Ada"


def test_what_the_action_says_itself_wins_over_its_template() -> None:
    found = reply(
        uttered(
            response="utter_order",
            text="Mine.",
            buttons=[{"title": "More", "payload": "/more"}],
            image=f"{ADDRESS}.png",
            order=1,
            state="paid",
        )
    )

    assert found.text == "Mine."
    assert [button.text for button in found.buttons] == ["Track", "More"]
    assert found.images == (f"{ADDRESS}.png",)


def test_an_unknown_template_is_a_sentence_with_what_is_near() -> None:
    found = said(uttered(response="utter_ordr"), uttered(text="Still here."))

    assert found.reply == Reply(text="Still here.")
    assert found.problems[0] == (
        "response 1: `actions.responses` does not have 'utter_ordr'; "
        "did you mean 'utter_order'?"
    )


def test_a_template_of_other_platforms_is_told() -> None:
    assert "no wording for 'terminal'" in said({"response": "utter_slack"}).problems[0]


def test_an_unfilled_blank_is_told() -> None:
    found = said(uttered(response="utter_order", order=1))

    assert found.reply is not None
    assert "{state}" in found.reply.text
    assert "'state' is neither" in found.problems[0]


def test_one_template_that_wants_words_wants_them_for_the_reply() -> None:
    assert said({"response": "utter_soft"}, {"text": "x"}).reword
    assert not said({"text": "x"}, {"response": "utter_order", "order": 1}).reword


def test_what_a_customer_typed_is_no_link_in_a_template() -> None:
    found = said({"response": "utter_soft", "name": "[x](http://evil)"})

    assert found.reply == Reply(text="Hello \\[x\\](http://evil)")


def test_buttons_lead_somewhere_or_say_something() -> None:
    found = reply(
        {
            "text": "Choose.",
            "buttons": [
                {"title": " Yes\nplease ", "payload": '/yes{"a": 1}'},
                {"title": "No"},
                {"title": "[Shop]", "url": f"{ADDRESS}?b=(c)"},
                {"title": "Page", "url": ADDRESS, "type": "web_url"},
                {"title": "x" * 100, "payload": "/x"},
            ],
        }
    )

    assert found.text == (
        f"Choose.\n\n[\\[Shop\\]]({ADDRESS}?b=%28c%29)\n\n[Page]({ADDRESS})"
    )
    assert found.buttons == (
        Button(text="Yes please", payload='/yes{"a": 1}'),
        Button(text="No", payload="No"),
        Button(text="x" * (LONGEST_TITLE - 1) + "…", payload="/x"),
    )


def test_buttons_alone_are_shown_under_their_titles() -> None:
    found = reply({"buttons": [{"title": "A*"}, {"title": "B"}]})

    assert found.text == "A\\* · B"


@pytest.mark.parametrize(
    ("button", "told"),
    [
        (5, "button 1 is a number, not an object"),
        ({"payload": "/x"}, "button 1 has no title and is left out"),
        ({"title": "a", "payload": {"b": 1}}, "`payload` is an object, not a text"),
        ({"title": "a", "payload": "x" * (LONGEST_PAYLOAD + 1)}, "more than 4000"),
        ({"title": "a", "url": "javascript:alert()"}, "begins with https://"),
        ({"title": "a", "url": 5}, "`url` is a number, not a text"),
    ],
)
def test_a_button_that_cannot_be_pressed_is_left_out_and_told(
    button: Any, told: str
) -> None:
    found = said({"text": "x", "buttons": [button]})

    assert found.reply == Reply(text="x")
    assert told in found.problems[0]


def test_more_buttons_than_are_shown_are_told() -> None:
    found = said({"text": "x", "buttons": [{"title": str(n)} for n in range(500)]})

    assert found.reply is not None
    assert len(found.reply.buttons) == MOST_BUTTONS
    assert len(found.problems) == MOST_PROBLEMS + 1
    assert found.problems[-1] == "and 455 more of what was said is left out"


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "/a.png",
        "https://",
        "https://[::1",
        "https://a b",
        f"https://a/{'x' * 3000}",
        "javascript:alert(1)//https://a",
    ],
)
def test_an_address_of_no_web_page_is_left_out_and_told(address: str) -> None:
    for part in ("image", "attachment"):
        assert "begins with https:// or http://" in the_problem({part: address})


@pytest.mark.parametrize(
    ("attachment", "line"),
    [
        (
            "https://shop.example/r%20[1].pdf",
            "[r \\[1\\].pdf](https://shop.example/r%20%5B1%5D.pdf)",
        ),
        ({"url": ADDRESS, "name": "Terms"}, f"[Terms]({ADDRESS})"),
        (
            {"type": "video", "payload": {"src": f"{ADDRESS}.mp4"}},
            f"[a.mp4]({ADDRESS}.mp4)",
        ),
        ("https://shop.example", "[shop.example](https://shop.example)"),
    ],
)
def test_an_attachment_is_a_link_with_its_name(attachment: Any, line: str) -> None:
    found = reply(uttered(attachment=attachment))

    assert found == Reply(text=line)


@pytest.mark.parametrize("attachment", [{"type": "video"}, {"payload": 5}, 5, ["x"]])
def test_an_attachment_without_address_is_told(attachment: Any) -> None:
    assert "`attachment`" in the_problem({"attachment": attachment})


def test_elements_are_paragraphs_with_their_buttons_and_images() -> None:
    found = reply(
        uttered(
            elements=[
                {
                    "title": "Lamp *L*",
                    "subtitle": "€ 20",
                    "image_url": f"{ADDRESS}.png",
                    "default_action": {"type": "web_url", "url": ADDRESS},
                    "buttons": [{"title": "Buy", "payload": "/buy"}],
                },
                {"title": "Desk"},
            ]
        )
    )

    assert found == Reply(
        text=f"[**Lamp \\*L\\***]({ADDRESS})  \n€ 20\n\n**Desk**",
        images=(f"{ADDRESS}.png",),
        buttons=(Button(text="Buy", payload="/buy"),),
    )


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (5, "response 1: is a number, not an object"),
        (None, "response 1: is null, not an object"),
        ({"text": 5}, "response 1: `text` is a number, not a text"),
        ({"text": {"a": 1}}, "`text` is an object, not a text"),
        ({"buttons": "x"}, "`buttons` is a text, not a list"),
        ({"elements": {"a": 1}}, "`elements` is an object, not a list"),
        ({"elements": ["x"]}, "element 1 is a text, not an object"),
        ({"image": ["x"]}, "`image` is a list, not a text"),
        ({"custom": ["x"]}, "`custom` is a list, not an object"),
        ({"custom": True}, "`custom` is a truth value, not an object"),
        ({"text": {1}}, "`text` is of the type 'set', not a text"),
        ({"text": "x", "response": 5}, "`response` is a number, not a response's name"),
    ],
)
def test_what_has_the_wrong_type_is_told(response: Any, told: str) -> None:
    assert told in the_problem(response)


def test_custom_is_json_that_can_be_kept() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"in": [deep]}
    custom = {"half": "a\ud83d", "nan": float("nan"), "set": {1}, 5: True, "deep": deep}

    found = said({"custom": custom})

    assert found.reply is not None
    (kept,) = found.reply.custom
    assert (kept["half"], kept["nan"], kept["set"], kept["5"]) == (
        "a",
        None,
        None,
        True,
    )
    assert len(found.problems) == 3
    assert TypeAdapter(Reply).dump_json(found.reply)


def test_problems_quote_nothing_that_a_customer_may_have_written() -> None:
    private = "4111 1111"
    found = said(
        {"text": {private: private}},
        {"buttons": [{"title": private, "payload": [private]}], "image": private},
        {"attachment": private, "custom": [private], "elements": [private]},
        {private: private},
    )

    assert len(found.problems) == 7
    assert private not in str(found.problems)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=4,
)
PART = JSON | st.lists(
    st.dictionaries(
        st.sampled_from(["title", "payload", "url", "type", "image_url", "buttons"]),
        JSON | st.just(ADDRESS),
        max_size=4,
    ),
    max_size=3,
)
PARTS = ["text", "buttons", "elements", "custom", "image", "attachment", "response"]


@given(
    st.lists(
        st.dictionaries(st.sampled_from([*PARTS, "template", "name"]), PART, max_size=3)
        | JSON.map(lambda value: {"text": "x", "custom": {"x": value}})
        | JSON,
        max_size=3,
    )
)
def test_strangers_values_never_raise_and_can_be_kept(responses: list[Any]) -> None:
    found = said(*responses)

    kept = TypeAdapter(Said)
    as_json = kept.dump_json(found)
    assert kept.dump_json(kept.validate_json(as_json)) == as_json
    assert found.reply is not None or len(found.problems) >= bool(responses)


def test_joined_replies_say_everything_once() -> None:
    citation = Citation(source="refunds.md", passage="p1")
    button = Button(text="Yes", payload="/yes")

    found = joined(
        [
            Reply(text="One.", citations=(citation,), buttons=(button,)),
            Reply(text="", images=(ADDRESS,), custom=({"a": 1},)),
            Reply(text="Two.", citations=(citation,), buttons=(button,), feedback=True),
        ]
    )

    assert found == Reply(
        text="One.\n\nTwo.",
        citations=(citation,),
        buttons=(button,),
        feedback=True,
        images=(ADDRESS,),
        custom=({"a": 1},),
    )
    assert joined([]) == Reply(text="")
