"""What an update tells the bot, and what is none of its business."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bot.model import Event
from bot.testing.makers import NOON
from connectors.telegram.parsing import (
    KINDS,
    Fact,
    Me,
    Moved,
    Pressed,
    Reach,
    Reacted,
    Said,
    Stopped,
    heard,
)
from tests.connectors.telegram.chats import ANN, BEN, BOT, ROBOT
from tests.connectors.telegram.chats import NOON as FIRST_SECOND
from tests.connectors.telegram.limits import text_mention
from tests.connectors.telegram.people import People
from tests.connectors.telegram.talking import TURN

ME = Me(id="77", username="chorus_bot")


@pytest.fixture
def people() -> People:
    made = People(lambda: 0.0, lambda: None)
    made.updates.asked_for = KINDS
    made.privacy = False  # the service sends everything; the parser has to choose
    return made


def fact(update: object) -> Fact | None:
    told = heard(update, ME, NOON)
    assert told is not None
    return told.fact


def event(update: object) -> Event:
    told = fact(update)
    assert isinstance(told, (Said, Pressed, Reacted, Stopped))
    assert told.event is not None
    return told.event


def said(update: object) -> tuple[str, str] | None:
    """Return kind and text of what was said; None: nothing was."""
    told = fact(update)
    return (told.event.kind, told.event.text) if isinstance(told, Said) else None


def test_a_message_in_a_private_chat_is_an_event(people: People) -> None:
    told = event(people.say("How long does a refund take?"))

    assert told.id == "telegram:77:1001"
    assert (told.kind, told.text) == ("message", "How long does a refund take?")
    assert told.address.key == "telegram:77:42"
    assert told.address.user == "42"
    assert told.time == datetime.fromtimestamp(FIRST_SECOND, UTC)


def test_the_same_update_is_the_same_event(people: People) -> None:
    update = people.say("hello")

    assert heard(update, ME, NOON) == heard(update, ME, NOON)


def test_a_topic_is_a_conversation_of_its_own(people: People) -> None:
    forum = people.supergroup(forum=True)
    topic = people.topic(forum)

    told = event(people.say("@chorus_bot hello", chat=forum, thread=topic))

    assert told.address.key == f"telegram:77:{forum}:{topic}"


def test_a_thread_of_replies_is_no_topic(people: People) -> None:
    group = people.supergroup()
    first = people.say("@chorus_bot hello", chat=group)["message"]

    told = event(people.reply("@chorus_bot and?", first))

    assert told.address.thread is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/why", ("command", "why")),
        ("/why  this  one ", ("command", "why this  one")),
        ("/WHY@Chorus_Bot now", ("command", "why now")),
        ("/start ref_77", ("command", "start ref_77")),
        ("/unknown_thing", ("command", "unknown_thing")),
        ("/stop", ("cancel", "")),
        ("/stop@chorus_bot please", ("cancel", "")),
        ("/why@another_bot", None),
        ("/stop@another_bot", None),
        ("what does /why do", ("message", "what does /why do")),
        ("/etc/passwd", ("message", "/etc/passwd")),
        ("/ why", ("message", "/ why")),
    ],
)
def test_commands_are_told_from_messages(
    people: People, text: str, expected: tuple[str, str] | None
) -> None:
    assert said(people.say(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("talk among people", None),
        ("@chorus_bot how long?", ("message", "how long?")),
        ("@CHORUS_BOT, how long?", ("message", "how long?")),
        ("how long, @chorus_bot?", ("message", "how long,?")),
        ("🚲🚲 @chorus_bot how 🚲 long", ("message", "🚲🚲 how 🚲 long")),
        ("@chorus_bot @chorus_bot really?", ("message", "really?")),
        ("@chorus_bot", ("message", "")),
        ("@another_bot how long?", None),
        ("me@chorus_bot.example", None),
        ("/help", ("command", "help")),
        ("/help@chorus_bot", ("command", "help")),
        ("/help@another_bot", None),
    ],
)
def test_in_a_group_only_what_is_meant_for_the_bot_counts(
    people: People, text: str, expected: tuple[str, str] | None
) -> None:
    assert said(people.say(text, chat=people.group())) == expected


def test_a_link_to_the_bot_is_a_mention(people: People) -> None:
    text = "🚲 Chorus, how long?"
    marks = [text_mention(text, "Chorus", BOT.wire)]

    told = said(people.say(text, chat=people.group(), entities=marks))

    assert told == ("message", "🚲, how long?")


def test_a_link_to_somebody_else_is_none(people: People) -> None:
    marks = [text_mention("Ben, how long?", "Ben", BEN.wire)]

    told = said(people.say("Ben, how long?", chat=people.group(), entities=marks))

    assert told is None


def test_who_replies_to_the_bot_speaks_to_it(people: People) -> None:
    group = people.supergroup()
    answer = people.put(people.chats[group], BOT, {"text": "Five days."})

    assert said(people.reply("Really?", answer)) == ("message", "Really?")


def test_who_replies_to_somebody_else_does_not(people: People) -> None:
    group = people.supergroup()
    first = people.say("Five days.", chat=group)["message"]

    assert said(people.reply("Really?", first, user=BEN)) is None


def test_a_topic_that_the_bot_opened_is_no_reply_to_it(people: People) -> None:
    forum = people.supergroup(forum=True)
    topic = people.topic(forum, by=BOT)

    assert said(people.say("talk", chat=forum, thread=topic)) is None


def test_the_words_under_a_picture_count(people: People) -> None:
    group = people.group()

    assert said(people.picture("What is this?")) == ("message", "What is this?")
    assert said(people.picture("@chorus_bot this?", chat=group)) == ("message", "this?")


def test_a_picture_without_words_says_nothing_in_private_and_less_in_a_group(
    people: People,
) -> None:
    assert said(people.picture()) == ("message", "")
    assert said(people.picture(chat=people.group())) is None


def test_of_an_album_only_the_words_count(people: People) -> None:
    album = people.album("Which of these?", "", "")

    assert [said(one) for one in album] == [("message", "Which of these?"), None, None]


def test_what_changes_or_comes_from_machines_starts_no_turn(people: People) -> None:
    update = people.say("hello")
    group = people.supergroup()
    service_message = {"new_chat_members": [BEN.wire]}
    chat = people.chats[group]

    nothing = [
        people.edit(update, "hello!"),
        people.edit(update),
        people.say("beep @chorus_bot", chat=group, user=ROBOT),
        people.say("beep", user=BOT),
        {"update_id": 1, "message": people.put(chat, ANN, service_message)},
        people.post("news", chat=people.channel()),
        people.other("something_new", {"chat": {"id": 1}}),
        people.other("message", {"no": "message"}),
    ]

    assert [heard({"update_id": 1, **one}, ME, NOON).fact for one in nothing] == [  # type: ignore[union-attr]
        None
    ] * len(nothing)


def test_an_administrator_who_hides_is_a_person(people: People) -> None:
    group = people.supergroup()
    by: dict[str, Any] = {
        "from": {"id": 1087968824, "is_bot": True, "username": "GroupAnonymousBot"},
        "sender_chat": {"id": group, "type": "supergroup"},
    }

    told = event(people.say("@chorus_bot hello", chat=group, **by))

    assert told.address.user == str(group)


def test_what_a_channel_forwards_to_its_group_is_not_for_the_bot(
    people: People,
) -> None:
    update = people.say(
        "@chorus_bot", chat=people.supergroup(), is_automatic_forward=True
    )

    assert said(update) is None


def test_a_business_message_is_answered_in_the_name_of_its_connection(
    people: People,
) -> None:
    told = event(people.business("hello", connection="c1"))

    assert told.address.account == "77/c1"


def test_what_the_business_writes_itself_is_not_answered(people: People) -> None:
    update = people.business("hello", connection="c1")
    update["business_message"]["from"] = BEN.wire

    assert said(update) is None


def a_keyboard(*data: str) -> dict[str, Any]:
    rows = [[{"text": one, "callback_data": one} for one in data]]
    return {"inline_keyboard": rows}


@pytest.mark.parametrize(
    ("written", "kind", "data"),
    [
        (f"b:{TURN}:0", "button", {"turn": TURN, "button": 0}),
        (f"b:{TURN}:12", "button", {"turn": TURN, "button": 12}),
        (f"f:+:{TURN}", "feedback", {"turn": TURN, "rating": 1}),
        (f"f:-:{TURN}", "feedback", {"turn": TURN, "rating": -1}),
    ],
)
def test_a_pressed_button_says_its_turn_and_place(
    people: People, written: str, kind: str, data: dict[str, Any]
) -> None:
    message = people.put(
        people.private(), BOT, {"text": "?", "reply_markup": a_keyboard(written)}
    )

    told = event(people.press(message, 0, user=ANN))

    assert (told.kind, told.data) == (kind, data)
    assert told.address.key == "telegram:77:42"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "b",
        "b::",
        f"b:{TURN}:-1",
        f"b:{TURN}:1000",
        f"b:{TURN}:²",
        f"b:{TURN}:1:2",
        f"b:{TURN}x:1",
        f"f:0:{TURN}",
        "f:+:../../etc",
        f"x:{TURN}:1",
    ],
)
def test_a_button_that_is_none_of_ours_is_only_answered(
    people: People, written: str
) -> None:
    update = people.other(
        "callback_query",
        {
            "id": "q1",
            "from": ANN.wire,
            "message": people.put(people.private(), BOT, {"text": "?"}),
            "data": written,
        },
    )

    assert fact(update) == Pressed(query="q1")


@pytest.mark.parametrize(
    ("emoji", "rating"),
    [("👍", 1), ("❤", 1), ("❤️", 1), ("👎", -1), ("🤔", None)],
)
def test_a_reaction_judges_a_message(
    people: People, emoji: str, rating: int | None
) -> None:
    message = people.put(people.private(), BOT, {"text": "Five days."})

    told = fact(people.react(message, emoji))

    if rating is None:
        assert told is None
    else:
        assert isinstance(told, Reacted)
        assert (told.message, told.event.data) == (
            message["message_id"],
            {"rating": rating},
        )


def test_a_reaction_that_is_taken_back_judges_nothing_any_more(people: People) -> None:
    update = people.react(people.put(people.private(), BOT, {"text": "Five."}))
    update["message_reaction"]["old_reaction"] = [{"type": "emoji", "emoji": "👍"}]

    assert event(update).data == {"rating": 0}


def test_stop_under_a_draft_cancels_in_its_topic(people: People) -> None:
    content = {"chat": people.private().wire, "message_thread_id": 9, "draft_id": 5}

    told = event(people.other("stopped_message_generation", content))

    assert (told.kind, told.address.key) == ("cancel", "telegram:77:42:9")


def test_a_group_that_moves_says_so_twice(people: People) -> None:
    old = people.group()
    new = people.migrate(old)

    facts = [fact(update) for update in people.updates.pending.values()]

    assert facts == [Moved(old=str(old), new=str(new))] * 2


@pytest.mark.parametrize(
    ("member", "there"),
    [
        ({"status": "kicked"}, False),
        ({"status": "left"}, False),
        ({"status": "member"}, True),
        ({"status": "administrator"}, True),
        ({"status": "restricted", "is_member": True}, True),
        ({"status": "restricted", "is_member": False}, False),
    ],
)
def test_who_shuts_the_bot_out_or_lets_it_in_says_so(
    people: People, member: dict[str, Any], there: bool
) -> None:
    content = {"chat": people.private().wire, "new_chat_member": member}

    assert fact(people.other("my_chat_member", content)) == Reach(there=there)


@pytest.mark.parametrize(
    "update",
    [None, [], "x", 1, {}, {"update_id": True}, {"update_id": "7"}, {"update_id": -1}],
)
def test_what_has_no_number_is_no_update(update: object) -> None:
    assert heard(update, ME, NOON) is None


@pytest.mark.parametrize(
    "entities",
    [
        None,
        "x",
        [None],
        [{"type": "mention"}],
        [{"type": "mention", "offset": 0, "length": 10**9}],
        [{"type": "mention", "offset": -5, "length": 11}],
        [{"type": "mention", "offset": True, "length": "11"}],
        [{"type": ["mention"], "offset": 0, "length": 11}],
        [{"type": "bot_command", "offset": 0, "length": 3}],
        [{"type": "text_mention", "offset": 0, "length": 3, "user": 77}],
    ],
)
def test_marks_that_make_no_sense_are_none(people: People, entities: object) -> None:
    update = people.say("hello there", entities=entities)

    assert said(update) == ("message", "hello there")


def test_a_date_that_is_none_is_now(people: People) -> None:
    for date in (None, "x", -1, 10**30, True):
        update = people.say("hello", date=date)

        assert event(update).time == NOON


def test_reactions_are_asked_for_by_name() -> None:
    # They do not come by default, and neither does what is not named then.
    assert {"message", "callback_query", "message_reaction"} <= set(KINDS)
    assert "edited_message" not in KINDS
