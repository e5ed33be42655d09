"""The coordinator's end of one host: from connecting to its last word."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import protocol, words
from .errors import D1fleetError, HostError, ProtocolError, UnfitError
from .loop import Loop
from .model import Host
from .transport.base import Channel
from .transport.launcher import Launch

if TYPE_CHECKING:
    from .placement import HostState


class State(enum.Enum):
    """How far a host has come."""

    CONNECTING = "connecting"
    STARTING = "starting"
    UP = "up"
    FAILED = "failed"
    """It never took part."""
    LOST = "lost"
    """It took part, and the connection or its word ended."""
    ENDED = "ended"


START_LIMIT_S = 45.0
"""Time from the login to the server's hello: its setup may take 30 s of that."""


_MOST_UNREAD = 4 << 20
"""Bytes of answers: some 200,000 of them."""

_MOST_STAYED = 1000
"""Sub-makes that stayed there, of which it is still open how long they run: then the oldest are forgotten."""

_MOST_TOLD = 5000
"""Sub-makes that stayed there whose run times are believed, for each connection: one that means ill could
fill the history with them.
"""

_BEATS_AHEAD = 100
"""A connection that was held up brings several beats at once: as many as a lease has, and some."""


class HostLink:
    """One host of a build.

    Args:
        welcome: what the server is told first.
        admit: looks at its hello; raises a D1fleetError when it cannot take part for what it is.
        on_up: the server runs, has said hello, and was admitted.
        on_message: each further message.
        on_failed: it cannot take part, with the error.
        on_lost: it took part and is gone, with the error.
    """

    def __init__(
        self,
        loop: Loop,
        host: Host,
        welcome: protocol.Welcome,
        admit: Callable[[HostLink], None],
        on_up: Callable[[HostLink], None],
        on_message: Callable[[HostLink, protocol.Message], None],
        on_failed: Callable[[HostLink], None],
        on_lost: Callable[[HostLink], None],
    ) -> None:
        self.host = host
        self.state = State.CONNECTING
        self.error: D1fleetError | None = None
        self.hello: protocol.Hello | None = None
        self.placement: HostState | None = None
        self.last_heard = 0.0
        self._granted_at = 0.0
        """When it was last told that it may go on."""
        self._at_work: set[int] = set()
        """Attempts that it was given and has not told the end of."""
        self._stayed: dict[int, tuple[float, Callable[[float], None]]] = {}
        """Since when something stays there, and who wants to know for how long; by the request's number."""
        self._told = 0
        self._left_behind = False
        """Something that an attempt started goes on there."""
        self.load: protocol.Beat | None = None
        self._beats = 0
        self._up_at = 0.0
        self._unread = 0
        """Bytes of answers since all that was sent had gone out."""
        self.gone: protocol.Gone | None = None
        self._loop = loop
        self._welcome = welcome
        self._admit = admit
        self._on_up, self._on_message, self._on_failed, self._on_lost = on_up, on_message, on_failed, on_lost
        self.transport = ""
        """What carries the connection; empty before there is one."""
        self.transport_reason = ""
        """Why it is not the usual one."""
        self._channel: Channel | None = None
        self._launch = Launch()
        self._decoder = protocol.Decoder("server")

    @property
    def open(self) -> bool:
        """Is there a connection, or one on its way?"""
        return self.state in (State.CONNECTING, State.STARTING, State.UP)

    def connected(self, channel: Channel) -> None:
        """The login went well: start to talk."""
        if self.state is not State.CONNECTING:
            channel.close()
            return
        self.state = State.STARTING
        self._channel = channel
        self.transport, self.transport_reason = channel.transport, channel.reason
        channel.start(self._loop, self._received, self._ended)
        self._loop.call_later(START_LIMIT_S, self._start_limit)

    def fail(self, error: D1fleetError) -> None:
        """It cannot take part."""
        if not self.open:
            return
        was_up = self.state is State.UP
        self.state = State.LOST if was_up else State.FAILED
        self.error = error
        self.disconnect()
        (self._on_lost if was_up else self._on_failed)(self)

    def send(self, message: protocol.Message) -> None:
        if self._channel is not None:
            if isinstance(message, protocol.Run):
                self._at_work.add(message.attempt)
            frame = protocol.encode(message)
            if isinstance(message, _ANSWERS):
                self._unread = len(frame) + (self._unread if self._channel.backlog else 0)
            self._channel.send(frame)

    def stayed(self, number: int, done: Callable[[float], None]) -> None:
        """Call `done` with the seconds that what stays there takes, if the host tells."""
        self._stayed[number] = (self._loop.now(), done)
        if len(self._stayed) > _MOST_STAYED:
            del self._stayed[next(iter(self._stayed))]

    @property
    def at_work(self) -> bool:
        """Has it attempts that it has not told the end of?"""
        return bool(self._at_work)

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent to it."""
        return self._channel.backlog if self._channel is not None else 0

    def runs_until(self, now: float, grace_s: float) -> float:
        """When all that it was given has ended for certain (seconds of the loop); `now` if it has by now.

        A server counts its lease from its own request, which came before our grant. `grace_s` is for what
        a host needs to die.
        """
        if self.state is not State.LOST or not (self._at_work or self._left_behind):
            return now
        return max(now, self._granted_at + self._welcome.lease_s + grace_s)

    def confirm(self) -> bool:
        """All that it was given has ended, as is known from elsewhere; True when that is news."""
        news = self.state is State.LOST and (bool(self._at_work) or self._left_behind)
        if news:
            self._at_work.clear()
            self._left_behind = False
        return news

    def check_silence(self, now: float, limit_s: float) -> None:
        """Give the host up when it has said nothing for `limit_s` seconds."""
        if self.state is State.UP and now - self.last_heard > limit_s:
            self.fail(
                HostError(
                    f"no word from it for {now - self.last_heard:.0f} s", "see whether it is up and reachable"
                )
            )

    def _start_limit(self) -> None:
        if self.state is State.STARTING:
            self.fail(self._launch.failure(f"no hello within {START_LIMIT_S:.0f} s"))

    def _received(self, data: bytes) -> None:
        self.last_heard = self._loop.now()
        try:
            if not self._launch.ready:
                data = self._launch_talk(data)
            for message in self._decoder.feed(data):
                self._handle(message)
                if not self.open:
                    return
                if self._unread > _MOST_UNREAD:
                    raise ProtocolError("it asks, and does not read the answers")
        except D1fleetError as error:
            if isinstance(error, ProtocolError):
                text = words.plain(str(error))
                error = ProtocolError(f"its server sent what the protocol does not allow: {text}")
            self.fail(error)

    def _launch_talk(self, data: bytes) -> bytes:
        """Start the server there; returns what came behind the talk: the first frames, or nothing yet."""
        reply = self._launch.feed(data)
        if reply and self._channel is not None:
            self._channel.send(reply)
        if self._launch.ready:
            self.send(self._welcome)
        return self._launch.rest

    def _handle(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Hello):
            if self.hello is not None:
                raise ProtocolError("a second Hello")
            if message.version != protocol.VERSION:
                raise UnfitError(f"its server speaks protocol {message.version}, we speak {protocol.VERSION}")
            self.hello = message
            self._admit(self)
            self.state = State.UP
            self._granted_at = self._up_at = self._loop.now()  # its first lease began with our welcome
            self._on_up(self)
        elif isinstance(message, protocol.Unfit):
            raise UnfitError(words.plain(message.reason), words.plain(message.mend))
        elif self.hello is None:
            raise ProtocolError(f"{type(message).__name__} before Hello")
        elif not _may_say(message):
            raise ProtocolError(f"{type(message).__name__} for a stream that is not the server's")
        elif isinstance(message, protocol.Gone):
            self.gone = message
            self.state = State.ENDED
            self.disconnect()
            self._on_message(self, message)
        else:
            if isinstance(message, protocol.Beat):
                self.load = message
                self._granted_at = self._loop.now()
                self._beats += 1
                due = (self._granted_at - self._up_at) / self._welcome.heartbeat_s
                if self._beats > due + _BEATS_AHEAD:
                    raise ProtocolError("more Beats than it was asked for")
                self.send(protocol.Grant(seq=message.seq))
            elif isinstance(message, protocol.Stayed):
                self._heard_run_time(message)
                return
            elif isinstance(message, protocol.Exit):
                if message.infrastructure != protocol.FENCED:
                    self._at_work.discard(message.attempt)
                self._left_behind = self._left_behind or bool(message.left)
            self._on_message(self, message)

    def _heard_run_time(self, message: protocol.Stayed) -> None:
        since, done = self._stayed.pop(message.attempt, (0.0, None))
        self._told += 1
        if done is not None and self._told <= _MOST_TOLD:
            done(min(message.ran_s, self._loop.now() - since))

    def _ended(self) -> None:
        if self.state is State.ENDED or not self.open:
            return
        diagnosis = self._channel.diagnosis() if self._channel is not None else ""
        if self.state is State.UP:
            self.fail(
                HostError(f"the connection ended ({diagnosis or 'no reason given'})", "see whether it is up")
            )
        else:
            self.fail(self._launch.failure(diagnosis))

    def disconnect(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            channel.close()


_ANSWERS = (protocol.Grant, protocol.Stay, protocol.Exit)


def _may_say(message: protocol.Message) -> bool:
    """Of an attempt a server writes the output; of what it asked for it gives the input."""
    asked = bool(message.attempt & 1)
    if isinstance(message, protocol.Data):
        return (message.stream == protocol.STDIN) == asked
    if isinstance(message, protocol.Credit):
        return (message.stream != protocol.STDIN) == asked
    if isinstance(message, protocol.Close):
        return asked or message.stream == protocol.STDIN
    return True
