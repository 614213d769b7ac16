"""
Terminal: a conversation with the person at the keyboard.

On a terminal: line editing with history, replies rendered from Markdown with their
sources as footnotes and shown while they are written, Ctrl-C stops the answer. In a
pipe each line is a message, each reply plain text, and the end of input the end of the
conversation. Pictures are named by their address, an action's own JSON is shown as it
is, for who writes the action. One message is answered before the next is read. Knows
nothing about how replies come about.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import signal
import sys
import threading
import unicodedata
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.status import Status
from rich.syntax import Syntax
from rich.text import Text

from bot import hookimpl
from bot.errors import ConfigError, DeliveryError, StoreError
from bot.interfaces import Accepted, Connector, Delivery
from bot.model import Address, Event, EventKind, Reply, Sent

Accept = Callable[[Event], Awaitable[Accepted]]

# A turn may end without a reply; one that was refused may still be explained.
GRACE_S = 2.0
# What is for somebody at another terminal goes back and forth until theirs has it.
NOT_HERE_S = 1.0

# What a person can look through; an action may have sent thousands.
MOST_SHOWN = 50
LONGEST_JSON = 10_000

WELCOME = (
    "Ask a question. /why explains the last reply, /help lists commands, a number "
    "presses a button, Ctrl-C stops an answer, /quit or Ctrl-D leaves."
)


class Terminal:
    """Talks with the person at the keyboard, or with a pipe."""

    name = "terminal"
    # Who looks at a new terminal has lost the old one: better twice than never.
    delivery: Delivery = "at_least_once"

    class Settings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        history: Path | None = Field(
            None,
            description="file of the lines typed; none: one in your state folder",
        )
        user: str | None = Field(
            None,
            min_length=1,
            max_length=200,
            description="names the person and the conversation; none: your login",
        )
        echo: bool = Field(
            default=False,
            description="in a pipe, write each line after '> ', for a transcript",
        )

    def __init__(self, settings: Settings, *, typed: bool | None = None) -> None:
        """`typed` says whether a person types; None finds out when `run` begins."""
        user = settings.user or _login()
        self._settings = settings
        self._typed = typed
        self._window: _Window = _Pipe(echo=settings.echo)
        self._buttons: tuple[str, int] = "", 0  # of which turn, and how many
        self._address = Address(
            platform=self.name, account="local", chat=user, user=user
        )
        self._session = uuid.uuid4().hex
        self._events = 0
        self._waiting = False
        self._leaving = False
        self._over = asyncio.Event()
        self._replied = asyncio.Event()
        self._interrupted = asyncio.Event()

    @hookimpl
    def connectors(self) -> list[Connector]:
        return [self]

    async def run(self, accept: Accept) -> None:
        typed = _is_typed() if self._typed is None else self._typed
        self._window = _Screen(self._settings.history) if typed else self._window
        async for line in self._window.lines():
            if line.strip() == "/quit":
                return
            if line.strip():
                await self._say(line, accept)
            if self._leaving:
                return

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        # Somebody else's, who talks to the same Redis in another terminal.
        if address.key != self._address.key:
            raise DeliveryError(
                "terminal: somebody else is at this one; the reply waits for them",
                retryable=True,
                retry_after_s=NOT_HERE_S,
                elsewhere=True,
            )
        self._buttons = key, len(reply.buttons)
        try:
            await self._window.show(reply)
        except BrokenPipeError as error:
            self._leaving = True
            raise DeliveryError(
                "terminal: standard output was closed; nobody reads it",
                retryable=False,
            ) from error
        finally:
            self._replied.set()
            self._over.set()
        return Sent(ids=(key,))

    async def status(self, address: Address, text: str) -> None:
        if address.key != self._address.key or not self._waiting:
            return
        self._window.working(text)
        if text:
            self._over.clear()  # it was the last message's that was over
        else:
            self._over.set()

    async def frame(self, address: Address, text: str) -> None:
        answered = self._replied.is_set() or not self._waiting
        if address.key == self._address.key and not answered:
            self._window.growing(text)

    async def _say(self, line: str, accept: Accept) -> None:
        """Hand in one line and wait until it is answered or stopped."""
        for fact in (self._over, self._replied, self._interrupted):
            fact.clear()
        self._waiting = True
        try:
            with self._window.interrupts(self._interrupted.set):
                async with asyncio.TaskGroup() as tasks:
                    stopping = tasks.create_task(self._stop_on_interrupt(accept))
                    accepted = await accept(self._said(line))
                    await self._until_answered(accepted)
                    stopping.cancel()
        except* _Left:
            self._leaving = True
        except* StoreError as errors:
            told = errors.exceptions[0]
            await self._window.show(
                Reply(text=f"(not taken: {told}; please say it again)")
            )
        finally:
            self._waiting = False
            self._window.working("")

    async def _until_answered(self, accepted: Accepted) -> None:
        if accepted != "accepted":
            self._over.set()
        while not self._replied.is_set():
            await self._over.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await self._replied.wait()
            if self._over.is_set() and not self._replied.is_set():
                told = f"(no reply; the message was {accepted})"
                await self._window.show(Reply(text=told))
                return

    async def _stop_on_interrupt(self, accept: Accept) -> None:
        """The first Ctrl-C stops the answer, the second one leaves."""
        await self._interrupted.wait()
        self._interrupted.clear()
        with suppress(StoreError):  # then the answer comes
            await accept(self._event("cancel", ""))
        await self._interrupted.wait()
        raise _Left

    def _said(self, line: str) -> Event:
        """A number presses one of the buttons under the last reply."""
        turn, buttons = self._buttons
        number = int(line) if line.strip() in _numbers(buttons) else 0
        if number:
            pressed = self._event("button", "")
            return replace(pressed, data={"turn": turn, "button": number - 1})
        if line.startswith("/"):
            return self._event("command", line.removeprefix("/"))
        return self._event("message", line)

    def _event(self, kind: EventKind, text: str) -> Event:
        self._events += 1
        return Event(
            id=f"{self._session}:{self._events}",
            kind=kind,
            address=self._address,
            time=datetime.now(UTC),
            text=text,
        )


def _numbers(most: int) -> list[str]:
    return [str(number) for number in range(1, most + 1)]


class _Left(Exception):
    """The person left while an answer was under way."""


class _Window(Protocol):
    """Where lines come from and replies go."""

    def lines(self) -> AsyncIterator[str]: ...
    def working(self, text: str) -> None: ...
    def growing(self, text: str) -> None: ...
    async def show(self, reply: Reply) -> None: ...
    @contextmanager
    def interrupts(self, interrupted: Callable[[], None]) -> Iterator[None]:
        """Call `interrupted` for each Ctrl-C meanwhile, in place of ending."""
        ...


class _Screen:
    """A terminal with a person in front of it."""

    def __init__(self, history: Path | None) -> None:
        self._prompt: PromptSession[str] = PromptSession(
            history=_history(history), key_bindings=_keys()
        )
        self._moving: Status | Live | None = None

    async def lines(self) -> AsyncIterator[str]:
        Console().print(WELCOME, style="dim")
        # Ctrl-D; and Ctrl-C with nothing typed, see _keys.
        with suppress(EOFError):
            while True:
                yield await self._prompt.prompt_async("> ")

    def working(self, text: str) -> None:
        self._still()
        if text:
            self._moving = Console().status(_clean(text))
            self._moving.start()

    def growing(self, text: str) -> None:
        """Show what is written so far, in place of what was; `show` takes it away."""
        if not isinstance(self._moving, Live):
            self._still()
            self._moving = Live(console=Console(), auto_refresh=False, transient=True)
            self._moving.start()
        self._moving.update(_Growing(text), refresh=True)

    def _still(self) -> None:
        if self._moving is not None:
            self._moving.stop()
            self._moving = None

    async def show(self, reply: Reply) -> None:
        self._still()
        # A reply to a message of an earlier session may come while a line is typed.
        await run_in_terminal(lambda: _print_rendered(reply))

    @contextmanager
    def interrupts(self, interrupted: Callable[[], None]) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        former = signal.getsignal(signal.SIGINT)
        # Windows has no signals in its loop: there Ctrl-C leaves at once.
        if sys.platform == "win32":
            yield
            return
        loop.add_signal_handler(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, former)


class _Growing:
    """The end of a text, as far as it fits: what has scrolled away stays there."""

    def __init__(self, text: str) -> None:
        self._rendered = _rendered(text)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        lines = console.render_lines(self._rendered, options, pad=False)
        for line in lines[-max(1, console.height - 1) :]:
            yield from line
            yield Segment.line()


class _Pipe:
    """
    Standard input and output that are files, pipes or other programs; with `echo` both
    sides of the conversation are written.
    """

    def __init__(self, *, echo: bool) -> None:
        self._echo = echo

    async def lines(self) -> AsyncIterator[str]:
        """
        A thread reads, because a silent pipe would block the loop. It opens the
        descriptor anew: the lock of sys.stdin, held by a thread that waits for input,
        would be fatal when Python ends.
        """
        read: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_read_lines, args=(loop, read), daemon=True).start()
        while (line := await read.get()) is not None:
            if self._echo and line.strip():
                print(f"> {line}", flush=True)  # noqa: T201 (this is what it is for)
            yield line

    def working(self, text: str) -> None:
        """Whoever reads a pipe wants replies only."""

    def growing(self, text: str) -> None:
        """Nor can a pipe take back what it was given."""

    async def show(self, reply: Reply) -> None:
        lines = [_clean(reply.text)] if reply.text else []
        lines += _pictures(reply)
        lines += [f"[custom] {_json(custom)}" for custom in reply.custom[:MOST_SHOWN]]
        lines += _more_custom(reply)
        lines += _pressable(reply)
        lines += [f"[{number}] {source}" for number, source in _footnotes(reply)]
        lines += [""] if self._echo else []
        print("\n".join(lines), flush=True)  # noqa: T201 (this is what it is for)

    @contextmanager
    def interrupts(self, interrupted: Callable[[], None]) -> Iterator[None]:
        yield


def _read_lines(
    loop: asyncio.AbstractEventLoop, read: asyncio.Queue[str | None]
) -> None:
    # The loop is closed when the conversation ended before the input did.
    with suppress(RuntimeError):
        if sys.stdin is not None:
            with open(sys.stdin.fileno(), "rb", closefd=False) as stream:
                for line in stream:
                    text = line.decode("utf-8", errors="replace").rstrip("\r\n")
                    loop.call_soon_threadsafe(read.put_nowait, text)
        loop.call_soon_threadsafe(read.put_nowait, None)


def _is_typed() -> bool:
    return all(
        stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)
    )


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return "me"


def _history(path: Path | None) -> FileHistory:
    path = path or platformdirs.user_state_path("chorus") / "terminal_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What people ask is nobody else's business.
        path.touch(mode=0o600)
    except OSError as error:
        raise ConfigError(
            f"plugin 'terminal': settings.history: {path} cannot be written "
            f"({error.strerror}); name another file"
        ) from error
    return FileHistory(path)


def _keys() -> KeyBindings:
    """Ctrl-C clears what was typed, and leaves when nothing was."""
    keys = KeyBindings()

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=EOFError)

    return keys


def _print_rendered(reply: Reply) -> None:
    console = Console()
    if reply.text:
        console.print(_rendered(reply.text))
    for line in _pictures(reply):
        console.print(Text(line))
    for custom in reply.custom[:MOST_SHOWN]:
        told = Syntax(_json(custom, indent=2), "json", word_wrap=True)
        console.print(told)
    for line in _more_custom(reply):
        console.print(Text(line, style="dim"))
    for line in _pressable(reply):
        console.print(Text(line, style="bold"))
    for number, source in _footnotes(reply):
        console.print(Text(f"[{number}] {source}", style="dim"))
    console.print()


def _rendered(text: str) -> Markdown:
    # A link's target is shown beside its text, which may come from any document.
    return Markdown(_clean(text), hyperlinks=False)


def _pressable(reply: Reply) -> list[str]:
    """Write a button as its number, which presses it, and what it says."""
    return [
        f"({number}) {' '.join(_clean(button.text).split())}"
        for number, button in enumerate(reply.buttons, 1)
    ]


def _pictures(reply: Reply) -> list[str]:
    urls = (" ".join(_clean(url).split()) for url in reply.images[:MOST_SHOWN])
    lines = [f"[image] {url}" for url in urls]
    more = len(reply.images) - MOST_SHOWN
    return [*lines, f"[image] and {more} more"] if more > 0 else lines


def _more_custom(reply: Reply) -> list[str]:
    more = len(reply.custom) - MOST_SHOWN
    return [f"[custom] and {more} more"] if more > 0 else []


def _json(custom: Mapping[str, JsonValue], *, indent: int | None = None) -> str:
    """Return what an action sent as it was, or say why that cannot be shown."""
    try:
        told = json.dumps(dict(custom), ensure_ascii=False, indent=indent)
    except RecursionError:
        return '"(nested too deep to be shown)"'
    except (TypeError, ValueError):
        return '"(not JSON)"'
    shown = _clean(told)
    return shown if len(shown) <= LONGEST_JSON else f"{shown[:LONGEST_JSON]}…"


def _footnotes(reply: Reply) -> list[tuple[int, str]]:
    sources = dict.fromkeys(citation.source for citation in reply.citations)
    return [(number, _clean(source)) for number, source in enumerate(sources, 1)]


def _clean(text: str) -> str:
    """Drop what a terminal would obey: text may come from a document or a model."""
    return "".join(
        character
        for character in text.encode("utf-8", errors="replace").decode("utf-8")
        if character in "\n\t" or unicodedata.category(character) != "Cc"
    )
