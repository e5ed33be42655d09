"""What happened in a build, one JSON object a line: for `why`, for reports, for tests.

The format is a contract with whoever reads records: docs/record.md says it for people, EVENTS for programs; a
test holds both together.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from . import words
from .errors import UsageError
from .loop import Loop

FORMAT = 1
"""Grows when something that is there changes its meaning; further fields and events may come without that."""

LARGEST_BYTES = 32 << 20
"""Of a record that is kept without having been asked for: some 80,000 sub-makes."""

_COLLECTED = ("job", "credit")
"""Events of which there are many."""

_BUFFER_BYTES = 1 << 16
"""Lines are written when there are this many, or at the next `flush`."""

EVENTS: Mapping[str, Mapping[str, str]] = {
    "build": {
        "at_s": "float",
        "format": "int",
        "version": "str",
        "time": "str",
        "folder": "str",
        "command": "list[str]",
        "program": "bool",
        "project": "str",
        "hosts": "list[str]",
        "pid": "int",
    },
    "host-up": {
        "at_s": "float",
        "host": "str",
        "slots": "int",
        "transport": "str",
        "transport_reason": "str",
        "fingerprint": "str",
        "same_machine": "list[str]",
    },
    "host-drained": {"at_s": "float", "host": "str", "reason": "str", "fingerprint": "str"},
    "host-failed": {"at_s": "float", "host": "str", "reason": "str", "fingerprint": "str"},
    "host-fenced": {"at_s": "float", "host": "str", "reason": "str", "fingerprint": "str"},
    "host-lost": {"at_s": "float", "host": "str", "reason": "str", "fingerprint": "str"},
    "host-undrained": {"at_s": "float", "host": "str", "reason": "str", "fingerprint": "str"},
    "host-added": {"at_s": "float", "host": "str", "reason": "str", "fingerprint": "str"},
    "host-removed": {"at_s": "float", "host": "str", "reason": "str", "fingerprint": "str"},
    "credit": {"at_s": "float", "host": "str", "outstanding": "int"},
    "debt": {"at_s": "float", "host": "str?", "debt_s": "float"},
    "torn": {"at_s": "float", "job": "int", "moved": "list[str]", "left": "list[str]"},
    "job": {
        "at_s": "float",
        "job": "int",
        "dir": "str",
        "argv": "list[str]",
        "host": "str?",
        "local_reason": "str?",
        "parent": "int?",
        "asked_from": "str?",
        "exit": "int?",
        "signal": "int?",
        "infrastructure": "str",
        "asked_s": "float",
        "placed_s": "float",
        "waited_s": "float?",
        "ran_s": "float?",
        "candidates": "list[list]",
        "reason": "str",
        "waited_for": "str",
        "expected_s": "float?",
    },
    "unseen": {"at_s": "float", "argv": "str", "dir": "str", "reason": "str"},
    "cut": {"at_s": "float", "reason": "str"},
    "end": {"at_s": "float", "exit": "int?", "signal": "int?"},
}
"""Fields of each event and their types, as docs/record.md has them; `?` says that it may be null."""


@dataclass
class _Sink:
    file: TextIO
    name: str
    most_bytes: int | None = None
    lines: list[str] = field(default_factory=list)
    size: int = 0
    """Characters taken, which are all ASCII."""
    waiting: int = 0
    """Those of them that are not written yet."""


class Record:
    """Writes lines to a file that the user named, to one that is kept, to both, or to none.

    What is said of hosts is written at once, jobs are collected until `flush`: when the coordinator is
    killed, those that ended since the last one are missing.

    Args:
        path: a file of the user's.

    Raises:
        UsageError: `path` cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self._sinks: list[_Sink] = []
        if path is not None:
            try:
                # For this user alone: command lines can hold what others should not read.
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise UsageError(
                    f"the record {path} cannot be written: {error.strerror}", "name another file"
                ) from error
            self._sinks.append(_Sink(os.fdopen(fd, "w", encoding="utf-8"), path))

    def keep(self, file: TextIO, name: str) -> None:
        """Write to this open file as well, so much as LARGEST_BYTES allow."""
        self._sinks.append(_Sink(file, name, LARGEST_BYTES))

    @property
    def wanted(self) -> bool:
        """Is there anybody to write for?"""
        return bool(self._sinks)

    def write(self, event: str, **fields: Any) -> None:
        """Add one object; it is given the time of now."""
        if not self._sinks:
            return
        # Not json.dump: that one is all Python, and writes each word by itself.
        line = _ENCODER.encode({"event": event, "at_s": round(Loop.now(), 4), **fields}) + "\n"
        for sink in list(self._sinks):
            self._take(sink, line)
        if event not in _COLLECTED:
            self.flush()

    def _take(self, sink: _Sink, line: str) -> None:
        if sink.most_bytes is not None and sink.size + len(line) > sink.most_bytes:
            cut = {"event": "cut", "at_s": round(Loop.now(), 4), "reason": f"{sink.most_bytes} bytes"}
            sink.lines.append(_ENCODER.encode(cut) + "\n")
            self._flush(sink)
            self._close(sink)
            return
        sink.lines.append(line)
        sink.size += len(line)
        sink.waiting += len(line)
        if sink.waiting > _BUFFER_BYTES:
            self._flush(sink)

    def flush(self) -> None:
        """Write what was collected."""
        for sink in list(self._sinks):
            self._flush(sink)

    def _flush(self, sink: _Sink) -> None:
        if not sink.lines:
            return
        text = "".join(sink.lines)
        sink.lines.clear()
        sink.waiting = 0
        try:
            sink.file.write(text)
            sink.file.flush()
        except OSError as error:
            # What was not asked for need not speak of the user's own limit (ulimit -f).
            if sink.most_bytes is None or error.errno != errno.EFBIG:
                words.say(f"the record {sink.name} ends here, the build goes on: {error.strerror}")
            self._close(sink)

    def _close(self, sink: _Sink) -> None:
        self._sinks.remove(sink)
        with contextlib.suppress(OSError):  # what could not be written was said
            sink.file.close()

    def close(self) -> None:
        """Write what was collected, and end."""
        self.flush()
        for sink in list(self._sinks):
            self._close(sink)


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


_ENCODER = json.JSONEncoder(default=_text)
