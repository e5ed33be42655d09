"""The file in the user's state folder that keeps what builds taught."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import words
from .errors import RuntimeFolderError
from .history import DamagedHistoryError, History
from .runtime import state_folder

_LOCK_S = 2.0
"""Another build writes for some milliseconds; one that is stopped meanwhile shall not stop us."""


def load_history() -> History:
    """What is known; nothing, with a note, when the file cannot be used."""
    try:
        return _read(_path())
    except DamagedHistoryError as error:
        words.say(f"what past builds taught is not used, and will be written anew: {error}")
    except (OSError, RuntimeFolderError) as error:
        words.say(f"what past builds taught is not used: {error}")
    return History()


def save_history(history: History) -> None:
    """Add what this build has taught to what is there by now. That this cannot be done fails no build."""
    if not history.new_jobs and not history.new_hosts:
        return
    try:
        path = _path()
        with _locked(path.parent):
            try:
                there = _read(path)
            except DamagedHistoryError:
                there = History()
            _write(path, there.with_new_of(history))
    except (OSError, RuntimeFolderError) as error:
        if getattr(error, "errno", 0) != errno.EFBIG:  # the user's own limit (ulimit -f)
            words.say(f"what this build taught is not kept: {error}")


def _path() -> Path:
    return state_folder("history") / "jobs"


def _read(path: Path) -> History:
    try:
        return History(path.read_bytes())
    except FileNotFoundError:
        return History()


def _write(path: Path, data: bytes) -> None:
    number, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # 0600
    try:
        with open(number, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)
