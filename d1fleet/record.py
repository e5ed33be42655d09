"""What happened to each job, one JSON object a line: for reports, for `why`, for tests."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from . import words
from .errors import UsageError
from .loop import Loop


class Record:
    """A file of JSON lines; without a path nothing is written, counts are kept all the same."""

    def __init__(self, path: str | None) -> None:
        self._file = None
        self._path = path
        self._began = Loop.now()
        if path is not None:
            try:
                # For this user alone: command lines can hold what others should not read.
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                self._file = os.fdopen(fd, "w", encoding="utf-8")
            except OSError as error:
                raise UsageError(
                    f"the record {path} cannot be written: {error.strerror}", "name another file"
                ) from error

    @property
    def wanted(self) -> bool:
        """Is there anybody to write for?"""
        return self._file is not None

    def since(self, moment: float) -> float:
        """Seconds from the build's start to a moment of the loop."""
        return round(moment - self._began, 4)

    def write(self, **fields: Any) -> None:
        """Add one object."""
        if self._file is not None:
            # Not json.dump: that one is all Python, and writes each word by itself.
            try:
                self._file.write(_ENCODER.encode(fields) + "\n")
                self._file.flush()
            except OSError as error:
                words.say(f"the record {self._path} ends here, the build goes on: {error.strerror}")
                self.close()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written was said
                self._file.close()
            self._file = None


def _text(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


_ENCODER = json.JSONEncoder(default=_text)
