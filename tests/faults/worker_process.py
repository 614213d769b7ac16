"""
Processes that work for a bot, and can be killed anywhere: a `Fleet` of them, in a test.

Each is a process of its own with a real ConversationManager. It is forked from one that
has imported everything, so that starting another one costs milliseconds. Its connector
talks to the test's `Platform`; its answers prove what they were made from: the
question, its number in the conversation, the question before it, and a slot that the
command `count` counts up.

Where a process is to die or to stop is told by a `Plan`. It notes what it does in the
fleet's journal, with the replies that it was sending, and does it to itself; production
code knows nothing of it, because the places lie in what this module puts round store,
connector and answerer.

    async with Platform() as platform, Fleet(tmp_path) as fleet:
        settings = Settings(url=server.url, platform=str(platform.path))
        child = await fleet.start(settings)
        await platform.deliver(event)
        child.kill()
        assert await child.ended() == -signal.SIGKILL

Nothing here outlives the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import logging
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from bot import metrics
from bot.config import Config
from bot.conversation.manager import ConversationManager, Role
from bot.conversation.state import EVENTS, Begun, Committed, Outgoing, Waiting
from bot.conversation.store import Store
from bot.conversation.tokens import Token
from bot.errors import DeliveryError, StoreError
from bot.interfaces import Accepted, Connector, Delivery
from bot.model import ActionResult, Address, Event, Record, Reply, Sent, Turn
from tests.acting import WithActions

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
LINE = 1 << 22  # bytes, at most
READY_S = 30.0
LOOK_S = 0.01

Point = Literal[
    "before accept",
    "after accept",  # kept, and not acknowledged
    "after claim",  # the token was taken, nothing begun
    "after load",
    "mid generation",
    "before commit",
    "after commit",
    "after opening",  # read at the head of the outbox
    "after marking",  # marked as being sent
    "before send",
    "after send",  # the platform has it, nobody knows
    "after taking out",
]


# What a test says


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What a process does to itself when it comes to `point` for the `after`-th time:
    be killed (SIGKILL) or stopped (SIGSTOP). Only passes whose text contains `text`
    count: the question at "mid generation", the reply at its opening and its send.
    """

    point: Point
    after: int = 1
    does: Literal["kill", "stop"] = "kill"
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What a process works with. `workers` and `conversation` are sections of the
    configuration, over defaults that limit nothing. `answer_s` is how long an answer
    takes, unless the message's `data` says another `answer_s`; an action takes no time
    unless that says so. `finds` says whether the connector can look for what it sent.
    Pauses between attempts are `pauses` times as long as they would be.
    """

    url: str
    platform: str
    shards: int = 1
    roles: Sequence[Role] = ("connectors", "workers")
    delivery: Delivery = "at_least_once"
    finds: bool = True
    answer_s: float = 0.01
    pauses: float = 1.0
    workers: Mapping[str, Any] = field(default_factory=dict)
    conversation: Mapping[str, Any] = field(default_factory=dict)
    plan: Plan | None = None

    @property
    def config(self) -> Config:
        return Config.model_validate(
            {
                "knowledge": {"model": "none"},
                "generation": {"model": "none"},
                "workers": dict(self.workers),
                "conversation": {
                    "lane_limit": 10_000,
                    "messages_per_minute": 100_000,
                    **self.conversation,
                },
            }
        )

    def planning(self, plan: Plan | None) -> Settings:
        return replace(self, plan=plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """
    What a process wrote down before it did it. `text`: the question, or the reply, at
    the points that have one. `sending`: the replies, by key, that it had marked as
    being sent, and of which it did not know yet what became.
    """

    name: str
    point: Point
    does: Literal["kill", "stop"]
    text: str
    sending: Sequence[str]


class Child:
    """One process. Signals are sent to it as long as it is there."""

    def __init__(self, name: str, settings: Settings, log_file: Path) -> None:
        self.name = name
        self.settings = settings
        self.pid = 0
        self.is_ready = False
        self._log_file = log_file
        self._changed = asyncio.Event()
        self._code: int | None = None
        self._asking = asyncio.Lock()
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_alive(self) -> bool:
        return self.pid > 0 and self._code is None

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log_file.read_text()

    def signal(self, number: signal.Signals) -> None:
        if self.is_alive:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    async def ended(self) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        while self._code is None:
            await self._look()
        return self._code

    async def is_stopped(self) -> bool:
        """Whether it has been stopped by SIGSTOP; Linux only."""
        return self._stat()[0] == "T"

    async def has_begun(self) -> bool:
        """Whether it has begun a turn."""
        return await self.reading("chorus_wait_seconds_count") > 0

    def cpu_s(self) -> float:
        """Return the seconds of CPU that it has used; Linux only."""
        user, system = self._stat()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """Return the memory that it takes now; Linux only."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    async def reading(self, sample: str, **labels: str) -> float:
        """Ask it for one number of its metrics."""
        read: float = await self._ask({"reading": sample, "labels": labels})
        return read

    async def shift_clock(self, seconds: float) -> None:
        """Let its clock jump so far ahead of the real time."""
        await self._ask({"clock": seconds})

    async def plan(self, plan: Plan | None) -> None:
        """Give it another plan, whose passes are counted from now on."""
        await self._ask({"plan": None if plan is None else asdict(plan)})

    async def _ask(self, question: dict[str, Any]) -> Any:
        assert self._line is not None, f"{self.name} is not ready"
        reader, writer = self._line
        async with self._asking:
            await _write(writer, question)
            return json.loads(await reader.readline())["answer"]

    def _stat(self) -> list[str]:
        """Return what /proc says of it, from the state on."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()

    # What the fleet hears of it

    async def _look(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _started(self) -> None:
        while not ((self.is_ready and self.pid) or self._code is not None):
            await self._look()

    def _hear(
        self,
        *,
        pid: int | None = None,
        code: int | None = None,
        line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None,
    ) -> None:
        self.pid = self.pid if pid is None else pid
        self._code = self._code if code is None else code
        if line is not None:
            self._line, self.is_ready = line, True
        self._changed.set()


class Fleet:
    """An async context manager: the processes of a test, killed at its end."""

    def __init__(self, folder: Path) -> None:
        self.children: list[Child] = []
        self._folder = folder
        # A socket's path may have about a hundred characters.
        self._short = Path(tempfile.mkdtemp(prefix="chorus-"))
        self._journal = folder / "journal"
        self._noted: list[Noted] = []
        self._read = 0
        self._process: asyncio.subprocess.Process | None = None
        self._server: asyncio.Server | None = None
        self._names = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._journal.touch()
        self._server = await asyncio.start_unix_server(
            self._greet, self._short / "fleet"
        )
        self._process = await asyncio.create_subprocess_exec(
            # Safe paths: the module beside this one is called platform.
            *(sys.executable, "-P", __file__, str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._tasks.append(asyncio.create_task(self._listen()))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._server is not None
        self._process.stdin.close()  # which ends all of them
        await self._process.wait()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for child in self.children:
            if child._line is not None:
                child._line[1].close()
        shutil.rmtree(self._short)

    async def start(self, settings: Settings, name: str | None = None) -> Child:
        """Start a process; return when it is at work, or has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        name = name or f"child{next(self._names)}"
        child = Child(name, settings, self._folder / f"{name}.log")
        self.children.append(child)
        order = {
            "name": name,
            "settings": asdict(settings),
            "log": str(child._log_file),
            "journal": str(self._journal),
            "fleet": str(self._short / "fleet"),
        }
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(READY_S):
            await child._started()
        return child

    async def keep(self, number: int, settings: Callable[[], Settings]) -> None:
        """Start a new process whenever one ends, so that there are always so many."""

        async def keep_one() -> None:
            while True:
                child = await self.start(settings())
                await child.ended()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(number):
                tasks.create_task(keep_one())

    @property
    def alive(self) -> list[Child]:
        return [child for child in self.children if child.is_alive]

    @property
    def journal(self) -> Sequence[Noted]:
        """What processes did to themselves, in order."""
        with self._journal.open() as lines:
            lines.seek(self._read)
            new = lines.read()
            self._read += len(new)
        self._noted += [Noted(**json.loads(line)) for line in new.splitlines()]
        return self._noted

    async def _listen(self) -> None:
        """Hear from the first process who was started and who has ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        by_name: dict[str, Child] = {}
        async for line in self._process.stdout:
            told = json.loads(line)
            if told["name"] not in by_name:
                by_name = {child.name: child for child in self.children}
            by_name[told["name"]]._hear(pid=told["pid"], code=told.get("code"))

    async def _greet(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Take the line on which a process answers questions."""
        if not (hello := await reader.readline()):
            writer.close()
            return
        name = json.loads(hello)["name"]
        child = next(child for child in reversed(self.children) if child.name == name)
        child._hear(line=(reader, writer))


async def eventually(
    happened: Callable[[], Awaitable[bool]], otherwise: str, timeout_s: float = 30.0
) -> None:
    """Look again and again; for what a process does and tells nobody."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await happened():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(LOOK_S)
    except TimeoutError as late:
        raise AssertionError(f"{otherwise} within {timeout_s:g} s") from late


# In the first process


def _serve(tests: int) -> None:
    """Fork a process for each line of standard input, until that ends."""
    _dies_with(tests)
    woken, wakes = os.pipe()
    for end in (woken, wakes):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    names: dict[int, str] = {}
    orders = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        if 0 in ready:
            if not (read := os.read(0, 1 << 16)):
                break
            *lines, orders = (orders + read).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = _forked(order)
                names[pid] = order["name"]
                _tell(name=order["name"], pid=pid)
        for pid, code in _ended():
            _tell(name=names.pop(pid), pid=pid, code=code)
    for pid in names:
        os.kill(pid, signal.SIGKILL)


def _tell(**told: Any) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def _ended() -> list[tuple[int, int]]:
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append((found[0], os.waitstatus_to_exitcode(found[1])))
    return ended


def _forked(order: Mapping[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _dies_with(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        logging.basicConfig(
            level=logging.INFO, format="%(levelname)s %(name)s %(message)s"
        )
        asyncio.run(_work(order))
        code = 0
    except BaseException:
        logger.exception("the process failed")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _dies_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the tests are gone")


# In each process


async def _work(order: Mapping[str, Any]) -> None:
    settings = _settings(order["settings"])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    points = _Points(order["name"], Path(order["journal"]), settings.plan)
    clock = _Clock()
    store = _PlannedStore(points, settings)
    connector = _CONNECTORS[settings.finds](points, settings)
    answerer = WithActions(
        _Answerer(points, settings),
        [_Count(points)],
        config=settings.config,
        hears=_Nobody(),
    )
    async with (
        store,
        ConversationManager(
            store=store,
            answerer=answerer,
            connectors={connector.name: connector},
            observers=_Nobody(),
            actions=answerer,
            config=settings.config,
            explain=lambda record: record.why,
            clock=clock,
            seeds=lambda: 1,
            sleep=lambda seconds: asyncio.sleep(settings.pauses * seconds),
            roles=settings.roles,
        ) as manager,
    ):
        answering = asyncio.create_task(_answer_questions(order, points, clock))
        try:
            await manager.run(until=stop)
        finally:
            answering.cancel()


def _settings(written: Mapping[str, Any]) -> Settings:
    plan = written["plan"]
    return Settings(**{**written, "plan": None if plan is None else Plan(**plan)})


async def _answer_questions(
    order: Mapping[str, Any], points: _Points, clock: _Clock
) -> None:
    reader, writer = await asyncio.open_unix_connection(order["fleet"])
    await _write(writer, {"name": order["name"]})
    async for line in reader:
        match json.loads(line):
            case {"reading": sample, "labels": labels}:
                answer: Any = metrics.reading(sample, **labels)
            case {"clock": seconds}:
                answer = clock.ahead_s = seconds
            case {"plan": plan}:
                answer = None
                points.take(None if plan is None else Plan(**plan))
            case asked:
                raise AssertionError(asked)
        await _write(writer, {"answer": answer})


class _Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


class _Points:
    """
    Where the plan is carried out. `sending`: by conversation, the key of the reply that
    is marked as being sent.
    """

    def __init__(self, name: str, journal: Path, plan: Plan | None) -> None:
        self.sending: dict[str, str] = {}
        self._name = name
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND)
        self._passes = 0
        self._plan = plan

    def take(self, plan: Plan | None) -> None:
        self._plan, self._passes = plan, 0

    def passed(self, point: Point, text: str = "") -> None:
        plan = self._plan
        if plan is None or plan.point != point or plan.text not in text:
            return
        self._passes += 1
        if self._passes == plan.after:
            noted = {
                "name": self._name,
                "point": point,
                "does": plan.does,
                "text": text,
                "sending": sorted(self.sending.values()),
            }
            os.write(self._journal, json.dumps(noted).encode() + b"\n")
            kill = signal.SIGKILL if plan.does == "kill" else signal.SIGSTOP
            os.kill(os.getpid(), kill)


class _PlannedStore(Store):
    def __init__(self, points: _Points, settings: Settings) -> None:
        super().__init__(
            url=settings.url,
            settings=settings.config.conversation,
            shards=settings.shards,
        )
        self._points = points

    async def begin(self, token: Token, messages: int = 1) -> Begun | None:
        self._points.passed("after claim")
        begun = await super().begin(token, messages)
        if begun is not None:
            self._points.passed("after load")
        return begun

    async def commit(
        self, token: Token, answered: Sequence[Waiting], **kept: Any
    ) -> Committed:
        self._points.passed("before commit")
        committed = await super().commit(token, answered, **kept)
        if committed == "committed":
            self._points.passed("after commit")
        return committed

    async def open_outbox(self, token: Token) -> Outgoing | None:
        outgoing = await super().open_outbox(token)
        self._pass_opening(outgoing)
        return outgoing

    async def sent(
        self, token: Token, turn: str, record: Record | None = None
    ) -> Outgoing | None:
        outgoing = await super().sent(token, turn, record)
        self._points.sending.pop(token.conversation, None)
        self._points.passed("after taking out")
        self._pass_opening(outgoing)
        return outgoing

    async def later(self, token: Token, tries: int) -> None:
        await super().later(token, tries)
        self._points.sending.pop(token.conversation, None)

    async def mark(self, token: Token, turn: str) -> bool:
        # From now on: it may be marked before we hear of it.
        self._points.sending[token.conversation] = turn
        marked = await super().mark(token, turn)
        if marked:
            self._points.passed("after marking")
        else:
            del self._points.sending[token.conversation]
        return marked

    def _pass_opening(self, outgoing: Outgoing | None) -> None:
        if outgoing is not None:
            self._points.passed("after opening", outgoing.undelivered.reply.text)


class _Fake:
    """A connector to the test's platform."""

    name = "fake"

    def __init__(self, points: _Points, settings: Settings) -> None:
        self.delivery: Delivery = settings.delivery
        self._points = points
        self._path = settings.platform

    async def run(self, accept: Callable[[Event], Awaitable[Accepted]]) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE)
        try:
            await _write(writer, {"op": "serve"})
            async with asyncio.TaskGroup() as tasks:
                async for line in reader:
                    tasks.create_task(self._take(json.loads(line), accept, writer))
        finally:
            writer.close()

    async def _take(
        self,
        pushed: dict[str, Any],
        accept: Callable[[Event], Awaitable[Accepted]],
        writer: asyncio.StreamWriter,
    ) -> None:
        event = EVENTS.read(json.dumps(pushed["event"]).encode())
        self._points.passed("before accept")
        try:
            answer: str = await accept(event)
        except StoreError as error:
            answer = f"error: {error}"
        else:
            self._points.passed("after accept")
        await _write(writer, {"number": pushed["number"], "answer": answer})

    async def send(self, address: Address, reply: Reply, key: str) -> Sent:
        self._points.passed("before send", reply.text)
        sent = {"op": "send", "key": key, "text": reply.text}
        try:
            answer = await self._ask({**sent, "conversation": address.key})
        except ConnectionError:
            return Sent(status="unknown")
        if "later" in answer:
            raise DeliveryError(
                "too many requests", retryable=True, retry_after_s=answer["later"]
            )
        if "refused" in answer:
            raise DeliveryError(answer["refused"], retryable=False)
        self._points.passed("after send", reply.text)
        return Sent(ids=[answer["id"]])

    async def status(self, address: Address, text: str) -> None:
        pass

    async def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises ConnectionError when there is none."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            await _write(writer, asked)
            if not (line := await reader.readline()):
                raise ConnectionResetError
        finally:
            writer.close()
        answer: dict[str, Any] = json.loads(line)
        return answer


class _FindingFake(_Fake):
    async def find(self, address: Address, key: str) -> Sent | None:
        answer = await self._ask(
            {"op": "find", "conversation": address.key, "key": key}
        )
        return None if answer["id"] is None else Sent(ids=[answer["id"]])


_CONNECTORS: Mapping[bool, Callable[[_Points, Settings], Connector]] = {
    False: _Fake,
    True: _FindingFake,
}


class _Answerer:
    def __init__(self, points: _Points, settings: Settings) -> None:
        self._points = points
        self._answer_s = settings.answer_s

    async def answer(
        self,
        turn: Turn,
        cancelled: threading.Event,
        show: Callable[[str], None],
        acting: object = None,
    ) -> Record:
        asked: Any = turn.message.data.get("answer_s", self._answer_s)
        await asyncio.sleep(asked / 2)
        self._points.passed("mid generation", turn.question)
        await asyncio.sleep(asked / 2)
        reply = Reply(text=_proof(turn))
        return Record(turn=turn, outcome="answered", reply=reply, why="", config="")


class _Count:
    name = "count"
    description = "counts up"

    def __init__(self, points: _Points) -> None:
        self._points = points

    async def run(self, turn: Turn, arguments: str) -> ActionResult:
        asked: Any = turn.message.data.get("answer_s", 0)
        self._points.passed("mid generation", turn.question)
        await asyncio.sleep(asked)
        return ActionResult(
            reply=Reply(text=_proof(turn)), slots={"count": _counted(turn) + 1}
        )


def _proof(turn: Turn) -> str:
    """Say what this answer was made from, as JSON; see `customers.Proof`."""
    before = [event for event in turn.history if event.kind in {"message", "command"}]
    numbers = [
        json.loads(event.text)["number"]
        for event in turn.history
        if event.kind == "reply" and event.text.startswith("{")
    ]
    return json.dumps(
        {
            "question": turn.question,
            "number": numbers[-1] + 1 if numbers else 1,
            "before": before[-1].text if before else None,
            "count": _counted(turn),
        }
    )


def _counted(turn: Turn) -> int:
    counted: Any = turn.slots.get("count", 0)
    return int(counted)


class _Nobody:
    """Observers that want to hear of nothing."""

    def hear_of_replies(self, address: Address) -> bool:
        return False

    async def turn_started(self, turn: Turn) -> None:
        pass

    async def turn_failed(self, turn: Turn, error: Exception) -> None:
        pass

    async def conversation_handed_over(self, turn: Turn, reason: str) -> None:
        pass

    async def conversation_resumed(self, address: Address) -> None:
        pass

    async def reply_sent(self, turn: Turn, reply: Reply) -> None:
        pass

    async def feedback_received(self, event: Event, record: Record | None) -> None:
        pass


async def _write(writer: asyncio.StreamWriter, line: dict[str, Any]) -> None:
    writer.write(json.dumps(line).encode() + b"\n")
    await writer.drain()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
