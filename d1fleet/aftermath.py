"""What follows when a sub-make is lost: the targets that it may have torn are put away before anybody makes
them again, in this build or in the next.
"""

from __future__ import annotations

import collections
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from . import entries, journal, words
from .entries import Entry
from .errors import D1fleetError, TreeError
from .helper import Helper
from .journal import Journal, LeftOver
from .loop import Loop, Timer
from .protocol import Ask, Called, Exit, unpack_block
from .record import Record
from .scrub import Scrubbed, Suspect, decode, encode, scrub
from .targets import Question
from .treeclock import TreeClock

if TYPE_CHECKING:
    from .job import Job

MOST_TIMES = 3
"""A sub-make that has been lost on so many hosts may be what ends them."""

_BEAT_S = 1.0
"""How often the journal shows that the build goes on; less than any lease."""

_SKEW_NS = 3600 * 10**9

_SHOWN = 5
"""Files that are named one by one."""

_RAN = ("lost", "fenced", "internal")
"""Classes of an end by infrastructure after which something may have been written."""


def may_be_torn(message: Exit) -> bool:
    """May a sub-make that ended so have left a half-written target? make deletes that where it can."""
    return message.infrastructure in _RAN or message.signal == 9 or bool(message.short)


def why_not_again(job: Job, rule: str | None) -> str:
    """Why a lost sub-make must not be done again; empty when it may.

    Args:
        rule: by which it must not be done twice.
    """
    once = sorted(job.once | ({rule} if rule is not None else set()))
    if once:
        return (
            f"it must not be done twice (rule {words.plain(', '.join(once))}):"
            " see what it has done before you build again"
        )
    if job.has_read:
        return "it has read from its standard input, which cannot be given a second time"
    if len(job.lost_on) >= MOST_TIMES:
        return f"it was lost {len(job.lost_on)} times, on {', '.join(job.lost_on)}: see what it does to them"
    return ""


class Aftermath:
    """Knows what is at work in the tree of a build.

    Args:
        folder: of the build.
        make: path of the real make.
        kept: the journal; None where none can be kept.
    """

    def __init__(self, loop: Loop, folder: bytes, make: bytes, kept: Journal | None, record: Record) -> None:
        self._loop = loop
        self._folder = folder
        self._make = make
        self._journal = kept
        self._record = record
        self._clock = TreeClock(folder)
        self._start = dict(os.environb)
        # Until the tree's clock is known: clocks differ by less, and no sub-make began before.
        self._since_ns = time.time_ns() - _SKEW_NS
        self._beat: Timer | None = None
        self._waiting: collections.deque[tuple[Job, Callable[[Scrubbed], None]]] = collections.deque()
        self._helper: Helper | None = None
        self._complained = False
        self._late = False

    @property
    def busy(self) -> bool:
        """Is something being put away?"""
        return bool(self._waiting)

    def began(self, job: Job, attempt: int, host: str) -> None:
        """It is about to be sent to a host."""
        if self._beat is None:
            self._keep_alive()
        # Where the disk is full an older time does as well, as nothing that it has written is older.
        with contextlib.suppress(OSError):
            self._since_ns = self._clock.now_ns()
        self._note(job.request, job, attempt, host, self._since_ns)

    def _keep_alive(self) -> None:
        self._keep(Journal.beat)
        if not self._late and journal.late_there(self._folder):
            self._late = True
            words.say(
                "a host was frozen, and may have written after its lease: when this build has ended, what it"
                " may have torn is put away"
            )
        self._beat = self._loop.call_later(_BEAT_S, self._keep_alive)

    def stayed(self, job: Job, within: Job) -> None:
        """What a job has called stays on its host, as a part of it."""
        if within.notes and within.link is not None:
            self._note(job.request, within, within.attempt, within.link.host.name, within.notes[0].since_ns)

    def called(self, job: Job, called: Called) -> None:
        """What a job has called runs on its host as a part of it, and nobody was asked."""
        if job.notes and job.link is not None:
            self._note(called, job, job.attempt, job.link.host.name, job.notes[0].since_ns)

    def _note(self, make: Ask | Called, into: Job, attempt: int, host: str, since_ns: int) -> None:
        changed = entries.changed(make.environment, self._start)
        entry = Entry(attempt, host, since_ns, make.folder, unpack_block(make.argv), changed)
        into.notes.append(entry)
        self._keep(lambda kept: kept.began(entry))

    def over(self, job: Job) -> None:
        """Nothing of it writes any more, but it may have torn something."""
        self._keep(lambda kept: kept.over(job.attempt))

    def ended(self, job: Job) -> None:
        """Nothing of it writes any more, and nothing of it is torn."""
        job.notes.clear()
        self._keep(lambda kept: kept.ended(job.attempt))

    def _keep(self, write: Callable[[Journal], None]) -> None:
        try:
            if self._journal is not None:
                write(self._journal)
        except OSError as error:
            if not self._complained:
                self._complained = True
                words.say(
                    f"the journal of {os.fsdecode(self._folder)} cannot be written: {error.strerror}. If this"
                    " build is killed, the next one will not know what may be half written"
                )

    def put_away(self, job: Job, done: Callable[[Scrubbed], None]) -> None:
        """Move what it may have torn; nothing of it writes any more. `done` is called when that is over."""
        self._waiting.append((job, done))
        if self._helper is None:
            self._next()

    def _next(self) -> None:
        if not self._waiting:
            return
        job, _ = self._waiting[0]
        label = f"{time.strftime('%Y%m%d-%H%M%S')}-{job.number}"
        question = encode(
            self._folder, [_suspect(note, self._make, self._start) for note in job.notes], label
        )
        self._helper = Helper(self._loop, "d1fleet.scrub", [], self._answered, question)

    def _answered(self, answer: bytes) -> None:
        self._helper = None
        job, done = self._waiting.popleft()
        try:
            found = decode(answer)
        except ValueError:
            found = Scrubbed(unknown={self._folder: "the look for torn files ended without an answer"})
        self._record.write(
            event="torn",
            job=job.number,
            moved=sorted(map(os.fsdecode, found.moved)),
            left=sorted(map(os.fsdecode, [*found.left, *found.unknown])),
        )
        say(found, self._folder)
        if found.is_clean:
            self.ended(job)
        done(found)
        self._next()

    def give_up(self) -> None:
        """Somebody does not want to wait. What has not been put away is the next build's to do."""
        self._waiting.clear()
        if self._helper is not None:
            self._helper.close()
            self._helper = None

    def close(self) -> None:
        """The build is over."""
        self.give_up()
        if self._beat is not None:
            self._beat.cancel()


def say(found: Scrubbed, folder: bytes) -> None:
    """Tell people where their files have gone."""
    if found.moved:
        to = (
            os.path.commonpath(list(found.moved.values()))
            if len(found.moved) > 1
            else next(iter(found.moved.values()))
        )
        words.say(
            f"{words.counted(len(found.moved), 'target')} may be half written, and will be made again: "
            f"{_names(found.moved, folder)}; kept in {_from(to, folder)}"
        )
    for path, reason in sorted({**found.left, **found.unknown}.items()):
        words.say(
            f"{_from(path, folder)} may be half written, and was left where it is: {words.plain(reason)}"
        )


def _names(paths: Sequence[bytes] | dict[bytes, bytes], folder: bytes) -> str:
    shown = [_from(path, folder) for path in sorted(paths)[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")


def _from(path: bytes, folder: bytes) -> str:
    return words.plain(os.fsdecode(os.path.relpath(path, folder)))


def after(folder: bytes, make: bytes, environment: dict[bytes, bytes]) -> bool:
    """The build has ended: put away what hosts may have written after their lease. True when there was
    something, so that what was built is not to be used.
    """
    try:
        left = journal.late(folder)
        if left is None:
            return False
        found = _scrub(folder, left, make, environment, "late")
        say(found, folder)
        if found.is_clean:
            journal.forget_late(folder)
    except D1fleetError as error:
        words.say(str(error))
        return True
    if not found.moved and found.is_clean:
        return False
    words.say("what the last build has made may be torn: build again, which makes that anew")
    return True


def _suspect(entry: Entry, make: bytes, environment: Mapping[bytes, bytes]) -> Suspect:
    """For `scrub`; `environment` is a build's own."""
    question = Question(make, entry.argv, {**environment, **entry.changed}, entry.folder)
    return Suspect(question, entry.since_ns)


def _scrub(
    folder: bytes, left: LeftOver, make: bytes, environment: dict[bytes, bytes], label: str
) -> Scrubbed:
    suspects = [_suspect(entry, make, environment) for entry in left.entries]
    return scrub(folder, suspects, f"{time.strftime('%Y%m%d-%H%M%S')}-{label}")


def recover(folder: bytes, make: bytes, environment: dict[bytes, bytes]) -> None:
    """See to what an earlier build has left in this tree: wait until its hosts have ended that for certain,
    and put away what may be torn.

    Raises:
        TreeError: something may be torn that has to stay where it is, or the journal cannot be used.
    """
    left = journal.left_over(folder)
    if left is None:
        return
    if left.entries:
        hosts = ", ".join(sorted({entry.host for entry in left.entries}))
        wait = f"; waiting {left.wait_s:.0f} s, until nothing of them can run there" if left.wait_s else ""
        words.say(
            f"the build before this one was broken off with {words.counted(len(left.entries), 'sub-make')}"
            f" at work on {words.plain(hosts)}{wait}"
        )
        time.sleep(left.wait_s)
        found = _scrub(folder, left, make, environment, "before")
        say(found, folder)
        if not found.is_clean:
            raise TreeError(
                "files that may be half written are in make's sight",
                f"look at those files; without {os.fsdecode(journal.path(folder))} nobody asks for them",
            )
    journal.forget(folder)
