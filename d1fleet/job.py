"""One job: a sub-make that a shim asked for, with its streams and its tokens, until the shim has its
answer.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import hashlib
import os
from collections.abc import Callable

from . import makeflags, protocol, words
from .environment import TravellingEnvironment
from .errors import ProtocolError
from .hostlink import HostLink
from .jobserver import JobserverClient, TokenSource, Unlimited
from .loop import Loop
from .protocol import STDERR, STDIN, STDOUT
from .shims import ShimConnection, ShimRequest
from .streams import Sink, Source

_CREDIT_STEP = protocol.STREAM_CREDIT // 4
"""Bytes written after which the host gets credit for as many more."""


def _variable(block: bytes, name: bytes) -> bytes:
    """Value of a variable in a block; empty when it is not set."""
    start = 0 if block.startswith(name + b"=") else block.find(b"\0" + name + b"=") + 1
    if start == 0 and not block.startswith(name + b"="):
        return b""
    return block[start + len(name) + 1 : block.index(b"\0", start)]


class Phase(enum.Enum):
    """How far a job has come."""

    WAITING = "waiting"
    """For a host, or for a slot here."""
    RUNNING = "running"
    """On a host, or lost with it and perhaps running still."""
    WRITING = "writing"
    """Its make has ended; what that wrote is on its way."""
    OVER = "over"
    """Its shim has its answer."""


class Job:
    """A sub-make.

    Args:
        number: counts the jobs of the build from 1.
        now: when it was asked for (seconds of the loop).
    """

    def __init__(
        self, loop: Loop, number: int, shim: ShimConnection, request: ShimRequest, now: float
    ) -> None:
        self.number = number
        self.shim = shim
        self.request = request
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
        self.wanted_slots = 1
        self.taken_slots = 0
        """Slots of the machine that it takes for itself, its tokens not counted."""
        self.tokens = 0
        """Further tokens that its make has."""
        self.recalls = 0
        self.candidates: tuple[tuple[str, float], ...] = ()
        self.refused: dict[str, str] = {}
        """Hosts that would not start it, and why."""
        self._loop = loop
        self._sinks: dict[int, Sink] = {}
        self._unsent_credit = {STDOUT: 0, STDERR: 0}
        self._ahead = {STDOUT: 0, STDERR: 0}
        """Bytes that came and are not written yet."""
        self._source: Source | None = None
        self._token_source: TokenSource | None = None
        self._lock_fd: int | None = None
        self.flags = makeflags.parse(_variable(request.environment, b"MAKEFLAGS"))
        self.device = self._device()
        self.key = hashlib.blake2b(request.folder + b"\0" + request.argv, digest_size=16).digest()
        """The same for the same command in the same folder."""

    def _device(self) -> int:
        try:
            return os.stat(self.request.folder).st_dev
        except OSError:
            return -1

    def stays_here(self) -> str | None:
        """Why make itself wants this one run where it was asked for, or None."""
        if self.flags.fds and min(self.flags.fds) <= STDERR:
            return "its jobserver sits where a standard stream was closed"
        gnumakeflags = _variable(self.request.environment, b"GNUMAKEFLAGS")
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
        kind = makeflags.jobserver(self.flags, self.arguments, fds_open=request.jobserver is not None)
        fds: list[int] = []
        tokens = False
        if given_jobs is None and kind is makeflags.Jobserver.CLIENT:
            fds, tokens = list(self.flags.fds or (3, 4)), True
        elif kind is makeflags.Jobserver.OWN and request.jobserver is not None:
            fds = list(self.flags.fds or ())
        stdin = 0 in request.fds and Source.forwards(request.fds[0])
        return protocol.Run(
            attempt=attempt,
            job=self.number,
            umask=request.umask,
            ignored=request.ignored,
            limits=request.limits,
            streams=sum(1 << number for number in request.fds),
            same=request.same,
            stdin=stdin,
            jobserver=fds,
            tokens=tokens,
            fifo=self.flags.fifo is not None,
            keep_auth=given_jobs is None,
            weight=self.weight(makeargs),
            grouped=self._grouped(),
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

    def _grouped(self) -> bool:
        return self.flags.output_sync in (b"line", b"target")

    def placed(self, link: HostLink, run: protocol.Run) -> None:
        """It has been sent to a host."""
        self.link = link
        self.attempt = run.attempt
        self.phase = Phase.RUNNING
        self.placed_at = self._loop.now()
        if run.stdin:
            self._source = Source(
                self._loop,
                self.request.fds[0],
                lambda data: link.send(protocol.Data(self.attempt, STDIN, False, data)),
                lambda: link.send(protocol.Close(self.attempt, STDIN)),
            )
            self._source.start()

    def unplace(self) -> None:
        """Its host has not started it: as if it had never been sent."""
        if self._source is not None:
            self._source.close()
            self._source = None
        self.phase = Phase.WAITING
        self.link = None
        self.candidates = ()

    def discard_output(self) -> None:
        """Nobody shall wait any longer for its output to be taken."""
        for sink in list(self._sinks.values()):
            sink.discard()

    @property
    def host_is_there(self) -> bool:
        """Can its host still be told anything?"""
        return self.link is not None and self.link.open

    def send(self, message: protocol.Message) -> None:
        """Say something to its host."""
        if self.link is not None:
            self.link.send(message)

    # -- streams ------------------------------------------------------------------------------------

    def output(self, message: protocol.Data) -> None:
        """Write what the make wrote."""
        number = message.stream
        if number not in (STDOUT, STDERR):
            return
        self._ahead[number] += len(message.data)
        if self._ahead[number] > protocol.STREAM_CREDIT:
            raise ProtocolError(f"its server sent {self._ahead[number]} bytes of output without credit")
        sink = self._sinks.get(number) or self._open_sink(number)
        if sink is None:
            return
        sink.write(message.data, message.group_end or not self._grouped())

    def _open_sink(self, number: int) -> Sink | None:
        fd = self.request.fds.get(number)
        link = self.link
        if fd is None or link is None or self.abandoned:
            return None

        def written(amount: int) -> None:
            self._ahead[number] -= amount
            self._unsent_credit[number] += amount
            if self._unsent_credit[number] >= _CREDIT_STEP:
                link.send(protocol.Credit(self.attempt, number, self._unsent_credit[number]))
                self._unsent_credit[number] = 0

        def broken() -> None:
            link.send(protocol.Close(self.attempt, number))

        sink = Sink(self._loop, fd, written, broken, self._output_lock() if self._grouped() else None)
        self._sinks[number] = sink
        return sink

    def _output_lock(self) -> int | None:
        """What the top make locks while it writes a group: a file of its own (4.4), or its stdout (4.3)."""
        if self._lock_fd is None:
            mutex = (self.flags.arguments.values(b"sync-mutex") or [None])[-1]
            if mutex and mutex.startswith(b"fnm:"):
                with contextlib.suppress(OSError):
                    self._lock_fd = os.open(mutex[4:], os.O_RDWR | os.O_CLOEXEC)
            elif 1 in self.request.fds:
                self._lock_fd = os.dup(self.request.fds[1])
        return self._lock_fd

    @property
    def lost_output(self) -> int:
        """errno why output of its make did not get where it should, 0 when it did. That nobody reads it any
        more is make's business: it, or its recipe, has got EPIPE.
        """
        return next((sink.failed for sink in self._sinks.values() if sink.failed not in (0, errno.EPIPE)), 0)

    def stdin_used(self, amount: int) -> None:
        if self._source is not None:
            self._source.used(amount)

    def when_written(self, done: Callable[[], None]) -> None:
        """Call `done` once all output has gone out."""
        waiting = [sink for sink in self._sinks.values() if not sink.empty]
        if not waiting:
            done()
            return
        left = len(waiting)

        def one() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done()

        for sink in waiting:
            sink.on_empty = one

    # -- tokens -------------------------------------------------------------------------------------

    @property
    def token_source(self) -> TokenSource | None:
        """Where its further tokens come from; None where it has no jobserver."""
        if self._token_source is None:
            try:
                if self.request.jobserver is not None:
                    self._token_source = JobserverClient.of_pipe(self._loop, *self.request.jobserver)
                elif self.flags.fifo is not None:
                    path = os.fsdecode(self.flags.fifo)
                    self._token_source = JobserverClient(self._loop, path, path)
                elif self.flags.jobs == 0:
                    self._token_source = Unlimited()
            except OSError:
                return None
        return self._token_source

    # -- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give everything back: before the shim has its answer, for the make above waits for our
        descriptors. Harmless the second time.
        """
        if self._source is not None:
            self._source.close()
            self._source = None
        for sink in self._sinks.values():
            sink.close()
        self._sinks.clear()
        if self._token_source is not None:
            self._token_source.close()
            self._token_source = None
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
        self.request.close()
