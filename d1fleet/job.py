"""One job: a sub-make that was asked for, and its tokens, until whoever asked has the answer."""

from __future__ import annotations

import enum
import os

from . import makeflags, protocol, words
from .askers import Asker
from .entries import Entry
from .environment import TravellingEnvironment
from .hostlink import HostLink
from .jobserver import TokenSource
from .placement import JobState
from .protocol import STDERR
from .shimstreams import grouped


def variable(block: bytes, name: bytes) -> bytes:
    """Value of a variable in a block; empty when it is not set."""
    start = 0 if block.startswith(name + b"=") else block.find(b"\0" + name + b"=") + 1
    if start == 0 and not block.startswith(name + b"="):
        return b""
    return block[start + len(name) + 1 : block.index(b"\0", start)]


def flags_of(request: protocol.Ask) -> makeflags.Flags:
    """The MAKEFLAGS that a request came with."""
    return makeflags.parse(variable(request.environment, b"MAKEFLAGS"))


class Phase(enum.Enum):
    """How far a job has come."""

    WAITING = "waiting"
    """For a host, or for a slot here."""
    RUNNING = "running"
    """On a host, or lost with it and perhaps running still."""
    WRITING = "writing"
    """Its make has ended; what that wrote is on its way."""
    OVER = "over"
    """Whoever asked has the answer."""


class Job:
    """A sub-make.

    Args:
        number: counts the jobs of the build from 1.
        asker: who wants to have it run.
        request: what to run.
        device: of its folder, as seen on this machine; -1 when hosts do not share it.
        now: when it was asked for (seconds of the loop).
        parent: the job on a host that it came from.
    """

    def __init__(
        self,
        number: int,
        asker: Asker,
        request: protocol.Ask,
        device: int,
        now: float,
        parent: Job | None = None,
    ) -> None:
        self.number = number
        self.asker = asker
        self.request = request
        self.device = device
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent is not None else 0
        """How many jobs are above it."""
        self.children: set[Job] = set()
        """Jobs that came from this one and run elsewhere."""
        self.arguments = request.arguments
        self.asked_at = now
        self.placed_at = 0.0
        self.link: HostLink | None = None
        self.attempt = 0
        self.phase = Phase.WAITING
        self.abandoned = False
        """Nobody waits for its answer any more: its shim is gone, or was answered early."""
        self.signalled = 0
        """A signal that its shim got when no make could be told any more: its answer at the end."""
        self.sees = 0
        """The number of the last change that its host has to see before it begins."""
        self.state = JobState(number, now, group=device)
        """What placement knows of it."""
        self.tokens = 0
        """Further tokens that its make has."""
        self.tokens_from: TokenSource | None = None
        """Who gave them, and gets them back: also when the job that this one came from has ended before."""
        self.credit = 0
        """Slots of all these that are free for others, because recipes wait for its children."""
        self.recalls = 0
        self.wants = False
        """Has its make asked for another token, and not got it yet?"""
        self.probe_pause_s: float | None = None
        """How long its make waits for a probe; 0 once it has called a sub-make, None until it wants one."""
        self.probe_at = 0.0
        """When it may have that."""
        self.reason = ""
        """Why it went where it is, in placement's word."""
        self.candidates: tuple[tuple[str, float], ...] = ()
        self.once: set[str] = set()
        """Rules by which something that stayed in it must not be done twice."""
        self.notes: list[Entry] = []
        """The makes of which it consists while it is on a host: its own first, then those that stay in it."""
        self.lost_on: list[str] = []
        """Hosts that were lost, or lost it, while it was there."""
        self.has_read = False
        """Has it read from its standard input, which cannot be given a second time?"""
        self.refused: dict[str, str] = {}
        """Hosts that would not start it, and why."""
        self.flags = flags_of(request)

    def stays_here(self) -> str | None:
        """Why make itself wants this one run where it was asked for, or None."""
        if self.flags.fds and min(self.flags.fds) <= STDERR:
            return "its jobserver sits where a standard stream was closed"
        gnumakeflags = variable(self.request.environment, b"GNUMAKEFLAGS")
        return makeflags.never_dispatch(self.flags, self.arguments, gnumakeflags)

    @property
    def words(self) -> str:
        """The command, for people."""
        text = " ".join(os.fsdecode(argument) for argument in self.arguments)
        return words.plain(text if len(text) <= 80 else text[:77] + "...")

    # -- placing ------------------------------------------------------------------------------------

    def run_message(
        self, attempt: int, environment: TravellingEnvironment, makeargs: list[bytes]
    ) -> protocol.Run:
        """The message that starts it on a host."""
        request = self.request
        program = os.path.basename(self.arguments[0]) or b"make"
        if program not in (b"make", b"gmake"):
            program = b"make"
        argv0 = program if b"/" in self.arguments[0] else self.arguments[0] or program
        argv = [argv0, *makeargs, *self.arguments[1:]]
        given_jobs = makeflags.argv_jobs([argv0, *makeargs])
        kind = makeflags.jobserver(self.flags, self.arguments, fds_open=request.jobserver)
        fds: list[int] = []
        tokens = False
        if given_jobs is None and kind is makeflags.Jobserver.CLIENT:
            fds, tokens = list(self.flags.fds or (3, 4)), True
        elif kind is makeflags.Jobserver.OWN and request.jobserver:
            fds = list(self.flags.fds or ())
        return protocol.Run(
            attempt=attempt,
            job=self.number,
            umask=request.umask,
            ignored=request.ignored,
            limits=request.limits,
            streams=request.streams,
            same=request.same,
            stdin=request.stdin,
            jobserver=fds,
            tokens=tokens,
            fifo=self.flags.fifo is not None,
            keep_auth=given_jobs is None,
            weight=self.weight(makeargs),
            grouped=grouped(self.flags),
            program=os.fsdecode(program),
            folder=request.folder,
            argv=protocol.pack_block(argv),
            environment=environment.travelling(request.environment),
        )

    def weight(self, makeargs: list[bytes]) -> int:
        """Slots that it takes: 1, or what a -j of its own asks for; a -j without a number asks for all."""
        own = makeflags.argv_jobs([b"make", *makeargs, *self.arguments[1:]])
        if own is None:
            return 1
        return min(own, 1 << 16) if own > 0 else 1 << 16

    @property
    def is_wide(self) -> bool:
        """Can its make have further tokens?"""
        kind = makeflags.jobserver(self.flags, self.arguments, fds_open=self.request.jobserver)
        return kind is makeflags.Jobserver.CLIENT

    def placed(self, link: HostLink, attempt: int, now: float) -> None:
        """It has been sent to a host."""
        self.link = link
        self.attempt = attempt
        self.phase = Phase.RUNNING
        self.placed_at = now
        self.asker.placed(attempt, self.request.stdin, link.send)

    def unplace(self) -> None:
        """Its host has not started it: as if it had never been sent."""
        self.asker.unplaced()
        self.phase = Phase.WAITING
        self.link = None
        self.candidates = ()

    def abandon(self) -> None:
        """Nobody waits for its answer, nor for what it writes from now on."""
        self.abandoned = True
        self.asker.mute()

    @property
    def host_is_there(self) -> bool:
        """Can its host still be told anything?"""
        return self.link is not None and self.link.open

    def send(self, message: protocol.Message) -> None:
        """Say something to its host."""
        if self.link is not None:
            self.link.send(message)

    @property
    def token_source(self) -> TokenSource | None:
        """Where its further tokens come from; None where it has no jobserver."""
        return self.asker.token_source if self.phase is not Phase.OVER else None
