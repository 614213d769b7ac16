"""The terminal connector: typed at by prompt_toolkit's pipe, and in a real pipe."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput
from pydantic import ValidationError

from bot.errors import ConfigError, DeliveryError
from bot.interfaces import Accepted
from bot.model import Citation, Event, Reply
from bot.testing import an_address
from connectors.terminal import WELCOME, Terminal

ENTER, CTRL_C, CTRL_D = "\r", "\x03", "\x04"


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with (
        create_pipe_input() as typed,
        create_app_session(input=typed, output=DummyOutput()),
    ):
        yield typed


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    settings = Terminal.Settings(history=tmp_path / "state" / "history", user="ada")
    return Terminal(settings, typed=True)


class Bot:
    """Stands in for the manager: keeps what it accepts and replies through `send`."""

    def __init__(
        self,
        terminal: Terminal,
        reply: Callable[[Event], Reply | None] = lambda event: Reply(text="Yes."),
    ) -> None:
        self.events: list[Event] = []
        self.heard: asyncio.Queue[Event] = asyncio.Queue()
        self.answer: Accepted = "accepted"
        self._terminal = terminal
        self._reply = reply
        self._tasks: list[asyncio.Task[None]] = []

    async def accept(self, event: Event) -> Accepted:
        self.hear(event)
        self._tasks.append(asyncio.create_task(self._work(event)))
        return self.answer

    def hear(self, event: Event) -> None:
        self.events.append(event)
        self.heard.put_nowait(event)

    async def _work(self, event: Event) -> None:
        await self._terminal.status(event.address, "Thinking …")
        reply = self._reply(event)
        await self._terminal.status(event.address, "")
        if reply is not None:
            await self._terminal.send(event.address, reply, event.id)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(event.kind, event.text) for event in self.events]


async def test_each_line_is_a_message_and_its_reply_is_rendered_with_footnotes(
    terminal: Terminal, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    cited = tuple(
        Citation(source=source, passage="p")
        for source in ("refunds.md", "terms.md", "refunds.md")
    )
    bot = Bot(terminal, lambda event: Reply(text="**Five** days.", citations=cited))
    keyboard.send_text(f"How long?{ENTER}{CTRL_D}")

    await terminal.run(bot.accept)

    shown = capsys.readouterr().out
    assert bot.said == [("message", "How long?")]
    assert "Five days." in shown
    assert "**" not in shown
    assert "[1] refunds.md" in shown
    assert "[2] terms.md" in shown
    assert "[3]" not in shown


async def test_a_message_comes_from_one_conversation_with_ids_of_its_own(
    terminal: Terminal, keyboard: PipeInput
) -> None:
    bot = Bot(terminal)
    keyboard.send_text(f"one{ENTER}two{ENTER}one{ENTER}{CTRL_D}")

    await terminal.run(bot.accept)

    assert {event.address.key for event in bot.events} == {"terminal:local:ada"}
    assert {event.address.user for event in bot.events} == {"ada"}
    assert len({event.id for event in bot.events}) == 3


async def test_the_next_line_is_read_only_when_the_reply_is_there(
    terminal: Terminal, keyboard: PipeInput
) -> None:
    bot = Bot(terminal, lambda event: None)
    keyboard.send_text(f"one{ENTER}two{ENTER}{CTRL_D}")

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(terminal.run(hanging(bot)))
        one = await bot.heard.get()
        for _ in range(100):  # whatever could go on without a reply goes on
            await asyncio.sleep(0)
        before = list(bot.said)
        await terminal.send(one.address, Reply(text="Yes."), "k1")
        two = await bot.heard.get()
        await terminal.send(two.address, Reply(text="Yes."), "k2")
        await running

    assert before == [("message", "one")]
    assert two.text == "two"


async def test_slash_lines_are_commands_and_quit_leaves(
    terminal: Terminal, keyboard: PipeInput
) -> None:
    bot = Bot(terminal)
    keyboard.send_text(f"/why{ENTER}/weather in Galway{ENTER}/quit{ENTER}")

    await terminal.run(bot.accept)

    assert bot.said == [("command", "why"), ("command", "weather in Galway")]


def test_the_welcome_says_how_to_leave() -> None:
    assert "/quit" in WELCOME


async def test_pasted_lines_are_one_message(
    terminal: Terminal, keyboard: PipeInput
) -> None:
    bot = Bot(terminal)
    keyboard.send_text(f"\x1b[200~first\nsecond\x1b[201~{ENTER}{CTRL_D}")

    await terminal.run(bot.accept)

    assert bot.said == [("message", "first\nsecond")]


async def test_empty_lines_say_nothing(terminal: Terminal, keyboard: PipeInput) -> None:
    bot = Bot(terminal)
    keyboard.send_text(f"{ENTER}   {ENTER}{CTRL_D}")

    await terminal.run(bot.accept)

    assert bot.events == []


async def test_ctrl_c_clears_what_was_typed_and_leaves_when_nothing_was(
    terminal: Terminal, keyboard: PipeInput
) -> None:
    bot = Bot(terminal)
    keyboard.send_text(f"never mind{CTRL_C}hello{ENTER}{CTRL_C}")

    await terminal.run(bot.accept)

    assert bot.said == [("message", "hello")]


async def test_ctrl_c_during_an_answer_cancels_it(
    terminal: Terminal, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    bot = Bot(
        terminal,
        lambda event: Reply(text="Stopped.") if event.kind == "cancel" else None,
    )
    accept = hanging(bot)
    former = signal.getsignal(signal.SIGINT)
    keyboard.send_text(f"How long?{ENTER}")

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(terminal.run(accept))
        await bot.heard.get()
        os.kill(os.getpid(), signal.SIGINT)
        await bot.heard.get()
        keyboard.send_text(CTRL_D)
        await running

    assert bot.said == [("message", "How long?"), ("cancel", "")]
    assert bot.events[0].address == bot.events[1].address
    assert "Stopped." in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) == former


async def test_a_second_ctrl_c_leaves(terminal: Terminal, keyboard: PipeInput) -> None:
    bot = Bot(terminal, lambda event: None)
    accept = hanging(bot)
    keyboard.send_text(f"How long?{ENTER}")

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(terminal.run(accept))
        await bot.heard.get()
        os.kill(os.getpid(), signal.SIGINT)
        await bot.heard.get()
        os.kill(os.getpid(), signal.SIGINT)
        await running

    assert bot.said == [("message", "How long?"), ("cancel", "")]


def hanging(bot: Bot) -> Callable[[Event], Awaitable[Accepted]]:
    """Accept messages and never answer them; everything else reaches the bot."""

    async def accept(event: Event) -> Accepted:
        if event.kind != "message":
            return await bot.accept(event)
        bot.hear(event)
        return "accepted"

    return accept


@pytest.mark.parametrize("answer", ["accepted", "refused"])
async def test_a_turn_without_a_reply_does_not_stop_the_conversation(
    terminal: Terminal,
    keyboard: PipeInput,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    answer: Accepted,
) -> None:
    monkeypatch.setattr("connectors.terminal.GRACE_S", 0.01)
    bot = Bot(terminal, lambda event: None)
    bot.answer = answer
    keyboard.send_text(f"one{ENTER}two{ENTER}{CTRL_D}")

    await terminal.run(bot.accept)

    assert bot.said == [("message", "one"), ("message", "two")]
    assert f"(no reply; the message was {answer})" in capsys.readouterr().out


async def test_a_reply_for_another_terminal_waits_for_that_one(
    terminal: Terminal, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    bobs = an_address("bob", platform="terminal", account="local")

    with pytest.raises(DeliveryError, match="somebody else is at this") as told:
        await terminal.send(bobs, Reply(text="for bob"), "k1")

    assert told.value.retryable
    assert told.value.elsewhere
    assert capsys.readouterr().out == ""


async def test_a_reply_cannot_command_the_terminal(
    terminal: Terminal, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    bot = Bot(terminal, lambda event: Reply(text="a\x1b]0;owned\x07b\x9b2Jc \udcff"))
    keyboard.send_text(f"one{ENTER}{CTRL_D}")

    await terminal.run(bot.accept)

    shown = capsys.readouterr().out
    assert "a]0;ownedb2Jc ?" in shown
    assert "\x1b]0;" not in shown


@pytest.fixture
def screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """What a person at a terminal of 40 columns and 8 lines has seen."""
    for name, value in {
        "TTY_COMPATIBLE": "1",
        "TERM": "xterm",
        "COLUMNS": "40",
        "LINES": "8",
    }.items():
        monkeypatch.setenv(name, value)
    written: list[str] = []

    def seen() -> list[str]:
        written.append(capsys.readouterr().out)
        lines = looking_at("".join(written), height=8)
        return [line for line in lines if line not in WELCOME]

    return seen


def looking_at(written: str, height: int) -> list[str]:
    """
    Return the lines of a terminal that was written to, those that have scrolled away
    included: they cannot be reached any more.
    """
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.|\n", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
            row = max(row - int(up[1]), len(lines) - height, 0)
        elif not part.startswith(("\x1b", "\r")):
            lines[row] += part
    return [line.rstrip() for line in lines if line.strip()]


async def test_a_reply_is_shown_as_it_grows_and_stands_there_once(
    terminal: Terminal, keyboard: PipeInput, screen: Callable[[], list[str]]
) -> None:
    seen: list[list[str]] = []

    async def accept(event: Event) -> Accepted:
        await terminal.status(event.address, "Thinking …")
        for text in ("It takes **five**", "It takes **five** days."):
            await terminal.frame(event.address, text)
            seen.append(screen())
        reply = Reply(text="It takes **five** days. Ask us.")
        await terminal.send(event.address, reply, event.id)
        await terminal.frame(event.address, "late")
        await terminal.status(event.address, "")
        return "accepted"

    keyboard.send_text(f"How long?{ENTER}{CTRL_D}")

    await terminal.run(accept)

    assert seen == [["It takes five"], ["It takes five days."]]
    assert screen() == ["It takes five days. Ask us."]


async def test_a_reply_that_is_longer_than_the_screen_stands_there_once_too(
    terminal: Terminal, keyboard: PipeInput, screen: Callable[[], list[str]]
) -> None:
    items = [f"item {number}" for number in range(30)]

    async def accept(event: Event) -> Accepted:
        for end in range(1, len(items) + 1):
            await terminal.frame(event.address, "\n\n".join(items[:end]))
        await terminal.send(event.address, Reply(text="\n\n".join(items)), event.id)
        return "accepted"

    keyboard.send_text(f"What is there?{ENTER}{CTRL_D}")

    await terminal.run(accept)

    assert screen() == items


async def test_frames_of_somebody_else_or_without_a_question_are_not_shown(
    terminal: Terminal, keyboard: PipeInput, screen: Callable[[], list[str]]
) -> None:
    bobs = an_address("bob", platform="terminal", account="local")
    mine = an_address("ada", platform="terminal", account="local")

    async def accept(event: Event) -> Accepted:
        await terminal.frame(bobs, "for bob")
        await terminal.send(event.address, Reply(text="Yes."), event.id)
        return "accepted"

    keyboard.send_text(f"one{ENTER}{CTRL_D}")
    await terminal.frame(mine, "before the question")

    await terminal.run(accept)

    assert screen() == ["Yes."]


async def test_a_frame_that_no_reply_followed_is_taken_away(
    terminal: Terminal,
    keyboard: PipeInput,
    screen: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("connectors.terminal.GRACE_S", 0.01)

    async def accept(event: Event) -> Accepted:
        await terminal.frame(event.address, "It takes")
        await terminal.status(event.address, "")
        return "accepted"

    keyboard.send_text(f"one{ENTER}{CTRL_D}")

    await terminal.run(accept)

    assert screen() == ["(no reply; the message was accepted)"]


async def test_a_pipe_gets_replies_only(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(Terminal.Settings(user="ada"), typed=False)
    address = an_address("ada", platform="terminal", account="local")
    terminal._waiting = True

    await terminal.frame(address, "It takes")
    await terminal.send(address, Reply(text="It takes five days."), "k1")

    assert capsys.readouterr().out == "It takes five days.\n"


async def test_lines_are_remembered_in_a_private_file(
    terminal: Terminal, keyboard: PipeInput, tmp_path: Path
) -> None:
    keyboard.send_text(f"How long?{ENTER}{CTRL_D}")

    await terminal.run(Bot(terminal).accept)

    history = tmp_path / "state" / "history"
    assert "+How long?" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


async def test_a_history_that_cannot_be_written_is_for_the_operator(
    tmp_path: Path, keyboard: PipeInput
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    terminal = Terminal(Terminal.Settings(history=blocked / "history"), typed=True)

    with pytest.raises(ConfigError, match=r"settings.history: .*cannot be written"):
        await terminal.run(Bot(terminal).accept)


async def test_a_closed_output_ends_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    terminal = Terminal(Terminal.Settings(user="ada"), typed=False)
    address = an_address("ada", platform="terminal", account="local")
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)

        with pytest.raises(DeliveryError) as caught:
            await terminal.send(address, Reply(text="Yes."), "k1")

        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    assert not caught.value.retryable


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        Terminal.Settings.model_validate({"user": ""})
    with pytest.raises(ValidationError):
        Terminal.Settings.model_validate({"colour": "red"})


# What an action adds

CHART = "https://shop.example/chart.png"
DEEP: Any = {}
for _ in range(1000):
    DEEP = {"of": DEEP}


async def printed(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], reply: Reply
) -> list[str]:
    """Return the lines that a pipe gets of a reply."""
    await terminal.send(terminal._address, reply, "k")
    return capsys.readouterr().out.splitlines()


async def test_on_a_screen_pictures_are_named_and_custom_json_is_laid_out(
    terminal: Terminal, keyboard: PipeInput, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = Reply(
        text="**Here.**", images=[CHART], custom=[{"photo": CHART, "of": ["退", 1]}]
    )
    bot = Bot(terminal, lambda event: reply)
    keyboard.send_text(f"Where?{ENTER}{CTRL_D}")

    await terminal.run(bot.accept)

    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    at = lines.index("Here.")
    assert lines[at + 1 : at + 5] == [
        f"[image] {CHART}",
        "{",
        f'"photo": "{CHART}",',
        '"of": [',
    ]
    assert '"退",' in lines


async def test_in_a_pipe_each_of_them_is_one_line(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = Reply(
        text="Here.",
        images=[CHART, CHART],
        custom=[{"text": "a\nb", "of": [1, None]}],
        citations=[Citation(source="a.md", passage="1")],
    )

    assert await printed(terminal, capsys, reply) == [
        "Here.",
        f"[image] {CHART}",
        f"[image] {CHART}",
        '[custom] {"text": "a\\nb", "of": [1, null]}',
        "[1] a.md",
    ]


async def test_a_picture_alone_has_no_empty_line_before_it(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = Reply(text="", images=[CHART])

    assert await printed(terminal, capsys, reply) == [f"[image] {CHART}"]


async def test_nothing_in_them_is_obeyed_and_no_line_is_forged(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = Reply(
        text="",
        images=["https://x.example/\x1b[2J\n[1] forged.md", "\ud83d"],
        custom=[{"\x1b[2J": "\x9b \udc00"}],
    )

    lines = await printed(terminal, capsys, reply)

    assert len(lines) == 3
    assert not {"\x1b", "\x9b"} & set("".join(lines))


async def test_what_cannot_be_shown_is_said_and_ends(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = Reply(
        text="",
        images=[CHART] * 10_000,
        custom=[DEEP, {"of": {1}}, {"of": "x" * 10**6}, *[{}] * 10_000],  # type: ignore[dict-item]  # a set is no JSON
    )

    lines = await printed(terminal, capsys, reply)

    assert "[image] and 9950 more" in lines
    assert '[custom] "(nested too deep to be shown)"' in lines
    assert '[custom] "(not JSON)"' in lines
    assert "[custom] and 9953 more" in lines
    assert max(map(len, lines)) < 11_000
    assert len(lines) == 102


ECHO = """
import asyncio
from bot.model import Citation, Reply
from connectors.terminal import Terminal

terminal = Terminal(Terminal.Settings(user="ada"))
cited = (Citation(source="refunds.md", passage="p1"),)

async def accept(event):
    print(f"({event.kind})")
    reply = Reply(text=f"**{event.text}**", citations=cited)
    sending = terminal.send(event.address, reply, event.id)
    asyncio.get_running_loop().create_task(sending)
    return "accepted"

asyncio.run(terminal.run(accept))
"""


def test_in_a_pipe_each_line_is_answered_in_plain_text_until_the_end() -> None:
    ran = piped(b"How long?\r\n\n/why\n\xff last")

    assert ran.stderr == b""
    assert ran.returncode == 0
    assert ran.stdout.decode().splitlines() == [
        "(message)",
        "**How long?**",
        "[1] refunds.md",
        "(command)",
        "**why**",
        "[1] refunds.md",
        "(message)",
        "**\N{REPLACEMENT CHARACTER} last**",
        "[1] refunds.md",
    ]


def test_a_file_as_input_is_read_to_its_end(tmp_path: Path) -> None:
    questions = tmp_path / "questions"
    questions.write_bytes(b"one\ntwo\n")

    with questions.open("rb") as stream:
        ran = subprocess.run(
            [sys.executable, "-c", ECHO],
            stdin=stream,
            capture_output=True,
            timeout=30,
            check=False,
        )

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.count(b"(message)") == 2


def test_quitting_while_the_pipe_stays_open_ends_cleanly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ECHO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write(b"/quit\n")
        running.stdin.flush()

        returncode = running.wait(timeout=30)
        stderr = running.stderr.read()

    assert (returncode, stderr) == (0, b"")


def piped(lines: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", ECHO],
        input=lines,
        capture_output=True,
        timeout=30,
        check=False,
    )
