from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bot.model import Button, Citation, Reply
from connectors.slack.additions import additions_of
from connectors.slack.markdown import harmless, split
from connectors.slack.rendering import LONGEST, Part
from connectors.slack.rendering import parts_of as parts_with

KEY = "0123456789abcdef"
LINES = st.sampled_from(
    [
        "",
        "word " * 9,
        "- item",
        "1. one",
        "```py",
        "```",
        "~~~",
        "| a | b |",
        "|---|---|",
    ]
)


def parts_of(reply: Reply, *, feedback: bool = False) -> list[Part]:
    return parts_with(reply, additions_of(reply), KEY, feedback=feedback)


def test_a_short_text_stays_as_it_is() -> None:
    assert split("a\n\n\nb ", 100) == ["a\n\n\nb "]


def test_a_text_is_split_between_blocks() -> None:
    text = "a" * 40 + "\n\n" + "b" * 40 + "\n\n" + "c" * 40

    assert split(text, 100) == ["a" * 40 + "\n\n" + "b" * 40, "c" * 40]


def test_a_fence_is_closed_and_opened_again() -> None:
    text = "```python\n" + "\n".join(f"line {n}" for n in range(20)) + "\n```"

    pieces = split(text, 80)

    assert len(pieces) > 1
    for piece in pieces:
        assert piece.startswith("```python\n")
        assert piece.endswith("\n```")
    code = "\n".join(piece[len("```python\n") : -len("\n```")] for piece in pieces)
    assert code == "\n".join(f"line {n}" for n in range(20))


def test_what_looks_like_a_block_inside_a_fence_is_code() -> None:
    text = "x" * 50 + "\n\n````\n```\n\n- a\n````"

    assert split(text, 60)[1] == "````\n```\n\n- a\n````"


def test_a_list_stays_together_where_it_fits() -> None:
    items = "- one\n\n- two\n  more\n\n  still two\n\n- three"

    assert split("x" * 60 + "\n\n" + items, 70) == ["x" * 60, items]


def test_a_table_takes_its_head_along() -> None:
    head = "| a | b |\n|---|---|\n"
    rows = [f"| {n} | {n} |" for n in range(10, 30)]

    pieces = split(head + "\n".join(rows), 100)

    assert len(pieces) > 1
    assert all(piece.startswith(head) for piece in pieces)
    assert [row for piece in pieces for row in piece.split("\n")[2:]] == rows


def test_a_word_without_end_is_cut() -> None:
    pieces = split("x" * 1000, 100)

    assert "".join(pieces) == "x" * 1000


@given(st.lists(LINES, max_size=60).map("\n".join), st.integers(60, 200))
def test_no_piece_is_too_long_and_no_word_is_lost(text: str, limit: int) -> None:
    pieces = split(text, limit)

    assert all(len(piece) <= limit for piece in pieces)
    for word in ("item", "one", "word"):
        assert sum(piece.count(word) for piece in pieces) == text.count(word)


def test_nothing_in_a_text_is_live() -> None:
    text = harmless("<!channel> <@U1> <#C1> a <b> ![x](http://e) vec![1] ![y][z]")

    for live in ("<!", "<@", "<#", "!["):
        assert live not in text
    assert "a <b> [x](http://e)" in text


@given(st.text(alphabet="<!@#[]()ax", max_size=30))
def test_nothing_live_is_left_whatever_the_text(text: str) -> None:
    assert not [live for live in ("<!", "<@", "<#", "![") if live in harmless(text)]


def test_everything_under_a_reply_leaves_room_for_it() -> None:
    reply = Reply(
        text="word " * 2200,
        citations=[
            Citation(source=f"document {n} " * 9, passage="1", url=f"https://x/{n}")
            for n in range(40)
        ],
        buttons=[Button(text="b" * 90, payload=str(n)) for n in range(30)],
        feedback=True,
    )

    parts = parts_of(reply, feedback=True)

    assert [bool(part.extras) for part in parts] == [False, True]
    for part in parts:
        assert len(str([block.get("text") for block in part.blocks])) <= LONGEST + 100
    buttons = [block for block in parts[-1].extras if block["type"] == "actions"]
    assert [len(row["elements"]) for row in buttons] == [5] * 5
    (sources,) = [block for block in parts[-1].extras if block["type"] == "context"]
    assert "more" in sources["elements"][0]["text"]


def test_a_source_is_shown_as_it_is_and_linked_only_to_the_web() -> None:
    cited = [
        Citation(
            source="a.md", passage="1", title="<!here> & | b", url="https://x/>|<"
        ),
        Citation(source="b.md", passage="1", url="javascript:alert(1)"),
    ]

    (part,) = parts_of(Reply(text="Yes.", citations=cited), feedback=True)

    told = part.extras[0]["elements"][0]["text"]
    assert told == ("Sources: <https://x/&gt;%7C&lt;|&lt;!here&gt; &amp; ¦ b>  ·  b.md")


def test_a_notice_fits_however_much_is_escaped() -> None:
    (part,) = parts_of(Reply(text="&" * 9000), feedback=False)

    assert len(part.notice) <= 4000
    assert set(part.notice.split("&amp;")) == {""}
