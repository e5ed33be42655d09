"""One attempt: a sub-make on this host, its pipes, its tokens, and its end."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import protocol
from ..entries import Entry
from ..maketokens import MakeTokens, TokenFifo, TokenPipes
from ..protocol import STDERR, STDIN, STDOUT
from ..streams import unread
from . import facts, shortage, supervisor
from .output import OutputPipe

if TYPE_CHECKING:
    from .asked import Asked
    from .main import Server

_STDIN_POLL_S = 0.01
_STDIN_POLL_MOST_S = 0.2


class Attempt:
    """A sub-make from its Run message to its Exit.

    Args:
        server: gives slots, supervisors, and the connection.
        run: what to run.
    """

    def __init__(self, server: Server, run: protocol.Run) -> None:
        self.server = server
        self.run = run
        self.id = run.attempt
        self.slots = 0
        """Slots of the machine held for the make itself; those of its tokens are held by `tokens`."""
        self.asked: set[Asked] = set()
        """What its processes have called and wait for."""
        self._credit = 0
        """Slots of its that are lent: as many recipes wait for jobs on other hosts."""
        self.supervisor: supervisor.Supervisor | None = None
        self.left = False
        self.cancelled = False
        self._kills_before = 0
        self.makes: list[Entry] = []
        """It, and what it has called that runs here as a part of it."""
        self._loop = server.loop
        self._arrived = self._loop.now()
        self._started = 0.0
        self._streams: list[tuple[int, OutputPipe]] = []
        self._stdin_write: int | None = None
        self._stdin_read: int | None = None
        self._stdin_queue = bytearray()
        self._stdin_pending = 0
        """Bytes in the make's stdin pipe that we have not seen it read."""
        self._stdin_eof = False
        self._stdin_poll_s = _STDIN_POLL_S
        self._channel: TokenPipes | TokenFifo | None = None
        self.tokens: MakeTokens | None = None
        self._lock_fd: int | None = None
        self._status: int | None = None
        self._killed = False
        """Its make was killed, and what that had started is being ended."""
        self._open_streams = 0
        self._exit: protocol.Exit | None = None

    @property
    def waited_s(self) -> float:
        """How long it has been here without being started."""
        return self._loop.now() - self._arrived

    # -- start ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the make; the attempt has its slots."""
        run, server = self.run, self.server
        self._started = self._loop.now()
        try:
            folder = run.folder
            reason = server.folder_reason(folder)
            if reason:
                self.refuse(protocol.REFUSED, reason)
                return
            if run.jobserver:
                self._channel = server.token_channel(run)
            fifo = self._channel.path if isinstance(self._channel, TokenFifo) else None
            environment = server.compose(run, fifo)
            path = server.programs.find(
                os.fsencode(run.program), environment.get(b"PATH", os.defpath.encode())
            )
            if path is None:
                self.refuse(protocol.REFUSED, f"there is no {run.program} in the job's PATH on this host")
                return
            argv = protocol.unpack_block(run.argv)
            fds, targets = self._open()
            limits = tuple(zip(run.limits[::2], run.limits[1::2]))
            job = (path, argv, environment, folder, run.umask, limits, run.ignored, targets)
            self._kills_before = shortage.kills()
            self.supervisor = server.supervisors.take(self)
            self.calls(folder, argv, run.environment)
            self.supervisor.start(job, fds)
        except OSError as error:
            self.refuse(protocol.NO_SPACE if error.errno == errno.ENOSPC else protocol.INTERNAL, str(error))
            return
        self._after_start()

    def _open(self) -> tuple[list[int], list[int]]:
        """Descriptors for the make, and the numbers that they shall have there."""
        run = self.run
        fds: list[int] = []
        targets: list[int] = []

        def give(fd: int, target: int) -> None:
            fds.append(fd)
            targets.append(target)

        if run.streams & 1:
            if run.stdin:
                self._stdin_read, self._stdin_write = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self._stdin_write, False)
                give(self._stdin_read, 0)
            else:
                give(self.server.null_fd, 0)
        if run.streams & 2:
            give(self._stream(STDOUT), 1)
        if run.streams & 4:
            if run.same and run.streams & 2:
                give(fds[-1], 2)
            else:
                give(self._stream(STDERR), 2)
        if isinstance(self._channel, TokenPipes):
            give(self._channel.make_read, run.jobserver[0])
            give(self._channel.make_write, run.jobserver[1])
        return fds, targets

    def _stream(self, number: int) -> int:
        def send(data: bytes, group_end: bool) -> None:
            self.server.send(protocol.Data(self.id, number, group_end, data))

        pipe = OutputPipe(self._loop, send, self.server.connection_busy)
        self._streams.append((number, pipe))
        return pipe.write_fd

    def _after_start(self) -> None:
        lock = None
        if self.run.grouped and self._streams:
            lock = self.server.output_lock
            if lock is None:
                # make 4.3 locks its stdout, or its stderr where that is closed.
                lock = self._lock_fd = os.dup(self._streams[0][1].write_fd)
        for _, pipe in self._streams:
            pipe.started(lock)
        self._feed()
        if self._channel is not None and self.run.tokens:
            self.tokens = MakeTokens(self.server, self.id, self._channel, self.children_changed)

    def calls(self, folder: bytes, argv: Sequence[bytes], environment: bytes) -> None:
        """A make runs here as a part of it; `environment` as it travels."""
        self.makes.append(self.server.entry(self.id, folder, argv, environment))

    def refuse(self, kind: str, text: str) -> None:
        """End without having run."""
        self._end(protocol.Exit(self.id, infrastructure=kind, text=facts.plain(text)))

    # -- the supervisor's reports -------------------------------------------------------------------

    def on_report(self, verb: bytes, value: int) -> None:
        if verb == supervisor.FAILED:
            self.refuse(protocol.REFUSED, f"make cannot be started there: {os.strerror(value)}")
        elif verb == supervisor.ENDED:
            self._status, self.left = supervisor.decode_end(value)
            if self.left and os.WIFSIGNALED(self._status) and os.WTERMSIG(self._status) == signal.SIGKILL:
                # It has deleted nothing that is half made: nobody may go on with that when it is put away.
                self._killed = True
                self.command(supervisor.KILL)
            else:
                self._drain()
        elif self._killed and verb in (supervisor.EMPTY, supervisor.UNKILLABLE):
            self._killed = False
            self.left = verb == supervisor.UNKILLABLE
            self._drain()

    def on_supervisor_death(self) -> None:
        """Somebody killed the supervisor; its tree has come to the server, which ends it."""
        if self._exit is None and self._status is None:
            self.supervisor = None
            self._end(
                protocol.Exit(
                    self.id, infrastructure=protocol.INTERNAL, text="the supervisor process was killed"
                )
            )

    def _drain(self) -> None:
        self._open_streams = len(self._streams)
        if not self._open_streams:
            self._report_end()
        for _, pipe in list(self._streams):
            pipe.finish(self._stream_ended)

    def _stream_ended(self) -> None:
        self._open_streams -= 1
        if self._open_streams == 0:
            self._report_end()

    def _report_end(self) -> None:
        status = self._status or 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
        short = shortage.shortage(self._kills_before, self.run.folder) if code or number else ""
        self._end(protocol.Exit(self.id, code=code, signal=number, left=int(self.left), short=short))

    def _end(self, message: protocol.Exit) -> None:
        if self._exit is not None:
            return
        self._exit = message
        now = self._loop.now()
        began = self._started or now
        message.waited_s, message.ran_s = round(began - self._arrived, 6), round(now - began, 6)
        self._report_stdin()
        self.close()
        self.server.attempt_ended(self, message)

    # -- what it calls itself -----------------------------------------------------------------------

    @property
    def hungry(self) -> bool:
        """May its make have use for another token?"""
        return self.tokens is not None and self.tokens.hungry

    def children_changed(self) -> None:
        """Lend the slots of recipes that wait for jobs elsewhere. One recipe can wait for several jobs, so
        never more than the make has recipes.
        """
        recipes = self.slots + (self.tokens.held if self.tokens is not None else 0)
        credit = min(sum(asked.placed for asked in self.asked), recipes)
        if credit == self._credit:
            return
        before, self._credit = self._credit, credit
        for _ in range(before - credit):
            self.server.reclaim_slot()
        for _ in range(credit - before):
            self.server.lend_slot()
        if self._exit is None:
            self.server.send(protocol.Credited(self.id, credit))

    def is_foreign(self, pair: tuple[int, int] | None, fifo: bytes | None) -> bool:
        """Is a jobserver, given as its descriptors or its fifo, another one than that of this attempt?"""
        channel = self._channel
        if pair is not None:
            ours = (channel.make_read, channel.make_write) if isinstance(channel, TokenPipes) else ()
            return not ours or not all(map(os.path.sameopenfile, pair, ours))
        return fifo is not None and not (isinstance(channel, TokenFifo) and os.fsencode(channel.path) == fifo)

    # -- streams ------------------------------------------------------------------------------------

    def credit(self, number: int, amount: int) -> None:
        for stream, pipe in self._streams:
            if stream == number:
                pipe.credit(amount)

    def resume(self) -> None:
        """The connection takes output again."""
        for _, pipe in self._streams:
            pipe.resume()

    def stream_closed(self, number: int) -> None:
        """Nobody reads this output there, or there is no more standard input."""
        if number == STDIN:
            self._stdin_eof = True
            self._feed()
            return
        for stream, pipe in self._streams:
            if stream == number:
                pipe.close()

    def stdin(self, data: bytes) -> None:
        self._stdin_queue += data
        self._feed()

    def _feed(self) -> None:
        if self._stdin_write is None:
            return
        while self._stdin_queue:
            try:
                sent = os.write(self._stdin_write, self._stdin_queue)
            except BlockingIOError:
                break
            except OSError:
                self._close_stdin()
                return
            del self._stdin_queue[:sent]
            self._stdin_pending += sent
            self._loop.call_later(self._stdin_poll_s, self._watch_stdin)
        if not self._stdin_queue and self._stdin_eof:
            os.close(self._stdin_write)
            self._stdin_write = None

    def _unread_stdin(self) -> int:
        if self._stdin_read is None:
            return 0
        return unread(self._stdin_read)

    def _report_stdin(self) -> int:
        """Tell the coordinator what was read since; returns how much that is."""
        if self._stdin_read is None:
            return 0
        used = self._stdin_pending - self._unread_stdin()
        if used:
            self._stdin_pending -= used
            self.server.send(protocol.StdinUsed(self.id, used))
        return used

    def _watch_stdin(self) -> None:
        if self._stdin_read is None or self._exit is not None:
            return
        self._stdin_poll_s = (
            _STDIN_POLL_S if self._report_stdin() else min(2 * self._stdin_poll_s, _STDIN_POLL_MOST_S)
        )
        if self._stdin_pending:
            self._loop.call_later(self._stdin_poll_s, self._watch_stdin)
        self._feed()

    def _close_stdin(self) -> None:
        for fd in (self._stdin_read, self._stdin_write):
            if fd is not None:
                os.close(fd)
        self._stdin_read = self._stdin_write = None

    # -- end ----------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """What a terminal or make would send. One that waits for a slot ends of what would have ended it."""
        if self.supervisor is not None:
            self.command(supervisor.TO_GROUP, number)
        elif number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            self._end(protocol.Exit(self.id, signal=number))

    def terminate(self) -> None:
        """SIGTERM to the make and its recipes, stopped ones as well."""
        self.command(supervisor.TO_GROUP, signal.SIGTERM)
        self.command(supervisor.TO_GROUP, signal.SIGCONT)

    def command(self, verb: bytes, value: int = 0) -> None:
        if self.supervisor is not None:
            self.supervisor.command(verb, value)

    def close(self) -> None:
        """Give back descriptors and slots."""
        for _ in range(self._credit):
            self.server.reclaim_slot()
        self._credit = 0
        if self.tokens is not None:
            self.tokens.close()
        elif self._channel is not None:
            self._channel.close()
        self.tokens = self._channel = None
        for _, pipe in self._streams:
            pipe.close()
        self._streams.clear()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
        self._close_stdin()
        for _ in range(self.slots):
            self.server.give_slot()
        self.slots = 0
