"""`d1fleet drain`: tells the server of one host that builds shall give it no more work, or may again."""

from __future__ import annotations

import difflib
import getpass
import os
from collections.abc import Callable

from . import protocol, words
from .errors import D1fleetError, HostError, ProtocolError, UnfitError, UnknownProjectError
from .fleet import Fleet
from .loop import Loop
from .model import Host
from .transport import pipes
from .transport.base import Channel
from .transport.launcher import Launch

ANSWER_LIMIT_S = 45.0
"""From the login to the answer: the server may have to be sent there first."""

_LEAVE_S = 2.0
"""For a server on this machine to end."""


def host_of(fleet: Fleet, name: str) -> Host:
    """The host of that name.

    Raises:
        UnknownProjectError: the fleet has none.
    """
    names = [host.name for host in fleet.hosts]
    if name not in names:
        where = f"project {fleet.project}" if fleet.project else "the fleet"
        near = difflib.get_close_matches(name, names, 1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UnknownProjectError(f"{where} has no host {name}", f"{meant}its hosts: {', '.join(names)}")
    return fleet.hosts[names.index(name)]


def drain(host: Host, connect: Callable[[Host], Channel], reason: str, undo: bool = False) -> protocol.Drain:
    """Drain a host, or take that back; returns how things are there then.

    Args:
        reason: for people; who asked is said before it.

    Raises:
        HostError: it cannot be reached, or does not answer; or all of its marks cannot be taken back.
        ProtocolError: it answers what makes no sense.
    """
    said = f"drained by {_who()}{f': {reason}' if reason else ''}"
    answer = _Talk(protocol.Drain(on=not undo, reason="" if undo else said)).hold(connect(host))
    answer.reason = words.plain(answer.reason)
    if undo and answer.on:
        whom = " for everybody" if answer.everybody else ""
        raise HostError(
            f"host {host.name} is still drained{whom}: {answer.reason}",
            "ask who did it; root there takes it back by `rm /run/d1fleet/drain/drained`",
        )
    return answer


def _who() -> str:
    try:
        return f"{getpass.getuser()} on {os.uname().nodename}"
    except (OSError, KeyError):
        return f"uid {os.getuid()} on {os.uname().nodename}"


class _Talk:
    """One question to a host's server, and its answer."""

    def __init__(self, question: protocol.Drain) -> None:
        self._question = question
        self._answers: list[protocol.Drain | D1fleetError] = []
        self._launch = Launch()
        self._decoder = protocol.Decoder("server")

    def hold(self, channel: Channel) -> protocol.Drain:
        """Ask, and wait for the answer."""
        loop = Loop()
        try:
            channel.start(loop, lambda data: self._received(channel, data), lambda: self._ended(channel))
            late = self._launch.failure(f"no answer within {ANSWER_LIMIT_S:.0f} s")
            loop.call_later(ANSWER_LIMIT_S, lambda: self._answers.append(late))
            while not self._answers:
                loop.run_once(1.0)
            channel.close()
            leave = loop.now() + _LEAVE_S
            while pipes.started_pids and loop.now() < leave:
                loop.run_once(0.05)
        finally:
            loop.close()
        answer = self._answers[0]
        if isinstance(answer, D1fleetError):
            raise answer
        return answer

    def _received(self, channel: Channel, data: bytes) -> None:
        try:
            if not self._launch.ready:
                data = self._launch_talk(channel, data)
            for message in self._decoder.feed(data):
                self._heard(message)
        except D1fleetError as error:
            self._answers.append(error)

    def _launch_talk(self, channel: Channel, data: bytes) -> bytes:
        """Start the server there, and ask; returns what came behind the talk, or nothing yet."""
        reply = self._launch.feed(data)
        if reply:
            channel.send(reply)
        if self._launch.ready:
            channel.send(protocol.encode(self._question))
        return self._launch.rest

    def _heard(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Drain):
            self._answers.append(message)
        elif isinstance(message, protocol.Unfit):
            self._answers.append(UnfitError(words.plain(message.reason), words.plain(message.mend)))
        else:
            self._answers.append(
                ProtocolError(f"the host answered {type(message).__name__} instead of Drain")
            )

    def _ended(self, channel: Channel) -> None:
        self._answers.append(self._launch.failure(channel.diagnosis()))
