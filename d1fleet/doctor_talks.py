"""A doctor's talks with the hosts of a fleet: all at once, in one loop, with a limit on everything."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from . import doctor_facts, protocol, words
from .errors import D1fleetError, HostError, ProtocolError, UnfitError
from .loop import Loop
from .model import Host
from .transport import pipes
from .transport.base import Channel
from .transport.launcher import Launch

START_LIMIT_S = 15.0
"""From the login until the server speaks; it may have to be sent there first."""

_LATE_S = 3.0
"""A server has its own limit for an answer; so much later the host is given up."""

_LEAVE_S = 1.0
"""For servers on this machine to end."""

T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """A host's clock, less ours; right to within `within_s`."""

    offset_s: float
    within_s: float


class Talk:
    """The talk with one host.

    Attributes:
        error: why there is none, or no more; None while all is well.
        transport: what carries it; empty before there is a connection.
    """

    def __init__(self, loop: Loop, host: Host, environment: bytes, setup: str) -> None:
        self.host = host
        self.error: D1fleetError | None = None
        self.transport = ""
        self.ready = False
        self._loop = loop
        self._environment = environment
        self._setup = setup
        self._channel: Channel | None = None
        self._launch = Launch()
        self._decoder = protocol.Decoder("server")
        self._number = 0
        self._waiting: dict[int, Callable[[protocol.Examined | D1fleetError], None]] = {}
        self.on_ready: Callable[[], None] = lambda: None
        """Called once, when it can be asked."""
        self.on_failed: Callable[[], None] = lambda: None

    def connected(self, channel: Channel) -> None:
        """The login went well: have the server started."""
        if self.error is not None:
            channel.close()
            return
        self._channel, self.transport = channel, channel.transport
        channel.start(self._loop, self._received, self._ended)
        self._loop.call_later(START_LIMIT_S, self._start_limit)

    def _start_limit(self) -> None:
        if not self.ready:
            self.fail(self._launch.failure(f"it did not start within {START_LIMIT_S:.0f} s"))

    def fail(self, error: D1fleetError) -> None:
        """The talk is over; whoever waits for an answer is told why."""
        if self.error is None:
            self.error = error
        self.close()
        waiting, self._waiting = self._waiting, {}
        for done in waiting.values():
            done(self.error)
        self.on_failed()

    def close(self) -> None:
        """Hang up."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            channel.close()

    def ask(
        self, question: str, kind: type[T], given: Mapping[str, Any], limit_s: float,
        done: Callable[[T | D1fleetError], None],
    ) -> None:  # fmt: skip
        """Ask; `done` is called once, with an answer that has been checked, or with what was wrong."""

        def answered(answer: protocol.Examined | D1fleetError) -> None:
            if isinstance(answer, D1fleetError):
                done(answer)
            elif answer.failure:
                done(HostError(f"it cannot tell ({question}): {words.plain(answer.failure)}"))
            else:
                try:
                    found = doctor_facts.read(kind, answer.answer)
                except ProtocolError as error:
                    done(ProtocolError(words.plain(error.message), _OTHER))
                else:
                    done(found)

        self._send(question, given, limit_s, answered)

    def ask_clock(self, done: Callable[[Clock | D1fleetError], None]) -> None:
        """How far its clock is from ours: by one question and its answer."""
        sent_at, began_s = time.time(), self._loop.now()

        def answered(answer: protocol.Examined | D1fleetError) -> None:
            if isinstance(answer, D1fleetError):
                done(answer)
            else:
                took_s = self._loop.now() - began_s
                done(Clock(answer.at_s - (sent_at + took_s / 2), took_s / 2))

        self._send("clock", {}, 5.0, answered)

    def _send(
        self, question: str, given: Mapping[str, Any], limit_s: float,
        answered: Callable[[protocol.Examined | D1fleetError], None],
    ) -> None:  # fmt: skip
        if self._channel is None or self.error is not None:
            error = self.error or HostError("it is not connected")
            self._loop.post(lambda: answered(error))
            return
        self._number += 1
        number = self._number
        self._waiting[number] = answered
        self._channel.send(
            protocol.encode(
                protocol.Examine(
                    number=number,
                    question=question,
                    limit_s=limit_s,
                    setup=self._setup,
                    given=json.dumps(given).encode(),
                    environment=self._environment,
                )
            )
        )
        self._loop.call_later(limit_s + _LATE_S, lambda: self._too_late(number, question, limit_s))

    def _too_late(self, number: int, question: str, limit_s: float) -> None:
        if number in self._waiting:
            self.fail(
                HostError(
                    f"no answer within {limit_s + _LATE_S:.0f} s ({question})",
                    "see whether it is up, and what it is busy with",
                )
            )

    def _received(self, data: bytes) -> None:
        try:
            if not self._launch.ready:
                data = self._launch_talk(data)
            for message in self._decoder.feed(data):
                self._heard(message)
        except D1fleetError as error:
            if isinstance(error, ProtocolError):
                text = words.plain(error.message)
                error = ProtocolError(f"its server sent what the protocol does not allow: {text}", _OTHER)
            self.fail(error)

    def _launch_talk(self, data: bytes) -> bytes:
        """Start the server there; returns what came behind the talk, or nothing yet."""
        reply = self._launch.feed(data)
        if reply and self._channel is not None:
            self._channel.send(reply)
        if self._launch.ready and not self.ready:
            self.ready = True
            self._loop.post(self.on_ready)
        return self._launch.rest

    def _heard(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Unfit):
            raise UnfitError(words.plain(message.reason), words.plain(message.mend))
        if not isinstance(message, protocol.Examined) or message.number not in self._waiting:
            raise ProtocolError(f"{type(message).__name__} that nobody has asked for")
        self._waiting.pop(message.number)(message)

    def _ended(self) -> None:
        diagnosis = self._channel.diagnosis() if self._channel is not None else ""
        if self.ready:
            self.fail(
                HostError(f"the connection ended ({diagnosis or 'no reason given'})", "see whether it is up")
            )
        else:
            self.fail(self._launch.failure(diagnosis))


_OTHER = "see that nobody has changed the server there: install it again by site.yml (role d1make_server)"


def wait(loop: Loop, done: Callable[[], bool], limit_s: float) -> bool:
    """Serve the loop until something is done; False when the time was over before."""
    end = loop.now() + limit_s
    while not done():
        if loop.now() > end:
            return False
        loop.run_once(min(0.5, max(0.0, end - loop.now())))
    return True


def let_go(loop: Loop) -> None:
    """Wait a moment for servers on this machine, so that none is left behind."""
    wait(loop, lambda: not pipes.started_pids, _LEAVE_S)
