"""Asks the root helper for files that follow from what this host knows of its peers: once for each change."""

from __future__ import annotations

import functools
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from ..loop import Loop, Timer
from . import strictjson
from .strictjson import BadDocumentError
from .worker import Worker

LIMIT_S = 90.0
"""For an answer: it may have to wait for another request, and asks distcc about each file."""

AGAIN_S = 300.0
"""What is as it should be is asked for again, since others may have changed it."""

AFTER_FAULT_S = 30.0

_MOST_BYTES = 1 << 20


class Applier:
    """Sees to it that files are as they were asked for last.

    Args:
        path: of the helper's socket.
        done: called after each try, with what has changed and what is wrong.
    """

    def __init__(self, loop: Loop, path: str, done: Callable[[list[str], list[str]], None]) -> None:
        self._loop = loop
        self._path = path
        self._done = done
        self._worker = Worker(loop, "apply")
        self._wanted: bytes = b""
        self._once_more = False
        self._timer: Timer | None = None

    @property
    def was_asked(self) -> bool:
        """Has anything been wanted so far?"""
        return bool(self._wanted)

    def want(self, request: dict[str, Any]) -> None:
        """Ask for this, unless it is what was asked for last."""
        wanted = json.dumps(request, separators=(",", ":"), sort_keys=True).encode()
        if wanted != self._wanted:
            self._wanted = wanted
            self.again()

    def again(self) -> None:
        """Ask for the same as before: what it was made of may be another now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._wanted and not self._worker.busy:
            self._once_more = False
            self._worker.run(functools.partial(ask, self._path, self._wanted), self._answered, LIMIT_S)
        else:
            self._once_more = True

    def hangs(self, mercy_s: float) -> bool:
        """Should the helper have answered long ago?"""
        return self._worker.hangs(mercy_s)

    def _answered(self, result: Any, error: Exception | None) -> None:
        changed, faults = ([], [str(error)]) if error is not None else result
        self._timer = self._loop.call_later(AFTER_FAULT_S if faults else AGAIN_S, self.again)
        if self._once_more:
            self.again()
        self._done(changed, faults)

    def close(self, limit_s: float) -> bool:
        """Ask no more; returns whether nothing is under way."""
        if self._timer is not None:
            self._timer.cancel()
        return self._worker.close(limit_s)


def ask(path: str, request: bytes) -> tuple[list[str], list[str]]:
    """One request; what has changed, and what is wrong."""
    until_s = time.monotonic() + LIMIT_S
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(LIMIT_S)
            asked.connect(path)
            asked.sendall(request)
            asked.shutdown(socket.SHUT_WR)
            data = bytearray()
            while piece := _receive(asked, until_s):
                data += piece
                if len(data) > _MOST_BYTES:
                    return [], ["the root helper answers without end"]
        found = strictjson.members(
            strictjson.read(bytes(data), _MOST_BYTES), "its answer", ("changed", "faults")
        )
        return _texts(found["changed"]), _texts(found["faults"])
    except OSError as error:
        return [], [f"the root helper does not answer at {path}: {error.strerror or error}"]
    except BadDocumentError as error:
        return [], [f"the root helper does not answer as it should: {error}"]


def _texts(value: object) -> list[str]:
    return [strictjson.text(each, "a text", 4000) for each in strictjson.items(value, "its texts", 10_000)]


def _receive(asked: socket.socket, until_s: float) -> bytes:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("timed out")
    asked.settimeout(left_s)
    return asked.recv(1 << 16)
