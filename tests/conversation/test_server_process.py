"""Processes of any kind kept running: no Redis here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from bot.conversation import server_process
from bot.conversation.server_process import ServerProcess
from bot.errors import StoreError


@contextmanager
def running(
    command: Sequence[str], folder: Path, before_restart: Callable[[], str] = str
) -> Iterator[ServerProcess]:
    with (folder / "lock").open("wb") as lock:
        process = ServerProcess(command, folder, lock.fileno(), before_restart)
        try:
            yield process
        finally:
            process.stop()


def hope(times: int) -> Callable[[], str]:
    """Answer that many times; after that there is no hope."""
    answers = iter(["look there"] * times)

    def before_restart() -> str:
        for answer in answers:
            return answer
        raise StoreError("no hope")

    return before_restart


def fails(process: ServerProcess) -> str | None:
    """Keep it running until it is given up; return why."""
    process.keep_running()
    process._keeper.join(10)
    return process.failed


def test_it_is_started_again_at_once_and_then_after_ever_longer_pauses() -> None:
    pauses = list(islice(server_process._pauses(), 9))

    assert pauses == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]


def test_what_ends_after_running_well_is_started_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_process, "RAN_WELL_S", 0)

    with running(["/bin/false"], tmp_path, hope(3)) as process:
        fails(process)

    ended = f"{tmp_path}: the server ended (exit code 1) and is"
    assert caplog.messages[:-1] == [f"{ended} started again in 0 s; look there"] * 3


def test_each_restart_is_a_warning_and_giving_up_one_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["/bin/sh", "-c", "kill -9 $$"]

    with running(command, tmp_path, hope(2)) as process:
        failed = fails(process)

    assert failed == "no hope"
    ended = f"{tmp_path}: the server ended (signal 9, Killed) and is"
    assert [(entry.levelname, entry.getMessage()) for entry in caplog.records] == [
        ("WARNING", f"{ended} started again in 0 s; look there"),
        ("WARNING", f"{ended} started again in 0.1 s; look there"),
        ("ERROR", f"{ended} not started again: no hope"),
    ]


def test_a_first_start_that_failed_is_not_repeated(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo began >> began; exit 3"]

    with running(command, tmp_path) as process:
        ended = process.ended.wait(10)

    assert ended
    assert process.how_it_ended == "exit code 3"
    assert (tmp_path / "began").read_text() == "began\n"


def test_what_cannot_be_run_says_so(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("wb") as lock:
        process = ServerProcess(["true"], tmp_path / "gone", lock.fileno(), str)
        ended = process.ended.wait(10)
        process.stop()

    assert ended
    assert process.how_it_ended == "could not be run: No such file or directory"


def test_a_look_that_fails_is_no_reason_to_give_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    looks = iter([OSError("the disk is gone"), StoreError("no hope")])

    def before_restart() -> str:
        raise next(looks)

    with running(["/bin/false"], tmp_path, before_restart) as process:
        failed = fails(process)

    assert failed == "no hope"
    assert "the disk is gone" in caplog.messages[0]


def test_what_does_not_stop_when_asked_to_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "STOP_S", 0.1)
    os.mkfifo(tmp_path / "deaf")
    command = ["/bin/sh", "-c", "trap '' TERM; echo > deaf; while :; do sleep 1; done"]

    with running(command, tmp_path) as process:
        (tmp_path / "deaf").read_text()
        process.stop()

    assert process.how_it_ended == "signal 9, Killed"


def test_a_pause_does_not_hold_up_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_process, "FIRST_PAUSE_S", 1000)
    again = iter("ab")
    os.mkfifo(tmp_path / "pausing")

    def before_restart() -> str:
        if next(again) == "b":
            (tmp_path / "pausing").write_text("")
        return ""

    with running(["/bin/false"], tmp_path, before_restart) as process:
        process.keep_running()
        (tmp_path / "pausing").read_text()
        process.stop()

    assert not process._keeper.is_alive()
    assert "in 1000 s" in caplog.messages[-1]
