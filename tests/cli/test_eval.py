"""eval: what an operator sees of an evaluation, and of one that could not be."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
import yaml
from rich.cells import cell_len

from bot.cli.columns import parts, write_columns
from bot.evaluation.judges import Bots
from bot.evaluation.report import Report, Row
from bot.evaluation.suites import How, QuestionFile
from bot.interfaces import GenerationRequest, Progress
from bot.model import Candidate
from bot.testing.fakes import ScriptedLanguageModel
from tests.cli.bots import ScriptedBot
from tests.test_experiment import ingest, written

QUESTIONS = {
    "questions": [
        {
            "id": f"q{number}",
            "half": half,
            "question": "How long does a refund take?",
            "answers": ["five working days"],
            "evidence": [{"source": "refunds.md", "quote": "five working days"}],
        }
        for number, half in enumerate(["tune", "report"])
    ]
}


@pytest.fixture
def bot(tmp_path: Path) -> ScriptedBot:
    made = ScriptedBot(file=written(tmp_path, "bot.yaml"))
    ingest(made.app(), tmp_path)
    (tmp_path / "questions.yaml").write_text(yaml.safe_dump(QUESTIONS))
    return made


@pytest.fixture
def arguments(bot: ScriptedBot) -> list[str]:
    questions = bot.file.with_name("questions.yaml")
    return ["eval", "handbook", "--data", str(questions)]


def variants_of(bot: ScriptedBot, text: str) -> list[str]:
    path = bot.file.with_name("variants.yaml")
    path.write_text(text)
    return ["--variants", str(path)]


# What is refused, before anything is answered


def test_a_page_without_a_folder_is_refused_before_an_hour_is_lost(
    bot: ScriptedBot, arguments: list[str], tmp_path: Path
) -> None:
    page = tmp_path / "none" / "page.html"

    result = bot.invoke(*arguments, "--html", str(page))

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"--html: there is no folder {page.parent}; make it" in result.stderr
    assert not bot.model.requests


@pytest.mark.parametrize("metrics", ["", " , ,"])
def test_no_metric_at_all_is_refused_before_an_hour_is_lost(
    bot: ScriptedBot, arguments: list[str], metrics: str
) -> None:
    result = bot.invoke(*arguments, "--metrics", metrics)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no name in it; write contained,f1" in result.stderr
    assert not bot.model.requests


def test_a_suite_that_is_none_is_told_in_words(bot: ScriptedBot) -> None:
    result = bot.invoke("eval", "handbok")

    assert result.exit_code == 2
    assert "'SUITE': 'handbok' is not one of 'handbook', 'qa'" in result.stderr


@pytest.mark.parametrize("name", ["greedy", "quotation", "hybrid", "oracle"])
def test_a_variant_must_not_be_counted_with_a_row_of_the_suites_own(
    bot: ScriptedBot, arguments: list[str], name: str
) -> None:
    result = bot.invoke(*arguments, *variants_of(bot, f"{name}: {{}}"))

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"a configuration is called {name!r}" in result.stderr


def test_two_configurations_of_one_name_are_refused(
    bot: ScriptedBot, arguments: list[str]
) -> None:
    twice = ["--config", str(bot.file), "--config", str(bot.file)]

    result = bot.invoke(*arguments, *twice)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "two configurations are called 'bot'; rename" in result.stderr


def test_every_variants_mistake_is_told_with_file_name_and_plugin(
    bot: ScriptedBot, arguments: list[str]
) -> None:
    mistaken = (
        "a:\n  plugins: {min-p: {minimun: 0.1}}\n"
        "b:\n  plugins: {best: off}\n"
        "c:\n  plugins: {min-p: {}}\n"
    )

    result = bot.invoke(*arguments, *variants_of(bot, mistaken))

    a, b = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "variants.yaml: a: plugins.min-p.settings.minimun: unknown key" in a
    assert "variants.yaml: b: ranking.selector: no enabled plugin provides" in b


def test_another_configurations_mistake_is_told_by_its_file(
    bot: ScriptedBot, arguments: list[str], tmp_path: Path
) -> None:
    other = written(tmp_path, "other.yaml", plugins=[{"use": "multinomial"}])

    result = bot.invoke(*arguments, "--config", str(bot.file), "--config", str(other))

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{other}: ranking.selector: ")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tune", "--half", "report"], "leave out --half"),
        (["--tune", "--limit", "1"], "raise or leave out --limit"),
        (["--tune"], "no configuration enables a scorer"),
    ],
)
def test_what_cannot_be_tuned_is_told_before_anything_is_answered(
    bot: ScriptedBot, arguments: list[str], options: list[str], told: str
) -> None:
    if len(options) > 1:
        plugins = ["multinomial", "relevance", "best"]
        written(bot.file.parent, "bot.yaml", plugins=[{"use": one} for one in plugins])

    result = bot.invoke(*arguments, *options)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--tune: " in result.stderr
    assert told in result.stderr
    assert not bot.model.requests


def test_a_damaged_memory_is_told_in_one_sentence(
    bot: ScriptedBot, arguments: list[str]
) -> None:
    kept = bot.app().config.data / "evaluation.sqlite"
    kept.write_bytes(b"no database " * 1000)

    result = bot.invoke(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{kept}: cannot keep what models write (file is not a database); delete it if "
        "it is damaged, or make its folder one that can be written\n"
    )


# What is shown


def test_an_evaluation_writes_nothing_twice_unless_it_is_fresh(
    bot: ScriptedBot, arguments: list[str]
) -> None:
    results = []
    requests = []

    for more in ([], [], ["--fresh"]):
        results.append(bot.invoke(*arguments, *more, "--json"))
        requests.append(len(bot.model.requests))

    first, second, third = requests
    assert first > 0
    assert (second, third) == (first, 2 * first)
    for result in results:
        assert result.exit_code == 0
        assert all(json.loads(line) for line in result.stdout.splitlines())


def test_a_misspelt_metric_costs_nothing_that_was_measured(
    bot: ScriptedBot, arguments: list[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"

    result = bot.invoke(*arguments, "--metrics", "f1,contaned", "--html", str(page))

    assert result.exit_code == 2
    assert result.stdout.splitlines()[0].split() == ["f1", "n"]
    assert page.exists()
    assert "--metrics: no metric 'contaned'; did you mean 'contained'?" in result.stderr


class _Broken(ScriptedLanguageModel):
    def generate(self, request: GenerationRequest) -> list[Candidate]:
        raise MemoryError("no room for\n8 candidates")


def test_turns_that_failed_are_told_with_the_reason(
    bot: ScriptedBot, arguments: list[str]
) -> None:
    bot.model = _Broken([])

    result = bot.invoke(*arguments)

    assert "failed" in result.stdout.splitlines()[0]
    assert "greedy: 2 of 2 turns failed; the first: " in result.stderr
    assert "no room for 8 candidates" in result.stderr


def test_what_could_not_be_kept_is_told_at_the_end(
    bot: ScriptedBot, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def suite(
        bots: Bots, file: QuestionFile, progress: Progress, how: How
    ) -> Report:
        assert how.memory is not None
        how.memory.trouble = "evaluation.sqlite: database or disk is full"
        row = Row(config="chorus", metrics={"f1": 1.0}, intervals={"f1": (1, 1)}, n=1)
        return Report(suite="handbook", rows=[row])

    monkeypatch.setattr("bot.cli.eval.SUITES", {"handbook": suite})

    result = bot.invoke(*arguments)

    assert (result.exit_code, result.stderr) == (
        0,
        "evaluation.sqlite: database or disk is full\n",
    )


# A table wider than the terminal

COLUMNS = ["", "contained", "f1", "n"]
ROWS = [
    ["dense", "", "", "4"],
    ["问答", "0.500 [0.000, 1.000]", "0.250 [0.000, 0.500]", "4"],
]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(
    monkeypatch: pytest.MonkeyPatch, width: int, rows: Sequence[Sequence[str]]
) -> list[str]:
    terminal = _Terminal()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", terminal)

    write_columns(COLUMNS, rows)

    return click.unstyle(terminal.getvalue()).splitlines()


def test_columns_that_find_no_place_come_below_and_nothing_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = printed(monkeypatch, 40, ROWS)

    assert [line.split() for line in lines] == [
        ["contained"],
        ["问答", "0.500", "[0.000,", "1.000]"],
        [],
        ["f1", "n"],
        ["dense", "4"],
        ["问答", "0.250", "[0.000,", "0.500]", "4"],
    ]
    assert max(map(cell_len, lines)) <= 40


def test_a_terminal_that_is_wide_enough_shows_one_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = printed(monkeypatch, 80, ROWS)

    assert len(lines) == 3
    assert lines[0].split() == ["contained", "f1", "n"]


@pytest.mark.parametrize("room", [1, 20, 52, 53, None])
def test_every_column_stands_in_one_part(room: int | None) -> None:
    found = list(parts(COLUMNS, ROWS, room))

    assert [place for part in found for place in part] == [1, 2, 3]
    assert all(found)
    # 5 for the names, 2 + 20 for each figure with its interval, 2 + 1 for n
    expected = {1: 3, 20: 3, 52: 1, 53: 1, None: 1}
    assert len(found) == expected[room]
