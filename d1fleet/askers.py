"""Who asks for a job: a shim on this machine, or a host on which a job has called make.

Both get the job's output, give its standard input, and get its answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from . import protocol
from .errors import ProtocolError
from .jobserver import JobserverClient, TokenPool, TokenSource
from .loop import Loop
from .makeflags import Flags
from .shims import EXIT, INFRASTRUCTURE, LOCAL, SIGNAL, ShimConnection, ShimRequest
from .shimstreams import ShimStreams
from .stopwatch import Stopwatch

if TYPE_CHECKING:
    from .hostlink import HostLink
    from .job import Job
    from .topmake import TopMake

Send = Callable[[protocol.Message], None]


class Asker(Protocol):
    """What a job needs of who asked for it."""

    host: str | None
    """Name of the host that asks; None for this machine."""

    def waits(self) -> None:
        """It is not run where it was asked for, or not at once."""

    def placed(self, attempt: int, stdin: bool, send: Send) -> None:
        """It runs on a host, which hears what `send` takes; `stdin` says that it reads standard input."""

    def unplaced(self) -> None:
        """That host has not started it: as if it had never been placed."""

    def output(self, message: protocol.Data) -> None:
        """Pass output of the job on."""

    def stdin_used(self, amount: int) -> None:
        """The job has read `amount` bytes more of its standard input."""

    def when_written(self, done: Callable[[], None]) -> None:
        """Call `done` when the answer may follow the output."""

    def discard_output(self) -> None:
        """Nobody shall wait any longer for its output to be taken."""

    def mute(self) -> None:
        """Nobody waits for its output any more."""

    @property
    def lost_output(self) -> int:
        """errno why output did not get where it should; 0 when it did."""

    @property
    def token_source(self) -> TokenSource | None:
        """Where further tokens come from; None where there is no jobserver."""

    def measure(self, over_s: float, done: Callable[[float], None]) -> None:
        """It is going to run where it was asked for. Call `done` with the seconds that it took, when they are
        more than `over_s`, or known at all.
        """

    def close(self) -> None:
        """Give everything back; always before the answer. Harmless the second time."""

    def answer(self, verb: bytes, value: int) -> None:
        """How it ends, in the shim's words (shims.py)."""


class ShimAsker:
    """A shim on this machine.

    Args:
        top: the build's own make, when the sub-make has its tokens from that one's jobserver.
        stopwatch: for what runs here.
    """

    host: str | None = None

    def __init__(
        self,
        loop: Loop,
        shim: ShimConnection,
        request: ShimRequest,
        flags: Flags,
        top: TopMake | None,
        stopwatch: Stopwatch,
    ) -> None:
        self._stopwatch = stopwatch
        self._shim = shim
        self._top = top
        self._loop = loop
        self._request = request
        self._flags = flags
        self._streams: ShimStreams | None = None
        self._token_source: TokenSource | None = None
        self._muted = False
        self._waits = False

    def waits(self) -> None:
        if self._top is not None:
            self._waits = True
            self._top.shim_waits()

    def placed(self, attempt: int, stdin: bool, send: Send) -> None:
        self._streams = ShimStreams(self._loop, self._request, self._flags, attempt, send)
        if self._muted:
            self._streams.mute()
        if stdin:
            self._streams.start()

    def unplaced(self) -> None:
        if self._streams is not None:
            self._streams.close()
            self._streams = None

    def output(self, message: protocol.Data) -> None:
        if self._streams is not None:
            self._streams.output(message)

    def stdin_used(self, amount: int) -> None:
        if self._streams is not None:
            self._streams.stdin_used(amount)

    def when_written(self, done: Callable[[], None]) -> None:
        if self._streams is None:
            done()
        else:
            self._streams.when_written(done)

    def discard_output(self) -> None:
        if self._streams is not None:
            self._streams.discard()

    def mute(self) -> None:
        self._muted = True
        if self._streams is not None:
            self._streams.mute()

    @property
    def lost_output(self) -> int:
        return self._streams.failed if self._streams is not None else 0

    @property
    def token_source(self) -> TokenSource | None:
        if self._token_source is None and self._top is not None:
            self._token_source = self._top.pool
        if self._token_source is None:
            try:
                if self._request.jobserver is not None:
                    self._token_source = JobserverClient.of_pipe(self._loop, *self._request.jobserver)
                elif self._flags.fifo is not None:
                    path = os.fsdecode(self._flags.fifo)
                    self._token_source = JobserverClient(self._loop, path, path)
                elif self._flags.jobs == 0:
                    self._token_source = TokenPool(None)
            except OSError:
                return None
        return self._token_source

    def measure(self, over_s: float, done: Callable[[float], None]) -> None:
        self._stopwatch.start(self._shim.pid, lambda ran_s: done(ran_s) if ran_s > over_s else None)

    def close(self) -> None:
        if self._streams is not None:
            self._streams.close()
        if self._token_source is not None:
            self._token_source.close()
            self._token_source = None
        self._request.close()

    def answer(self, verb: bytes, value: int) -> None:
        if self._top is not None and self._waits:
            self._top.shim_goes_on()
        self._top = None
        self._shim.reply(verb, value)


class HostAsker:
    """A host on which a job has called make: what it says is passed on to the host that runs it, and back.

    Args:
        number: of the host's request.
        parent: the job that it came from.
    """

    def __init__(self, link: HostLink, number: int, parent: Job) -> None:
        self.link = link
        self.number = number
        self.parent = parent
        self.host: str | None = link.host.name
        self._attempt = 0
        self._send: Send | None = None
        self._ahead: dict[int, int] = {}
        """Bytes of each output stream that the host has not taken yet, and of input that the job has not."""
        self._source: TokenSource | None = None
        self._tell_over_s = 0.0
        self.sees = 0
        """What the host has to see before the job runs there after all."""

    def waits(self) -> None:
        pass  # its own server knows

    def placed(self, attempt: int, stdin: bool, send: Send) -> None:
        self._attempt, self._send = attempt, send
        self.link.send(protocol.Placed(self.number))

    def unplaced(self) -> None:
        self._send = None

    def heard(self, message: protocol.Message) -> None:
        """The host says something about the streams."""
        if not isinstance(message, (protocol.Data, protocol.Close, protocol.Credit)):
            raise ProtocolError(f"{type(message).__name__} about what it asked for")
        if self._send is None:
            return
        message.attempt = self._attempt
        if isinstance(message, protocol.Data):
            ahead = self._ahead.get(protocol.STDIN, 0) + len(message.data)
            if ahead > protocol.STDIN_AHEAD:
                raise ProtocolError(f"{ahead} bytes of standard input that the job has not taken")
            self._ahead[protocol.STDIN] = ahead
        elif isinstance(message, protocol.Credit):
            ahead = self._ahead.get(message.stream, 0)
            if message.amount > ahead:
                raise ProtocolError(f"Credit for {message.amount} bytes, {ahead} were sent")
            self._ahead[message.stream] = ahead - message.amount
        self._send(message)

    def output(self, message: protocol.Data) -> None:
        ahead = self._ahead.get(message.stream, 0) + len(message.data)
        if ahead > protocol.STREAM_CREDIT:
            raise ProtocolError(f"{ahead} bytes of output came without credit")
        self._ahead[message.stream] = ahead
        self.link.send(protocol.Data(self.number, message.stream, message.group_end, message.data))

    def stdin_used(self, amount: int) -> None:
        ahead = self._ahead.get(protocol.STDIN, 0)
        amount = min(amount, ahead)
        self._ahead[protocol.STDIN] = ahead - amount
        self.link.send(protocol.StdinUsed(self.number, amount))

    def when_written(self, done: Callable[[], None]) -> None:
        done()  # the host answers its shim when it has written all

    def discard_output(self) -> None:
        pass

    def mute(self) -> None:
        pass

    @property
    def lost_output(self) -> int:
        return 0

    @property
    def token_source(self) -> TokenSource | None:
        if self._source is None:
            self._source = self.parent.token_source  # kept: the parent may end first
        return self._source

    def measure(self, over_s: float, done: Callable[[float], None]) -> None:
        self._tell_over_s = over_s
        self.link.stayed(self.number, done)

    def close(self) -> None:
        self._send = None

    def answer(self, verb: bytes, value: int) -> None:
        if verb == LOCAL:
            self.link.send(protocol.Stay(self.number, tell_over_s=self._tell_over_s, sees=self.sees))
        elif verb == EXIT:
            self.link.send(protocol.Exit(self.number, code=value))
        elif verb == SIGNAL:
            self.link.send(protocol.Exit(self.number, signal=value))
        elif verb == INFRASTRUCTURE:
            self.link.send(protocol.Exit(self.number, infrastructure=protocol.LOST))
