"""What became of each sub-make: counted, for the summary, and written, for the record."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from . import protocol, words
from .job import Job
from .record import Record

SHOWN_JOBS = 40
"""Sub-makes that a summary lists one by one."""


@dataclass(frozen=True)
class ShownJob:
    """A line of the summary."""

    command: str
    folder: str
    host: str
    """Where it ran; empty for this machine."""
    seconds: float | None
    remark: str
    """How it ended where that was not well, or why it ran here."""


@dataclass
class Counts:
    """What the summary says."""

    by_host: Counter[str] = field(default_factory=Counter)
    here: Counter[str] = field(default_factory=Counter)
    """Sub-makes that ran here, by reason."""
    fallback: int = 0
    """Those of them that ran here only because no host could take them."""
    stayed: Counter[str] = field(default_factory=Counter)
    """Sub-makes that jobs on a host called, and that stayed on it, by host."""
    lost: int = 0
    """Sub-makes that ended by infrastructure."""
    again: int = 0
    """Times that one was lost and done again."""
    without_host: int = 0
    """Those that no host could take, under --strict."""
    cut_short: int = 0
    """Those that still ran when the top make had ended: it had not waited for them."""
    failed_by_host: Counter[str] = field(default_factory=Counter)
    jobs: list[ShownJob] = field(default_factory=list)
    """The first of all, for the summary."""


class Outcomes:
    """Takes note of the ends of sub-makes.

    Args:
        folder: of the build; the summary names folders as seen from it.
    """

    def __init__(self, record: Record, folder: bytes) -> None:
        self.counts = Counts()
        self._record = record
        self._folder = folder

    def write(
        self,
        job: Job,
        message: protocol.Exit | None,
        local_reason: str | None = None,
        infrastructure: str = "",
    ) -> None:
        """A sub-make has ended, or stays where it was called.

        Args:
            message: how it ended on its host; None when it ran on none.
            local_reason: why it stays; None when it does not.
            infrastructure: how it was lost without a host.
        """
        counts = self.counts
        host = job.link.host.name if job.link is not None and message is not None else None
        stayed = job.asker.host if local_reason is not None else None
        remark = local_reason or infrastructure
        if stayed is not None:
            remark = f"stayed there: {remark}"
        if host is not None and message is not None:
            counts.by_host[host] += 1
            remark = _remark(message)
            if remark:
                counts.failed_by_host[host] += 1
        if len(counts.jobs) < SHOWN_JOBS:
            folder = os.path.relpath(os.fsdecode(job.request.folder), os.fsdecode(self._folder))
            seconds = message.ran_s if message is not None else None
            counts.jobs.append(
                ShownJob(job.words, words.plain(folder), host or stayed or "", seconds, remark)
            )
        if not self._record.wanted:
            return
        self._record.write(
            event="job",
            job=job.number,
            dir=job.request.folder,
            argv=job.arguments,
            host=host or stayed,
            local_reason=local_reason,
            parent=job.parent.number if job.parent is not None else None,
            asked_from=job.asker.host,
            exit=message.code if message is not None and not message.infrastructure else None,
            signal=message.signal if message is not None and not message.infrastructure else None,
            infrastructure=message.infrastructure if message is not None else infrastructure,
            asked_s=round(job.asked_at, 4),
            placed_s=round(job.placed_at, 4),
            waited_s=message.waited_s if message is not None else None,
            ran_s=message.ran_s if message is not None else None,
            candidates=job.candidates,
            reason=job.reason,
            waited_for=job.state.waited_for,
            expected_s=job.state.expected_s,
        )


def _remark(message: protocol.Exit) -> str:
    """How it ended, for people; empty when it ended well."""
    if message.infrastructure:
        return message.infrastructure
    if message.signal:
        return f"signal {message.signal}"
    return f"exit {message.code}" if message.code else ""
