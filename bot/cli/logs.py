"""
Log lines on standard error: coloured by nobody, one event a line, fields at the end.

On a terminal `12:00:00 INFO chorus.turn: turn outcome=answered`; elsewhere one JSON
object a line, for whatever collects them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping

# Whatever a record has beyond these was given as `extra`.
_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


def log_to_stderr(level: int) -> None:
    """Send this process's log to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Fields() if sys.stderr.isatty() else _Json())
    logging.basicConfig(level=level, handlers=[handler])
    # It says with eight lines which of its builds fits this processor.
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)


class _Fields(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's)
        fields = [f"{name}={value}" for name, value in _given(record).items()]
        return " ".join([super().formatMessage(record), *fields])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_given(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _given(record: logging.LogRecord) -> Mapping[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}
