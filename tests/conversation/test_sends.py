"""What goes out first, what only the latest counts of, and who is alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from bot.conversation.room import Room
from bot.conversation.sends import Gate, Priority, Shown
from bot.model import Address
from bot.testing.makers import an_address

HERE = an_address("here")
THERE = an_address("there")


async def settled() -> None:
    """Let everything run that can run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_final_replies_go_first_then_interactive_ones_statuses_and_frames() -> (
    None
):
    gate = Gate(at_once=1)
    sent: list[tuple[Priority, int]] = []

    async def send(priority: Priority, number: int) -> None:
        async with gate.admitted(priority):
            sent.append((priority, number))

    async with asyncio.TaskGroup() as tasks, gate.admitted(Priority.FRAME):
        for number in (1, 2):
            for priority in reversed(Priority):
                tasks.create_task(send(priority, number))
        await settled()

    assert sent == [(priority, number) for priority in Priority for number in (1, 2)]


async def test_no_more_are_sent_at_once_than_allowed() -> None:
    gate = Gate(at_once=3)
    now = most = 0

    async def send() -> None:
        nonlocal now, most
        async with gate.admitted(Priority.FINAL):
            now += 1
            most = max(most, now)
            await settled()
            now -= 1

    await asyncio.gather(*(send() for _ in range(20)))

    assert (most, now) == (3, 0)


@pytest.mark.parametrize("admitted_meanwhile", [False, True])
async def test_who_gives_up_waiting_takes_nobodys_place(
    *, admitted_meanwhile: bool
) -> None:
    gate = Gate(at_once=1)
    first = gate.admitted(Priority.FINAL)
    await first.__aenter__()

    async def wait() -> None:
        async with gate.admitted(Priority.FINAL):
            pass

    waiting = asyncio.create_task(wait())
    await settled()
    if admitted_meanwhile:
        await first.__aexit__(None, None, None)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    if not admitted_meanwhile:
        await first.__aexit__(None, None, None)

    async with asyncio.timeout(1):
        await wait()


@dataclass
class Screen:
    """Shows slowly: each time it waits for `go`."""

    gate: Gate = field(default_factory=Gate)
    go: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    seen: list[tuple[str, str]] = field(default_factory=list)

    async def show(self, priority: Priority, address: Address, text: str) -> None:
        await self.go.acquire()
        self.seen.append((address.chat, text))

    def shown(self) -> Shown:
        return Shown(self.gate, self.show)

    def let(self, number: int) -> None:
        for _ in range(number):
            self.go.release()


async def test_of_statuses_and_frames_the_latest_of_each_address_counts() -> None:
    screen = Screen()
    shown = screen.shown()

    for text in ("a", "b", "c"):
        shown.show(Priority.STATUS, HERE, text)
        shown.show(Priority.FRAME, THERE, text)
        await settled()
    screen.let(10)
    await shown.settled()

    # "a" was being shown while "b" was replaced by "c"
    assert sorted(screen.seen) == [
        ("here", "a"),
        ("here", "c"),
        ("there", "a"),
        ("there", "c"),
    ]


async def test_an_address_is_shown_one_thing_at_a_time_a_status_before_a_frame() -> (
    None
):
    screen = Screen(gate=Gate(at_once=1))
    shown = screen.shown()

    async with screen.gate.admitted(Priority.FINAL):
        shown.show(Priority.FRAME, HERE, "so far")
        shown.show(Priority.STATUS, HERE, "thinking")
        await settled()
    screen.let(2)
    await shown.settled()

    assert screen.seen == [("here", "thinking"), ("here", "so far")]


async def test_a_reply_drops_the_frames_of_its_address_and_no_status() -> None:
    screen = Screen(gate=Gate(at_once=1))
    shown = screen.shown()
    screen.let(10)

    async with screen.gate.admitted(Priority.FINAL):
        for address in (HERE, THERE):
            shown.show(Priority.FRAME, address, "so far")
        shown.show(Priority.STATUS, HERE, "thinking")
        await settled()
        await shown.drop_frames(HERE)
    await shown.settled()

    assert sorted(screen.seen) == [("here", "thinking"), ("there", "so far")]


async def test_what_is_being_shown_ends_when_it_is_closed() -> None:
    screen = Screen()
    shown = screen.shown()
    shown.show(Priority.STATUS, HERE, "never seen")
    await settled()

    await shown.close()
    await shown.settled()

    assert screen.seen == []


async def test_whoever_wants_to_be_alone_is_and_does_not_wait_for_newcomers() -> None:
    room = Room()
    order: list[str] = []
    leave = asyncio.Event()

    async def share(name: str) -> None:
        async with room.shared():
            order.append(f"{name} in")
            await leave.wait()
        order.append(f"{name} out")

    async def alone() -> None:
        async with room.alone():
            order.append("alone in")
            await settled()
            order.append("alone out")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(share("first"))
        await settled()
        tasks.create_task(alone())
        await settled()
        tasks.create_task(share("newcomer"))
        await settled()
        before = list(order)
        leave.set()

    assert before == ["first in"]
    assert order.index("alone out") == order.index("alone in") + 1
    assert order.index("newcomer in") > order.index("alone out")


async def test_who_gives_up_being_alone_keeps_nobody_out() -> None:
    room = Room()

    async def alone() -> None:
        async with room.alone():
            pass

    async with room.shared():
        waiting = asyncio.create_task(alone())
        await settled()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    async with asyncio.timeout(1), room.shared():
        pass
    async with asyncio.timeout(1):
        await alone()
