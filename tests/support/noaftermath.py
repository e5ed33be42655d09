"""An aftermath for coordinators whose jobs write no files."""

from __future__ import annotations

from collections.abc import Callable

from d1fleet.aftermath import Aftermath
from d1fleet.job import Job
from d1fleet.loop import Loop
from d1fleet.record import Record
from d1fleet.scrub import Scrubbed


class NoAftermath(Aftermath):
    """Notes what it is told; what is torn, the test says."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop, b"/", b"make", None, Record(None))
        self.found = Scrubbed()
        self.asked: list[Job] = []
        """Those whose targets were put away, in order."""

    def put_away(self, job: Job, done: Callable[[Scrubbed], None]) -> None:
        """Nothing to do, but not at once."""
        self._waiting.append((job, done))
        self.asked.append(job)

        def over() -> None:
            self._waiting.remove((job, done))
            if self.found.is_clean:
                self.ended(job)
            done(self.found)

        self._loop.call_later(0.0, over)
