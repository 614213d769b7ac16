"""What an action adds to a reply: its pictures, and JSON of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.model import Button, Citation, Reply
from connectors.telegram import Telegram
from connectors.telegram.additions import MOST, additions_of
from connectors.telegram.rendering import Part, rendered
from tests.connectors.telegram.chats import ANN
from tests.connectors.telegram.limits import check_text, cut, units
from tests.connectors.telegram.service import TelegramService
from tests.connectors.telegram.shelf import DictShelf
from tests.connectors.telegram.talking import TURN, FakeTime, a_telegram, address
from tests.connectors.telegram.wire import BadRequest, DropAfter

CHART = "https://shop.example/chart.png"
MAP = "https://shop.example/map.png"
HERE = address(ANN.id, ANN.id)
SHOWN = {"url": CHART, "prefer_large_media": True, "show_above_text": False}
NONE = {"is_disabled": True}


def parts_of(reply: Reply) -> list[Part]:
    return rendered(reply, additions_of(reply), TURN, feedback=reply.feedback)


def nested(depth: int) -> Any:
    inner: Any = "deep"
    for _ in range(depth):
        inner = {"text": inner}
    return inner


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def connector(
    service: TelegramService, time: FakeTime
) -> AsyncIterator[Telegram]:
    made = a_telegram(service, shelf=DictShelf(), clock=time)
    service.private()
    yield made
    await made.bot_stopped()


# What they look like


def test_the_first_picture_is_under_the_text_and_the_others_are_addresses() -> None:
    cited = [Citation(source="a.md", passage="1")]

    (part,) = parts_of(Reply(text="Here.", images=[CHART, MAP], citations=cited))

    assert part.text == f"Here.\n\n{MAP}\n\n[1] a.md"
    assert part.picture == CHART
    (link,) = part.entities
    assert cut(part.text, link.offset, link.length) == link.url == MAP


def test_without_a_text_the_addresses_are_the_text() -> None:
    buttons = [Button(text="Yes", payload="y")]

    (part,) = parts_of(Reply(text=" ", images=[CHART, MAP], buttons=buttons))

    assert part.text == f"{CHART}\n{MAP}"
    assert part.picture == CHART
    assert [[one["text"] for one in row] for row in part.keyboard] == [["Yes"]]


def test_a_long_text_has_its_picture_under_its_last_part() -> None:
    *before, last = parts_of(Reply(text="word " * 2000, images=[CHART], feedback=True))

    assert [(part.picture, part.keyboard) for part in before] == [("", [])] * 2
    assert last.picture == CHART
    assert last.keyboard


@pytest.mark.parametrize("kind", ["photo", "document", "video", "audio"])
def test_what_is_to_be_looked_at_is_its_address_and_a_preview(kind: str) -> None:
    (part,) = parts_of(Reply(text="Here.", custom=[{kind: MAP}]))

    assert part.text == f"Here.\n\n{MAP}"
    assert part.picture == MAP


def test_a_text_of_custom_json_is_said_as_it_is() -> None:
    custom: Mapping[str, Any] = {"text": "2 * 3 * 4 🚲", "blocks": [{}]}

    (part,) = parts_of(Reply(text="**Here.**\n", custom=[custom], images=[CHART]))

    assert part.text == "Here.\n\n2 * 3 * 4 🚲"
    assert [one.type for one in part.entities] == ["bold"]
    assert part.picture == CHART


@pytest.mark.parametrize(
    "custom",
    [
        {},
        {"blocks": [{"type": "divider"}]},
        {"photo": "AgACAgIAAxkBAAI"},
        {"photo": 3, "text": ["a"]},
        {"text": " \x00"},
        {"latitude": 1.0, "longitude": 2.0},
        {"chat_id": 5, "sticker": MAP},
        nested(1000),
    ],
)
def test_what_is_not_known_of_custom_json_is_not_shown(
    custom: Mapping[str, Any],
) -> None:
    reply = Reply(text="", custom=[custom])

    assert parts_of(reply) == []
    assert additions_of(reply).left_out == 1


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "tg://user?id=5",
        "file:///etc/passwd",
        "https://",
        "http://[",
        "https://x.example/a\nb.png",
        "https://x.example/" + "a" * 3000,
        "",
    ],
)
def test_only_a_web_address_is_a_picture(url: str) -> None:
    reply = Reply(text="Here.", images=[url], custom=[{"photo": url}])

    (part,) = parts_of(reply)

    assert (part.text, part.picture) == ("Here.", "")
    assert additions_of(reply).left_out == 2


def test_half_characters_are_replaced_wherever_they_are() -> None:
    custom = {"text": "\ud83d \x00", "video": "https://x.example/\udc00.mp4"}

    parts = parts_of(
        Reply(text="", images=["https://x.example/\ud800.png"], custom=[custom])
    )

    str(parts).encode()
    assert parts


def test_ten_thousand_of_each_are_as_many_as_an_album_has() -> None:
    reply = Reply(
        text="",
        images=[f"https://x.example/{number}.png" for number in range(10_000)],
        custom=[{"text": "x" * 9000, "photo": CHART, "video": MAP}] * 10_000,
    )

    additions = additions_of(reply)

    assert len(additions.pictures) == len(additions.links) == MOST
    assert len(additions.texts) == MOST
    assert len(parts_of(reply)) < 15


ADDRESSES = st.text(st.sampled_from("a/é🚲%.?="), max_size=60).map(
    "https://x.example/".__add__
)


@given(
    st.sampled_from(["", "word " * 900, "🚲" * 4090]),
    st.lists(ADDRESSES, max_size=3),
    st.lists(st.fixed_dictionaries({"photo": ADDRESSES}), max_size=3),
)
def test_every_message_fits_and_has_room_for_the_address_of_its_picture(
    text: str, images: list[str], custom: list[dict[str, Any]]
) -> None:
    parts = parts_of(Reply(text=text, images=images, custom=custom))

    for part in parts:
        spoken = part.with_address if part.picture else part
        entities = [entity.wire for entity in spoken.entities]
        assert check_text({"text": spoken.text, "entities": entities})
        assert part.picture in spoken.text
        assert units(spoken.text) <= 4096


# How they are sent


async def test_a_picture_is_the_preview_of_its_message(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.send(HERE, Reply(text="word " * 1000, images=[CHART]), TURN)

    options = [
        call.args["link_preview_options"] for call in service.called("sendMessage")
    ]
    assert options == [NONE, SHOWN]
    assert service.last()["link_preview_options"] == SHOWN


async def test_a_reply_may_be_a_picture_alone(
    service: TelegramService, connector: Telegram
) -> None:
    sent = await connector.send(HERE, Reply(text="", images=[CHART]), TURN)

    assert service.shown() == [CHART]
    assert service.last()["link_preview_options"] == SHOWN
    assert len(sent.ids) == 1


async def test_a_reply_of_which_telegram_can_show_nothing_is_sent_without_a_message(
    service: TelegramService, connector: Telegram
) -> None:
    sent = await connector.send(HERE, Reply(text="", custom=[{"blocks": []}]), TURN)

    assert (sent.ids, sent.status) == ((), "ok")
    assert service.shown() == []


async def test_a_preview_that_telegram_refuses_is_sent_once_more_as_its_address(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("sendMessage", BadRequest("WEBPAGE_URL_INVALID"))

    sent = await connector.send(HERE, Reply(text="**Here.**", images=[CHART]), TURN)

    assert service.shown() == [f"Here.\n\n{CHART}"]
    assert service.last()["entities"][0]["type"] == "bold"
    assert service.last()["link_preview_options"] == NONE
    assert sent.ids == (str(service.last()["message_id"]),)


async def test_a_picture_of_which_nobody_knows_is_not_sent_twice(
    service: TelegramService, connector: Telegram
) -> None:
    service.fail("sendMessage", DropAfter())
    reply = Reply(text="Here.", images=[CHART])

    first = await connector.send(HERE, reply, TURN)
    await connector.send(HERE, reply, TURN)

    assert first.status == "unknown"
    assert service.shown() == ["Here."]


async def test_a_picture_follows_the_draft_of_its_text(
    service: TelegramService, connector: Telegram
) -> None:
    await connector.frame(HERE, "Here")
    await connector.send(HERE, Reply(text="Here.", images=[CHART]), TURN)

    (draft,) = service.called("sendMessageDraft")
    assert "link_preview_options" not in draft.args
    assert service.shown() == ["Here."]
    assert service.last()["link_preview_options"] == SHOWN


@pytest.mark.parametrize("text", ["Here.", "Here. And there.", ""])
async def test_a_message_that_grew_in_a_group_is_edited_to_have_its_picture(
    service: TelegramService, connector: Telegram, time: FakeTime, text: str
) -> None:
    group = service.group()
    there = address(group, ANN.id)

    await connector.frame(there, "Here.")
    time.now += 10
    await connector.send(there, Reply(text=text, images=[CHART]), TURN)

    assert service.shown(group) == [text or CHART]
    assert service.last(group)["link_preview_options"] == SHOWN
    assert len(service.called("sendMessage")) == 1
