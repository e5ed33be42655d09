"""A thread that does what would hold the loop up, one thing at a time; the loop is told what came of it."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Optional

from ..loop import Loop

Job = Callable[[], Any]
Done = Callable[[Any, Optional[Exception]], None]


class Worker:
    """One such thread.

    Attributes:
        busy: something is under way.
    """

    def __init__(self, loop: Loop, name: str) -> None:
        self._loop = loop
        self._queue: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self.busy = False
        self._until_s = 0.0
        # A daemon: who resolves a name may hang for a minute, and we are to end in two seconds.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, job: Job, done: Done, limit_s: float) -> None:
        """Do something there, and call `done` in the loop with what it has returned or raised.

        Args:
            limit_s: that the job keeps to by itself; what takes much longer hangs.
        """
        self.busy = True
        self._until_s = time.monotonic() + limit_s
        self._queue.put((job, done))

    def hangs(self, mercy_s: float) -> bool:
        """Is something under way that should have ended so long ago?"""
        return self.busy and time.monotonic() > self._until_s + mercy_s

    def _work(self) -> None:
        while True:
            task = self._queue.get()
            if task is None:
                return
            job, done = task
            result, error = None, None
            try:
                result = job()
            except Exception as caught:
                error = caught
            self._loop.post(functools.partial(self._end, done, result, error))

    def _end(self, done: Done, result: Any, error: Exception | None) -> None:
        self.busy = False
        done(result, error)

    def close(self, limit_s: float) -> bool:
        """End the thread once it is idle; returns whether it has ended."""
        self._queue.put(None)
        self._thread.join(limit_s)
        return not self._thread.is_alive()
