"""Files of records: what is read, and in which words the rest is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter

from bot.errors import ConfigError
from bot.evaluation.lines import (
    Line,
    chosen,
    inside,
    json_document,
    json_lines,
    named,
    table,
)
from tests.evaluation.bots import File

NEEDS = "a name and a number in each line"


class Pair(Line):
    name: Annotated[str, Field(min_length=1)]
    number: int


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "records"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_lines_are_records_whatever_else_they_say(tmp_path: Path) -> None:
    path = written(
        tmp_path, '{"name": "a", "number": 1, "more": 2}\n\n{"name": "é", "number": 2}'
    )

    found = json_lines(path, Pair, NEEDS)

    assert found == [Pair(name="a", number=1), Pair(name="é", number=2)]


def test_a_line_separator_inside_a_text_does_not_end_a_line(tmp_path: Path) -> None:
    path = written(tmp_path, '{"name": "a\u2028b", "number": 1}\r\n')

    assert json_lines(path, Pair, NEEDS) == [Pair(name="a\u2028b", number=1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": "a", "number": 1}\n{"name"', "line 2: not JSON"),
        ('{"name": "a"}', "line 1: number: Field required"),
        ('\n{"name": "", "number": 1}', "line 2: name: String should have at least"),
        ("[1]", "line 1: Input should be a valid dictionary"),
        ("\n", "has no records"),
    ],
)
def test_a_broken_line_is_refused_in_one_sentence(
    tmp_path: Path, text: str, said: str
) -> None:
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        json_lines(path, Pair, NEEDS)

    message = str(caught.value)
    assert message.startswith(f"{path}: {said}")
    assert message.endswith(f"; give {NEEDS}")
    assert "\n" not in message


def test_a_missing_file_and_one_that_is_no_text_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file.*; correct"):
        json_lines(tmp_path / "none", Pair, NEEDS)
    with pytest.raises(ConfigError, match=r"not UTF-8 text: .*; save it as UTF-8"):
        json_lines(written(tmp_path, b"\xff\xfe"), Pair, NEEDS)


def test_cells_with_commas_may_be_quoted(tmp_path: Path) -> None:
    path = written(tmp_path, 'name,number\r\n"a, ""b""\nc",1\r\n')

    assert table(path, Pair, NEEDS, delimiter=",") == [Pair(name='a, "b"\nc', number=1)]


def test_quotes_between_tabs_are_as_they_stand(tmp_path: Path) -> None:
    path = written(tmp_path, 'name\tnumber\n"a" b\t1\n"c\t2\n')

    assert [one.name for one in table(path, Pair, NEEDS, delimiter="\t")] == [
        '"a" b',
        '"c',
    ]


def test_a_table_without_a_column_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "name\tnumber\na\n")

    with pytest.raises(ConfigError, match=r"line 2: number: .*; give a name"):
        table(path, Pair, NEEDS, delimiter="\t")


def test_a_row_longer_than_the_header_is_read_without_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, "name\tnumber\na\t1\tb\n")

    assert table(path, Pair, NEEDS, delimiter="\t") == [Pair(name="a", number=1)]


def test_a_cell_that_csv_will_not_hold_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, f"name,number\n{'x' * 200_000},1\n")

    with pytest.raises(ConfigError, match="field larger than field limit"):
        table(path, Pair, NEEDS, delimiter=",")


@pytest.mark.parametrize("text", ["{", '{"name": "a"}'])
def test_a_document_that_is_not_as_described_is_refused(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(ConfigError, match="; give a name and a number"):
        json_document(written(tmp_path, text), TypeAdapter(Pair), NEEDS)


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path) -> None:
    assert inside(tmp_path, "a.jsonl") == tmp_path / "a.jsonl"
    assert inside(tmp_path / "b.jsonl", "a.jsonl") == tmp_path / "b.jsonl"


def test_a_suite_without_data_of_its_own_asks_for_some() -> None:
    with pytest.raises(ConfigError, match="name a file of pairs with --data"):
        named(File(), "a file of pairs")


def test_half_and_limit_choose_records_of_which_there_must_be_one(
    tmp_path: Path,
) -> None:
    assert chosen(tmp_path, "abcdef", File()) == list("abcdef")
    assert chosen(tmp_path, "abcdef", File(half="report")) == list("bdf")
    assert chosen(tmp_path, "abcdef", File(limit=2)) == ["a", "d"]
    with pytest.raises(ConfigError, match="the half 'report'; name a longer file"):
        chosen(tmp_path, "a", File(half="report"))
