"""What an action adds to a reply: its pictures, and blocks of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import DeliveryError
from bot.model import Button, Citation, Reply
from connectors.slack.additions import LONGEST, MOST_BLOCKS, additions_of
from connectors.slack.rendering import Part, parts_of
from tests.connectors.slack.blocks import BLOCKS_LIMIT, checked_blocks
from tests.connectors.slack.connected import KEY, connected, thread
from tests.connectors.slack.faults import DropAfter, DropBefore, Error, RateLimited
from tests.connectors.slack.service import SlackService

CHART = "https://shop.example/img/chart%20of%20May.png"
GONE = "https://gone.invalid/chart.png"
CARD = {"type": "section", "text": {"type": "mrkdwn", "text": "*Order 12*"}}
WRONG = {"type": "sektion", "text": "?"}

Given = Mapping[str, Any]


def a_custom(*blocks: Given, text: str = "Order 12") -> Given:
    return {"blocks": list(blocks), "text": text}


def a_button(action_id: str, **more: Any) -> Given:
    label = {"type": "plain_text", "text": "Track"}
    button = {"type": "button", "action_id": action_id, "text": label, **more}
    return {"type": "actions", "elements": [button]}


def nested(depth: int) -> Any:
    inner: Any = "deep"
    for _ in range(depth):
        inner = {"type": "section", "text": inner}
    return inner


def last_part(reply: Reply) -> Part:
    return parts_of(reply, additions_of(reply), KEY, feedback=True)[-1]


def asked(slack: SlackService) -> str:
    return slack.customer.message("How long?", channel="C1").ts


def kinds(blocks: Sequence[Given]) -> list[str]:
    return [block["type"] for block in blocks]


# What they look like


def test_a_picture_is_named_after_its_file() -> None:
    urls = [CHART, "https://shop.example/", "http://[::1]/%E2%80%A6%F0%9F%9A%B2.png"]

    blocks = additions_of(Reply(text="", images=urls)).blocks

    assert [block["alt_text"] for block in blocks] == [
        "chart of May.png",
        "shop.example",
        "…🚲.png",
    ]


def test_pictures_and_blocks_are_between_the_text_and_its_sources() -> None:
    reply = Reply(
        text="Here.",
        images=[CHART],
        custom=[a_custom(CARD)],
        citations=[Citation(source="a", passage="1")],
        buttons=[Button(text="Yes", payload="y")],
        feedback=True,
    )

    part = last_part(reply)

    assert kinds(part.blocks) == [
        "markdown",
        "image",
        "section",
        "context",
        "actions",
        "context_actions",
    ]
    assert part.in_words is not None
    assert part.in_words.markdown == f"Here.\n\n<{CHART}>\n\nOrder 12"
    assert kinds(part.in_words.blocks)[1:] == ["context", "actions", "context_actions"]


def test_a_long_text_has_its_pictures_under_its_last_part() -> None:
    reply = Reply(text="word " * 5000, images=[CHART])

    *before, last = parts_of(reply, additions_of(reply), KEY, feedback=True)

    assert before
    assert [part.added for part in before] == [()] * len(before)
    assert kinds(last.blocks) == ["markdown", "image"]


def test_without_a_text_a_notification_names_the_pictures() -> None:
    part = last_part(Reply(text="", images=[CHART]))

    assert kinds(part.blocks) == ["image"]
    assert CHART in part.notice


def test_the_text_of_custom_json_is_said_where_it_has_no_blocks() -> None:
    customs: list[Given] = [
        {"text": "Order 12"},
        a_custom(),
        {"blocks": 3, "text": "Order 12"},
    ]

    for custom in customs:
        part = last_part(Reply(text="Here.", custom=[custom]))

        assert part.markdown == "Here.\n\nOrder 12"
        assert kinds(part.blocks) == ["markdown"]


@pytest.mark.parametrize(
    "custom",
    [{}, {"photo": CHART}, {"text": 3}, {"text": " "}, {"blocks": {"type": "divider"}}],
)
def test_what_is_not_known_of_custom_json_is_not_shown(custom: Given) -> None:
    reply = Reply(text="", custom=[custom])

    assert parts_of(reply, additions_of(reply), KEY, feedback=True) == []
    assert additions_of(reply).left_out == 1


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "https://",
        "http://[",
        "https://x.example/a\nb.png",
        "https://x.example/<!channel>",
        "https://x.example/" + "a" * 3000,
        "",
        "chart.png",
    ],
)
def test_only_a_web_address_is_a_picture(url: str) -> None:
    additions = additions_of(Reply(text="", images=[url]))

    assert additions.blocks == []
    assert additions.left_out == 1


@pytest.mark.parametrize(
    "block",
    [
        nested(1000),
        {"type": "section", "text": float("nan")},
        {"type": "section", "text": 10**400},
        {"type": "section", 3: "a"},
        {"type": "section", "k" * 300: "a"},
        {"type": "section", "text": b"bytes"},
        {"type": "section", "text": ["x"] * 3000},
        {"type": "section", "text": "x" * 7000},
        {"type": 3},
        {"text": "no type"},
        "section",
        None,
    ],
)
def test_blocks_that_are_none_are_said_in_words(block: Any) -> None:
    additions = additions_of(Reply(text="", custom=[{"blocks": [block], "text": "So"}]))

    assert additions.blocks == []
    assert additions.words == ["So"]


@pytest.mark.parametrize("action_id", ["chorus_button_0", "chorus_feedback"])
def test_no_block_of_an_action_passes_for_a_button_of_ours(action_id: str) -> None:
    custom = a_custom(a_button(action_id, value=f"{KEY}:0"))

    assert additions_of(Reply(text="", custom=[custom])).blocks == []


def test_half_characters_are_replaced_wherever_they_are() -> None:
    block = {"type": "section", "text": {"type": "mrkdwn", "text": "\ud83d \x00"}}
    reply = Reply(
        text="", images=["https://x.example/\udc00.png"], custom=[a_custom(block)]
    )

    additions = additions_of(reply)

    str([*additions.blocks, additions.instead]).encode()
    assert len(additions.blocks) == 2


def test_no_more_is_shown_than_a_message_holds() -> None:
    reply = Reply(
        text="word " * 2000,
        images=[f"https://x.example/{number}.png" for number in range(10_000)],
        custom=[a_custom(*[CARD] * 10, text="x" * 9000)] * 10_000,
        citations=[Citation(source=f"document {n} " * 9, passage="1") for n in "abc"],
        buttons=[Button(text="b" * 90, payload=str(n)) for n in range(30)],
        feedback=True,
    )

    additions = additions_of(reply)
    parts = parts_of(reply, additions, KEY, feedback=True)

    assert len(additions.blocks) == MOST_BLOCKS
    assert additions.left_out == 20_000 - MOST_BLOCKS
    for part in (*parts, parts[-1].in_words):
        assert part is not None
        assert checked_blocks(part.blocks)


WORDS = st.text(max_size=8) | st.sampled_from(["type", "text", "action_id", "blocks"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4)
    ),
)


@given(
    st.lists(st.dictionaries(WORDS, ANYTHING, max_size=4), max_size=3),
    st.lists(st.text(max_size=20).map("https://x.example/".__add__), max_size=3),
)
def test_whatever_an_action_says_fits_into_a_message(
    custom: list[Given], images: list[str]
) -> None:
    additions = additions_of(Reply(text="", custom=custom, images=images))

    assert additions.size <= LONGEST
    assert len(additions.blocks) <= MOST_BLOCKS
    str([additions.blocks, additions.instead, additions.words]).encode()
    assert all(isinstance(block["type"], str) for block in additions.blocks)


# How they are sent


async def test_pictures_and_blocks_appear_under_the_text(slack: SlackService) -> None:
    reply = Reply(text="Here.", images=[CHART], custom=[a_custom(CARD)])

    async with connected(slack) as bot:
        sent = await bot.connector.send(thread("C1", asked(slack)), reply, KEY)

    message = slack.message(sent.ids[0])
    assert message.shown == "Here.\n*Order 12*"
    assert message.pictures == [CHART]
    assert len(slack.calls_of("chat.postMessage")) == 1


async def test_a_reply_may_be_a_picture_alone(slack: SlackService) -> None:
    async with connected(slack) as bot:
        sent = await bot.connector.send(
            thread("D1", None), Reply(text="", images=[CHART]), KEY
        )

    message = slack.message(sent.ids[0])
    assert message.pictures == [CHART]
    assert CHART in message.text


async def test_a_reply_of_which_slack_can_show_nothing_is_sent_without_a_message(
    slack: SlackService,
) -> None:
    nothing = Reply(text="", custom=[{"photo": CHART}])

    async with connected(slack) as bot:
        sent = await bot.connector.send(thread("D1", None), nothing, KEY)
        found = await bot.connector.find(thread("D1", None), KEY)

    assert (sent.ids, sent.status) == ([], "ok")
    assert found == sent
    assert slack.shown("D1") == []


@pytest.mark.parametrize("chat", ["C1", "D1"])
async def test_a_picture_that_slack_cannot_fetch_is_sent_once_more_as_its_address(
    slack: SlackService, chat: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = thread(chat, asked(slack) if chat == "C1" else None)
    reply = Reply(text="Here.", images=[GONE], feedback=True)

    async with connected(slack) as bot:
        with caplog.at_level(logging.WARNING):
            sent = await bot.connector.send(address, reply, KEY)
        found = await bot.connector.find(address, KEY)

    assert slack.shown(chat) == [f"Here.\n\n<{GONE}>"]
    message = slack.message(sent.ids[0])
    assert message.feedback is not None
    assert message.metadata["event_payload"] == {"key": KEY, "part": 1, "parts": 1}
    assert found == sent
    assert "/blocks/1/image_url" in caplog.text
    assert GONE not in caplog.text


async def test_blocks_that_slack_refuses_are_left_out_with_a_line_in_the_log(
    slack: SlackService, caplog: pytest.LogCaptureFixture
) -> None:
    reply = Reply(text="Here.", custom=[a_custom(CARD, WRONG)])

    async with connected(slack) as bot:
        with caplog.at_level(logging.WARNING):
            await bot.connector.send(thread("D1", None), reply, KEY)

    assert slack.shown("D1") == ["Here.\n\nOrder 12"]
    assert "without its pictures and blocks" in caplog.text
    assert "invalid_blocks at /blocks/2/type" in caplog.text
    assert "sektion" not in caplog.text


async def test_refused_blocks_with_no_word_beside_them_are_not_delivered(
    slack: SlackService,
) -> None:
    async with connected(slack) as bot:
        with pytest.raises(DeliveryError, match="invalid_blocks") as refused:
            await bot.connector.send(
                thread("D1", None),
                Reply(text="", custom=[a_custom(WRONG, text="")]),
                KEY,
            )

    assert not refused.value.retryable
    assert slack.shown("D1") == []


async def test_what_is_refused_for_another_reason_is_not_said_in_words(
    slack: SlackService,
) -> None:
    slack.fail("chat.postMessage", Error("is_archived"))

    async with connected(slack) as bot:
        with pytest.raises(DeliveryError, match="archived"):
            await bot.connector.send(
                thread("D1", None), Reply(text="Here.", images=[CHART]), KEY
            )

    assert len(slack.calls_of("chat.postMessage")) == 1


@pytest.mark.parametrize("fault", [DropAfter(), DropBefore(), RateLimited(1)])
async def test_a_second_attempt_that_is_lost_makes_no_second_message(
    slack: SlackService, fault: DropAfter | DropBefore | RateLimited
) -> None:
    refused = Error("invalid_blocks")
    slack.fail("chat.postMessage", refused, fault)
    reply, address = Reply(text="Here.", images=[GONE]), thread("C1", asked(slack))

    async with connected(slack) as bot:
        with suppress(DeliveryError):  # "later"
            await bot.connector.send(address, reply, KEY)
        bot.time.pass_(10)
        sent = await bot.connector.send(address, reply, KEY)

    assert sent.status == "ok"
    assert slack.shown("C1") == [f"Here.\n\n<{GONE}>"]


@pytest.mark.parametrize("image", [CHART, GONE])
async def test_a_stream_ends_with_its_pictures(slack: SlackService, image: str) -> None:
    address = thread("C1", asked(slack))
    reply = Reply(text="Five days.", images=[image], feedback=True)

    async with connected(slack) as bot:
        await bot.connector.frame(address, "Five")
        bot.time.pass_(4)
        sent = await bot.connector.send(address, reply, KEY)

    (message,) = slack.said("C1")
    assert sent.ids == [message.ts]
    assert message.streaming == "done"
    assert message.feedback is not None
    if image == CHART:
        assert message.shown == "Five days."
        assert message.pictures == [CHART]
    else:
        assert message.shown == f"Five days.\n\n<{GONE}>"
        assert message.pictures == []
    assert not slack.calls_of("chat.update")


@pytest.mark.parametrize("image", [CHART, GONE])
async def test_a_message_that_grew_is_edited_to_have_its_pictures(
    slack: SlackService, image: str
) -> None:
    reply = Reply(text="Five days.", images=[image])

    async with connected(slack) as bot:
        await bot.connector.frame(thread("D1", None), "Five")
        bot.time.pass_(4)
        sent = await bot.connector.send(thread("D1", None), reply, KEY)

    (message,) = slack.said("D1")
    assert sent.ids == [message.ts]
    assert len(slack.calls_of("chat.postMessage")) == 1
    assert message.pictures == ([CHART] if image == CHART else [])
    assert (GONE in message.shown) == (image == GONE)


async def test_a_picture_alone_takes_the_place_of_what_was_streamed(
    slack: SlackService,
) -> None:
    address = thread("C1", asked(slack))

    async with connected(slack) as bot:
        await bot.connector.frame(address, "Let me see")
        bot.time.pass_(4)
        await bot.connector.send(address, Reply(text="", images=[CHART]), KEY)

    (message,) = slack.said("C1")
    assert message.pictures == [CHART]
    assert "Let me see" not in message.shown


async def test_what_was_streamed_is_taken_back_where_nothing_can_be_shown(
    slack: SlackService,
) -> None:
    address = thread("C1", asked(slack))

    async with connected(slack) as bot:
        await bot.connector.frame(address, "Let me see")
        bot.time.pass_(4)
        sent = await bot.connector.send(address, Reply(text="", custom=[{}]), KEY)

    assert sent.ids == []
    assert slack.said("C1") == []


@pytest.mark.parametrize("image", [CHART, GONE])
async def test_a_command_where_the_bot_is_not_is_answered_with_pictures(
    slack: SlackService, image: str
) -> None:
    async with connected(slack) as bot:
        await bot.tell(slack.customer.slash("why", channel="C2"))
        await bot.connector.send(
            thread("C2", None), Reply(text="Here.", images=[image]), KEY
        )

    ((_, answer),) = slack.responses
    assert kinds(answer["blocks"]) == ["markdown"] + ["image"] * (image == CHART)
    assert (GONE in answer["blocks"][0]["text"]) == (image == GONE)


async def test_a_press_of_an_actions_own_button_is_taken_and_means_nothing(
    slack: SlackService,
) -> None:
    link = a_button("track", url="https://shop.example/12", value="12")

    async with connected(slack) as bot:
        sent = await bot.connector.send(
            thread("D1", None), Reply(text="", custom=[a_custom(link)]), KEY
        )
        status = await bot.tell(slack.customer.button("track", "12", sent.ids[0]))

    assert slack.message(sent.ids[0]).buttons[0]["url"] == "https://shop.example/12"
    assert status == [200]
    assert bot.core.events == []


def test_the_longest_of_both_is_within_what_slack_was_seen_to_take() -> None:
    custom = a_custom({**CARD, "text": {"type": "mrkdwn", "text": "x" * 2900}})
    reply = Reply(text="word " * 2199, custom=[custom] * 2)

    parts = parts_of(reply, additions_of(reply), KEY, feedback=True)

    for part in parts:
        assert sum(len(str(block["text"])) for block in part.blocks) <= BLOCKS_LIMIT
        assert checked_blocks(part.blocks)
