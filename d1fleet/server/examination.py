"""Answers a doctor's questions about this host: each in a process of its own, with a time limit.

A file system that hangs, or a compiler, holds up that process and nothing else. Nothing is changed here, but
files of our own that are gone with the answer. The last two are no doctor's, but `d1fleet chaos`'s.

    clock    nothing: what counts is when the answer comes
    facts    `probe.facts`
    tree     `probe.fresh`
    canary   `canary.compile_there`
    log      `probe_distcc.log`
    strike   `strike.strike`
    heal     `strike.heal`
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import Any, Callable

from .. import protocol
from ..errors import D1fleetError
from ..loop import Loop
from ..stream import FdStream
from . import canary, facts, probe, probe_distcc, process, strike
from .environment import HostEnvironment

AT_ONCE = 8
"""Processes that look; a doctor has fewer questions under way."""

_LATE_S = 1.0
"""What looks has its own limits, and says what it knows; so much later it is killed."""

_FOUND, _FAILED = b"+", b"-"
"""First byte of the line that a process which looks says."""

_QUESTIONS: dict[str, Callable[[dict[str, Any], dict[str, str], float], dict[str, Any]]] = {
    "facts": probe.facts,
    "tree": probe.fresh,
    "canary": canary.compile_there,
    "log": probe_distcc.log,
    "strike": strike.strike,
    "heal": strike.heal,
}


class Examiner:
    """Has questions answered.

    Args:
        send: to the doctor.
    """

    def __init__(self, loop: Loop, send: Callable[[protocol.Message], None]) -> None:
        self._loop = loop
        self._send = send
        self._looking: set[int] = set()

    def handle(self, question: protocol.Examine) -> None:
        """Answer a question, at once or by and by."""
        if question.question == "clock":
            self._send(protocol.Examined(number=question.number, at_s=time.time()))
        elif question.question not in _QUESTIONS:
            self._fail(question, "this server does not know that question")
        elif len(self._looking) >= AT_ONCE:
            self._fail(question, f"{AT_ONCE} questions are being looked at")
        else:
            self._look(question)

    def _fail(self, question: protocol.Examine, why: str) -> None:
        self._send(protocol.Examined(number=question.number, at_s=time.time(), failure=facts.plain(why)))

    def _look(self, question: protocol.Examine) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _child(question, write)
        os.close(write)
        self._looking.add(pid)
        said = bytearray()

        def end(why: str = "") -> None:
            # A line, not the end of the pipe: what hangs in the kernel keeps that open after its death.
            if pid not in self._looking:
                return
            self._looking.discard(pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            stream.close()
            self._loop.call_later(0.2, lambda: process.reap(pid))
            verb, answer = bytes(said[:1]), bytes(said[1:-1])
            if why or verb != _FOUND:
                self._fail(question, why or answer.decode("utf-8", "replace"))
            else:
                self._send(protocol.Examined(number=question.number, at_s=time.time(), answer=answer))

        def received(data: bytes) -> None:
            said.extend(data)
            if len(said) > protocol.MOST_EXAMINED:
                end("what was found is too long to tell")
            elif said.endswith(b"\n"):
                end()

        stream = FdStream(
            self._loop, read, os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), received,
            lambda: end("what looked has ended without a word"),
        )  # fmt: skip
        limit_s = question.limit_s + _LATE_S
        self._loop.call_later(limit_s, lambda: end(f"nothing was found out within {limit_s:.0f} s"))


def _child(question: protocol.Examine, write: int) -> None:
    """Look, say what was found in one line, and end."""
    said = _FAILED
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # The connection, above all: it would not end before us.
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != write:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        said = _FOUND + json.dumps(_answer(question)).encode()
    except D1fleetError as error:
        said = _FAILED + error.message.encode("utf-8", "replace")
    except BaseException as error:  # whatever it is, the parent must not run twice
        said = _FAILED + f"{type(error).__name__}: {error}".encode("utf-8", "replace")
    with contextlib.suppress(OSError), open(write, "wb") as file:
        file.write(said.replace(b"\n", b" ") + b"\n")
    os._exit(0)


def _answer(question: protocol.Examine) -> dict[str, Any]:
    given = json.loads(question.given or b"{}")
    if not isinstance(given, dict):
        raise ValueError("what is given is no object")
    composed = HostEnvironment(question.setup, question.environment).compose(question.environment)
    environ = {os.fsdecode(name): os.fsdecode(value) for name, value in composed.items()}
    return _QUESTIONS[question.question](given, environ, question.limit_s)
