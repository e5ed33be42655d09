"""A sub-make that a job on this host has called: the coordinator says where it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import protocol
from ..errors import JobLostError
from ..makeflags import Flags
from ..shims import EXIT, INFRASTRUCTURE, LOCAL, SIGNAL, ShimConnection, ShimRequest
from ..shimstreams import ShimStreams

if TYPE_CHECKING:
    from .attempt import Attempt
    from .door import Door

_WRITE_ERROR = 2
"""What make exits with when it cannot write its output."""


class Asked:
    """One request of a shim on this host, from the question to the answer.

    Args:
        number: odd, new for each request.
        attempt: the job that it came from.
        flags: the MAKEFLAGS that it came with.
    """

    def __init__(
        self,
        door: Door,
        number: int,
        attempt: Attempt,
        shim: ShimConnection,
        request: ShimRequest,
        flags: Flags,
    ) -> None:
        self.number = number
        self.attempt = attempt
        self.placed = False
        """It is a job of its own, here or elsewhere: the recipe that waits for it is idle."""
        self._door = door
        self._shim = shim
        self._request = request
        self._flags = flags
        self._streams: ShimStreams | None = None
        self._stdin = False
        self._over = False
        attempt.asked.add(self)
        self._told = False
        """Has the coordinator heard of it?"""
        shim.on_signal = self._signal
        shim.on_gone = self._gone

    def ask(self, environment: bytes) -> None:
        """Put the question, with the environment as other hosts may have it."""
        message = self._request.ask()
        self._stdin = message.stdin
        message.attempt, message.parent = self.number, self.attempt.id
        message.environment = environment
        message.hungry = self.attempt.hungry
        self._door.view.tell_before(lambda: self._tell(message))

    def _tell(self, message: protocol.Ask) -> None:
        if not self._over:  # its shim may have been killed meanwhile
            self._told = True
            self._door.send(message)

    def _signal(self, number: int) -> None:
        if self._told:
            self._door.send(protocol.Signal(self.number, number))
        else:
            self._end(SIGNAL, number)

    def handle(self, message: protocol.Message) -> None:
        """What the coordinator says about it."""
        if isinstance(message, protocol.Stay):
            self._door.view.when_seen(lambda: self._stay(message), message.sees)
        elif isinstance(message, protocol.Placed) and not self.placed:
            self._start()
        elif isinstance(message, protocol.Exit):
            self._exit(message)
        elif self._streams is None:
            return
        elif isinstance(message, protocol.Data):
            self._streams.output(message)
        elif isinstance(message, protocol.StdinUsed):
            self._streams.stdin_used(message.amount)

    def _stay(self, message: protocol.Stay) -> None:
        if self._over:
            return
        request = self._request
        outgoing = self._door.outgoing(request.environment)
        self.attempt.calls(request.folder, request.arguments, outgoing)
        self._measure(message.tell_over_s)
        self._end(LOCAL)

    def _measure(self, over_s: float) -> None:
        """Tell how long what stays runs, if that is more than `over_s`: the shim becomes that make."""
        door, number = self._door, self.number

        def tell(ran_s: float) -> None:
            if ran_s > over_s:
                door.send(protocol.Stayed(number, ran_s))

        if over_s > 0:
            door.stopwatch.start(self._shim.pid, tell)

    def _start(self) -> None:
        self.placed = True
        self._streams = ShimStreams(self._door.loop, self._request, self._flags, self.number, self._door.send)
        if self._stdin:
            self._streams.start()
        self.attempt.children_changed()

    def _exit(self, message: protocol.Exit) -> None:
        streams = self._streams
        if streams is None:
            self._answer(message)
        else:
            streams.when_written(lambda: self._answer(message))

    def _answer(self, message: protocol.Exit) -> None:
        """When this host sees what was made elsewhere: the make that waits looks at that next."""
        self._door.view.when_seen(lambda: self._give(message))

    def _give(self, message: protocol.Exit) -> None:
        if self._over:
            return
        failed = self._streams.failed if self._streams is not None else 0
        if message.infrastructure:
            self._end(INFRASTRUCTURE, JobLostError.exit_code)
        elif message.signal:
            self._end(SIGNAL, message.signal)
        elif failed and not message.code:
            self._door.complain(f"output cannot be written: {os.strerror(failed)}")
            self._end(EXIT, _WRITE_ERROR)
        else:
            self._end(EXIT, message.code)

    def _gone(self) -> None:
        """The shim was killed: nobody waits for the job any more."""
        self._door.send(protocol.Cancel(self.number))
        self.close()

    def _end(self, verb: bytes, value: int = 0) -> None:
        self.close()
        self._shim.reply(verb, value)
        if self.placed and self.attempt.tokens is not None:
            self.attempt.tokens.stirred()

    def close(self) -> None:
        """Give everything back; before the shim has its answer, for the make above waits for it."""
        self._over = True
        if self._streams is not None:
            self._streams.close()
        self._request.close()
        self._door.forget(self)
        self.attempt.asked.discard(self)
        if self.placed:
            self.attempt.children_changed()
