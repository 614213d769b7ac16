from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bot.testing.makers import NOON
from connectors.slack import wording
from connectors.slack.parsing import Heard, told_by_event
from connectors.slack.payloads import Payload, account_of, is_id, is_stamp, time_of
from connectors.slack.workspaces import Workspace

ME = Workspace(team="T1", token="xoxb-1", bot_user="UBOT", bot_id="BBOT")  # noqa: S106 (of nobody)


def heard(bots: tuple[str, ...] = (), **event: Any) -> Heard | None:
    """Parse a message; what matters of it is named."""
    whole = {"type": "message", "channel": "C1", "ts": "17.5", "user": "U1", **event}
    payload = {"team_id": "T1", "api_app_id": "A1", "event": whole}
    told = told_by_event(payload, ME, bots, NOON)
    assert len(told) <= 1
    for one in told:
        assert isinstance(one, Heard)
        return one
    return None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<@UBOT> how long?", "how long?"),
        ("<@UBOT|chorus>, how long?", "how long?"),
        ("  <@UBOT>: <@UBOT> how long?", "how long?"),
        ("tell <@U2|Ada> and <@U3>", "tell @Ada and @U3"),
        ("can <@UBOT> help?", "can @bot help?"),
        ("in <#C1|general> or <#C2>", "in #general or #C2"),
        ("<https://x.org/a?b=1&amp;c=2|docs>", "docs (https://x.org/a?b=1&c=2)"),
        ("<https://x.org>", "https://x.org"),
        ("<http://x.org|x.org>", "x.org"),
        ("<mailto:a@x.org|a@x.org>", "a@x.org"),
        ("<!here> <!subteam^S1|@team> <!subteam^S1>", "@here @team @subteam"),
        ("<!date^1392734382^{date}|yesterday>", "yesterday"),
        ("1 &lt; 2 &amp;&amp; 3 &gt; 2", "1 < 2 && 3 > 2"),
        ("&amp;lt; stays", "&lt; stays"),
        ("a < b and <", "a < b and <"),
        ("<@UBOT>", ""),
        ("<@UBOT", "<@UBOT"),
    ],
)
def test_what_people_write_is_read_as_they_mean_it(written: str, read: str) -> None:
    assert wording.plain(written, "UBOT") == read


def test_a_text_of_brackets_is_read_in_no_time() -> None:
    for text in ("<" * 40_000, "<@UBOT>" * 6_000, "<a|" * 13_000 + ">" * 1000):
        wording.plain(text, "UBOT")


@pytest.mark.parametrize(
    ("subtype", "is_heard"),
    [
        (None, True),
        ("file_share", True),
        ("thread_broadcast", True),
        ("me_message", True),
        ("message_changed", False),
        ("message_deleted", False),
        ("channel_join", False),
        ("bot_message", False),
        ("assistant_app_thread", False),
        (7, False),
    ],
)
def test_only_what_people_say_is_heard(subtype: Any, *, is_heard: bool) -> None:
    assert (heard(subtype=subtype) is not None) == is_heard


def test_hidden_messages_are_not_heard() -> None:
    assert heard(hidden=True) is None


@pytest.mark.parametrize(
    "event",
    [
        {"user": "UBOT"},
        {"bot_id": "BBOT"},
        {"bot_id": "B9", "user": "U9"},
        {"bot_id": "B9", "subtype": "bot_message", "user": None},
        {"bot_id": "B9", "app_id": "A1"},
        {"user": None},
    ],
)
def test_bots_are_not_heard(event: dict[str, Any]) -> None:
    assert heard(**event) is None


@pytest.mark.parametrize(
    "event",
    [
        {"bot_id": "B9", "user": "U9"},
        {"bot_id": "B9", "subtype": "bot_message", "user": None},
    ],
)
def test_a_bot_that_the_operator_lists_is_heard(event: dict[str, Any]) -> None:
    assert heard(bots=("B9",), **event) is not None


def test_the_bot_itself_is_never_heard() -> None:
    assert heard(bots=("BBOT", "UBOT"), bot_id="BBOT", user="UBOT") is None
    assert heard(bots=("B9",), bot_id="B9", user="U9", app_id="A1") is None


@pytest.mark.parametrize(
    ("event", "thread", "addressed"),
    [
        ({"channel": "D1", "channel_type": "im"}, None, True),
        ({"channel": "D1", "channel_type": "im", "thread_ts": "16.5"}, "16.5", True),
        ({"text": "<@UBOT> hi"}, "17.5", True),
        ({"type": "app_mention"}, "17.5", True),
        ({"text": "hi"}, "17.5", False),
        ({"text": "hi", "thread_ts": "16.5"}, "16.5", False),
        ({"channel": "G1", "channel_type": "mpim", "text": "hi"}, "17.5", False),
    ],
)
def test_a_message_belongs_to_its_thread(
    event: dict[str, Any], thread: str | None, *, addressed: bool
) -> None:
    found = heard(**event)

    assert found is not None
    assert found.event.address.thread == thread
    assert found.addressed == addressed


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("<@UBOT> /why", "command", "why"),
        ("/order 12", "command", "order 12"),
        ("/stop", "cancel", ""),
        ("<@UBOT> /Stop now", "cancel", ""),
        ("why", "message", "why"),
        ("/ 2", "message", "/ 2"),
        ("//", "message", "//"),
    ],
)
def test_a_slash_in_a_message_makes_it_a_command(
    text: str, kind: str, said: str
) -> None:
    found = heard(text=text)

    assert found is not None
    assert (found.event.kind, found.event.text) == (kind, said)


def test_the_installations_team_is_the_account_and_not_the_persons() -> None:
    payload = {
        "team_id": "T7",
        "authorizations": [{"team_id": "T1"}, {"team_id": "T2"}],
        "event": {},
    }

    found = heard(user_team="T7")

    assert account_of(payload) == "T1"
    assert account_of({"team_id": "T7"}) == "T7"
    assert account_of({"team": {"id": "T3"}}) == "T3"
    assert account_of({"team": None, "enterprise": {"id": "E1"}}) == "E1"
    assert account_of({"authorizations": "x", "team_id": []}) is None
    assert found is not None
    assert found.team == "T7"


def test_ids_and_stamps_are_what_they_look_like() -> None:
    assert all(map(is_id, ["U1", "D_2", "a-b"]))
    assert not any(map(is_id, ["", "a:b", "é", "x" * 65, "a b"]))
    assert all(map(is_stamp, ["17.5", "1700000000.000100", "17"]))
    assert not any(map(is_stamp, ["", ".", "1.2.3", "²", "1" * 21, "-1"]))


def test_a_stamp_that_is_no_time_is_now() -> None:
    assert time_of("0.5", NOON) == datetime.fromtimestamp(0.5, UTC)
    assert time_of("9" * 20, NOON) == NOON
    assert time_of(None, NOON) == NOON


@pytest.mark.parametrize(
    "payload",
    [
        {
            "team_id": "T1",
            "authorizations": [
                {"enterprise_id": "E1", "team_id": "T1", "is_enterprise_install": True}
            ],
        },
        {
            "is_enterprise_install": True,
            "enterprise": {"id": "E1"},
            "team": {"id": "T1"},
        },
        {"is_enterprise_install": "true", "enterprise_id": "E1", "team_id": "T1"},
    ],
)
def test_an_app_of_a_whole_organisation_is_known_by_it(payload: Payload) -> None:
    assert account_of(payload) == "E1"
