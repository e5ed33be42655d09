"""Files that others write, read as they grow: a build's record, and the logs of sshd."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

LOOK_S = 0.002
"""Between two looks; the resolution of the times that come out."""


class Tail:
    """New whole lines of a file, which need not be there yet."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self._path = path
        self._at = path.stat().st_size if from_end and path.exists() else 0
        self._partial = b""

    def lines(self) -> list[str]:
        """What came since the last call."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return []
        self._at += len(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole]


class Arrivals:
    """When lines that hold a certain text came.

    Attributes:
        times: monotonic seconds of each, by text.
    """

    def __init__(self, tails: Sequence[Tail], texts: Sequence[str]) -> None:
        self._tails = tails
        self.times: dict[str, list[float]] = {text: [] for text in texts}

    def look(self) -> None:
        for tail in self._tails:
            for line in tail.lines():
                for text, times in self.times.items():
                    if text in line:
                        times.append(time.monotonic())


def watch(arrivals: Sequence[Arrivals], done: Callable[[], bool], limit_s: float) -> bool:
    """Look until `done`; False when that takes longer than `limit_s`."""
    deadline = time.monotonic() + limit_s
    while True:
        for each in arrivals:
            each.look()
        if done():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
