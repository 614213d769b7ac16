"""
Reads files of records: JSON Lines, tables with a header, one JSON document.

Knows no data set: what a record has is said by a pydantic model, and a file that does
not hold such records is refused with its first mistake, in one sentence.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bot.errors import ConfigError
from bot.evaluation.questions import evenly
from bot.evaluation.tuning import of_half

HalfOrAll = Literal["tune", "report", "all"]


class DataFile(Protocol):
    """
    Which records a suite is to use: those of one half, by position parity in the file
    (the even ones are to tune on), and `limit` of these, evenly spread.
    """

    @property
    def path(self) -> Path | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def half(self) -> HalfOrAll: ...


class Line(BaseModel):
    """What a record is made of; a file may say more, which nobody reads."""

    model_config = ConfigDict(frozen=True)


Read = TypeVar("Read", bound=Line)
Item = TypeVar("Item")


def named(file: DataFile, what: str) -> Path:
    """Return the path that the operator named, or raise ConfigError."""
    if file.path is None:
        raise ConfigError(f"this suite ships no data; name {what} with --data")
    return file.path


def chosen(path: Path, records: Sequence[Item], file: DataFile) -> list[Item]:
    """Return the records that the operator wants, or raise ConfigError for none."""
    found = evenly(of_half(records, file.half), file.limit)
    if not found:
        raise ConfigError(
            f"{path}: has too few records to use the half {file.half!r}; name a longer "
            "file, or leave out --half"
        )
    return found


def inside(path: Path, name: str) -> Path:
    """Return a file of a folder; a path that is no folder stands for itself."""
    return path / name if path.is_dir() else path


def json_lines(path: Path, kind: type[Read], needs: str) -> list[Read]:
    """
    Return the records of a JSONL file, or raise ConfigError; `needs` says what each
    line has to have. Empty lines are passed over.
    """
    records: list[Read] = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _refused(f"{path}: line {number}: not JSON", needs) from error
        records.append(_checked(f"{path}: line {number}", found, kind, needs))
    return _some(path, records, needs)


def table(
    path: Path, kind: type[Read], needs: str, *, delimiter: Literal[",", "\t"]
) -> list[Read]:
    """
    Return the records of a table whose first line names its columns. Cells of a table
    with commas may be quoted; those of one with tabs are as they stand.
    """
    rows = csv.DictReader(
        _text(path).splitlines(keepends=True),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
        restkey="beyond the header",
    )
    records = [
        _checked(f"{path}: line {number}", row, kind, needs)
        for number, row in _rows(path, rows, needs)
    ]
    return _some(path, records, needs)


def json_document(path: Path, kind: TypeAdapter[Any], needs: str) -> Any:
    """Return a JSON file as `kind` reads it, or raise ConfigError."""
    try:
        return kind.validate_python(orjson.loads(_text(path)))
    except orjson.JSONDecodeError as error:
        raise _refused(f"{path}: not JSON", needs) from error
    except ValidationError as error:
        raise _refused(f"{path}: {_first(error)}", needs) from error


def _rows(
    path: Path, rows: csv.DictReader[str], needs: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise _refused(f"{path}: line {rows.line_num}: {error}", needs) from error


def _checked(where: str, found: object, kind: type[Read], needs: str) -> Read:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise _refused(f"{where}: {_first(error)}", needs) from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    message = " ".join(first["msg"].split())
    return f"{place}: {message}" if place else message


def _some(path: Path, records: list[Read], needs: str) -> list[Read]:
    if not records:
        raise _refused(f"{path}: has no records", needs)
    return records


def _refused(problem: str, needs: str) -> ConfigError:
    return ConfigError(f"{problem}; give {needs}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; correct the path"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text: {error.reason}; save it as UTF-8"
        ) from error
