"""The log: one JSON object a line on stderr, so that no field can make another line, or pass for another one.

    {"time": "2024-05-01T12:00:00.123Z", "level": "warning", "logger": "d1fleet.registry", "message": ...,
     further fields of the one who logs}

Entries of the audit log have their own field, "audit". Requests are told of by their path alone. Nothing that
anybody shows to be let in gets here; what looks like it in other texts is hidden.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import sys
import time
from typing import Any, TextIO

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
"""What every record has; the rest are fields of the one who logs."""

_SECRETS = (
    (re.compile(r"\b(d1[jk]_[0-9a-f]{8})_[A-Za-z0-9_-]{20,}"), r"\1_***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',]+"), r"\1 ***"),
    # It begins where such characters begin: else a long text would be tried from each of them.
    (re.compile(r"(?<![A-Za-z0-9_.-])[A-Za-z0-9_.-]{20,}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), "***"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:***@"),
)
"""Tokens and keys, headers, what itsdangerous has signed (credentials, sessions), passwords in URLs."""

LONGEST_TEXT = 2000
"""Characters of one field."""

LONGEST_TRACE = 20_000

QUIET = ("asyncio", "alembic", "sqlalchemy")


def hidden(text: str) -> str:
    """A text without what lets somebody in."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, ASCII alone: control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": hidden(record.getMessage())[:LONGEST_TEXT],
        }
        for name, value in vars(record).items():
            if name not in _OWN and name not in fields:
                fields[name] = _plain(value)
        if record.exc_info:
            fields["exception"] = hidden(self.formatException(record.exc_info))[-LONGEST_TRACE:]
        return json.dumps(fields)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if value is None or isinstance(value, bool | int | float):
        return value
    return hidden(str(value))[:LONGEST_TEXT]


def set_up(level: str, stream: TextIO | None = None) -> None:
    """Have all loggers of this process write so.

    Args:
        level: one of option_values.LOG_LEVELS.
        stream: None for stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    for each in list(root.handlers):
        root.removeHandler(each)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Others tell how they work, which is of interest to those who develop them.
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # It warns of every request that is none: whoever likes could fill the disk.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
