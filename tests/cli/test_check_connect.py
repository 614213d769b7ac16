"""`chorus check --connect`: what connectors find, and what it is told as."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bot.app import App
from bot.channels import ChannelPlugins
from bot.cli import check, chorus
from bot.config import Config
from bot.errors import ConfigError, DeliveryError
from bot.interfaces import Finding, Shelf, WebRequest, WebResponse
from bot.plugin_manager import Plugins
from bot.testing import MemoryConnector

SIGNED_IN = Finding(well=True, told="signed in as @larkspur")
NO_SCOPE = Finding(well=False, told="chat:write is missing; add it, then reinstall")


class Inspected(MemoryConnector):
    """A connector whose service says what a test wants."""

    def __init__(self, *findings: Finding | Exception, name: str = "memory") -> None:
        super().__init__(name)
        self._findings = findings
        self.asked = 0

    async def inspect(self) -> Sequence[Finding]:
        self.asked += 1
        for finding in self._findings:
            if isinstance(finding, Exception):
                raise finding
        return [one for one in self._findings if isinstance(one, Finding)]


class Hanging(MemoryConnector):
    async def inspect(self) -> Sequence[Finding]:
        await asyncio.Event().wait()
        raise AssertionError


class Keeping(Inspected):
    """Looks at what it keeps."""

    def __init__(self) -> None:
        super().__init__(name="keeping")
        self.shelf: Shelf | None = None

    def keep_on(self, shelf: Shelf) -> None:
        self.shelf = shelf

    async def inspect(self) -> Sequence[Finding]:
        assert self.shelf is not None
        kept = await self.shelf.get("installation")
        return [Finding(well=True, told=f"installation: {kept!r}")]


class Answering(MemoryConnector):
    """Is spoken to by HTTP."""

    paths = ("/events",)

    async def respond(self, request: WebRequest) -> WebResponse:
        raise AssertionError


def checked(tmp_path: Path, *connectors: MemoryConnector, **more: Any) -> Result:
    return invoked(tmp_path, connectors, "--connect", **more)


def invoked(
    tmp_path: Path, connectors: Sequence[MemoryConnector], *options: str, **more: Any
) -> Result:
    models = {"knowledge": {"model": "m"}, "generation": {"model": "m"}}
    config = Config.model_validate({"data": tmp_path, **models, **more})
    plugins = ChannelPlugins(everywhere=Plugins(connectors=connectors))

    def opening(*_: object) -> App:
        return App(config, plugins, lambda *_: None)

    return CliRunner().invoke(chorus, ["check", "bot.yaml", *options], obj=opening)


def told(result: Result) -> list[str]:
    """Return what is said after the line about the file."""
    first, *others = result.stdout.splitlines()
    assert first.startswith("bot.yaml is fine: ")
    return others


def test_what_a_connector_finds_well_is_told_line_by_line(tmp_path: Path) -> None:
    hears = Finding(well=True, told="hears messages")

    result = checked(tmp_path, Inspected(SIGNED_IN, hears))

    assert told(result) == [
        "ok memory: signed in as @larkspur",
        "ok memory: hears messages",
    ]
    assert result.exit_code == 0


def test_what_is_not_well_is_the_operators_to_fix(tmp_path: Path) -> None:
    result = checked(
        tmp_path,
        Inspected(NO_SCOPE, SIGNED_IN, name="one"),
        Inspected(SIGNED_IN, name="two"),
    )

    assert told(result) == [
        "wrong one: chat:write is missing; add it, then reinstall",
        "ok one: signed in as @larkspur",
        "ok two: signed in as @larkspur",
    ]
    assert result.exit_code == 2


def test_on_a_terminal_findings_have_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_is_on_terminal", lambda: True)

    result = checked(
        tmp_path, Inspected(SIGNED_IN, NO_SCOPE), MemoryConnector("terminal")
    )

    assert [line.split()[0] for line in told(result)] == ["✓", "✗", "-"]


def test_a_connector_that_cannot_be_asked_is_told_and_is_no_mistake(
    tmp_path: Path,
) -> None:
    result = checked(tmp_path, MemoryConnector("terminal"))

    assert told(result) == ["unknown terminal: it cannot be asked; nothing was checked"]
    assert result.exit_code == 0


def test_a_service_that_hangs_is_given_up_and_the_others_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "INSPECTION_S", 0.05)

    result = checked(tmp_path, Hanging("one"), Inspected(SIGNED_IN, name="two"))

    assert told(result) == [
        "wrong one: no answer within 0.05 s; look at the network, then try again",
        "ok two: signed in as @larkspur",
    ]
    assert result.exit_code == 2


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("slack: the token is refused; make a new one"),
        DeliveryError("slack: the token is refused; make a new one", retryable=False),
    ],
)
def test_an_error_of_ours_is_told_as_its_sentence(
    tmp_path: Path, error: Exception
) -> None:
    result = checked(tmp_path, Inspected(error))

    assert told(result) == ["wrong memory: slack: the token is refused; make a new one"]
    assert result.exit_code == 2


def test_a_connector_that_breaks_is_told_by_its_place_alone(tmp_path: Path) -> None:
    result = checked(
        tmp_path, Inspected(KeyError("hunter2"), name="one"), Inspected(SIGNED_IN)
    )

    broken, well = told(result)
    assert broken.startswith("wrong one: asking failed with KeyError at ")
    assert "hunter2" not in result.output
    assert well == "ok memory: signed in as @larkspur"
    assert result.exit_code == 2


def test_control_characters_of_a_service_reach_no_terminal(tmp_path: Path) -> None:
    result = checked(tmp_path, Inspected(Finding(well=True, told="\x1b[2Jbot")))

    assert told(result) == ["ok memory: [2Jbot"]


def test_without_the_option_no_service_is_asked(tmp_path: Path) -> None:
    connector = Inspected(NO_SCOPE)

    result = invoked(tmp_path, [connector])

    assert result.exit_code == 0
    assert connector.asked == 0


def test_a_store_that_is_away_is_told_where_it_is_needed(tmp_path: Path) -> None:
    result = checked(
        tmp_path,
        Keeping(),
        Inspected(SIGNED_IN),
        redis={"url": f"unix://{tmp_path}/nobody.sock"},
    )

    away, well = told(result)
    assert away.startswith("wrong keeping: redis.url: ")
    assert well == "ok memory: signed in as @larkspur"
    assert result.exit_code == 2


@pytest.mark.services
def test_a_connector_that_keeps_things_is_given_its_shelf(tmp_path: Path) -> None:
    result = checked(tmp_path, Keeping())

    assert told(result) == ["ok keeping: installation: None"]
    assert result.exit_code == 0


def test_two_connectors_at_one_path_are_a_mistake_before_anybody_runs(
    tmp_path: Path,
) -> None:
    result = invoked(tmp_path, [Answering("one"), Answering("two")])

    assert result.exit_code == 2
    assert "'one' and 'two' both answer at '/events'" in result.stderr
