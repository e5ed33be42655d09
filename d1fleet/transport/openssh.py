"""A login by OpenSSH's own client: it does all that ssh's configuration can say.

The child's stdin and stdout are the channel; what it says on stderr is read by openssherrors.py. It asks
nobody anything: no terminal, no askpass program, BatchMode. Host keys are checked strictly, whatever the
configuration says.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

from .. import sshargs
from ..errors import ConnectError, HostError, LoginError
from . import openssherrors, pipes
from .sshconfig import SshTarget
from .sshterms import (
    ALIVE_INTERVAL_S,
    DROP_RETRIES,
    FIRST_RETRY_S,
    KEYS_ALLOWED,
    Deadline,
    Stage,
    hangs_up,
    refused,
)

END_S = 0.5
"""Between the end of its stdin and a SIGTERM: the last bytes leave, the command ends, and ssh with it."""

TERM_S = 0.3
"""Between that and SIGKILL."""

_OWN_FAILURE = 255
"""ssh's exit status for errors of its own; others are the command's."""

_FORCED = (
    ("BatchMode", "yes"),
    ("StrictHostKeyChecking", "yes"),
    ("NoHostAuthenticationForLocalhost", "no"),
    ("ControlMaster", "no"),
    ("ControlPath", "none"),
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
    ("ClearAllForwardings", "yes"),
    ("Tunnel", "no"),
    ("PermitLocalCommand", "no"),
    ("RequestTTY", "no"),
    ("RemoteCommand", "none"),
    ("EscapeChar", "none"),
    ("UpdateHostKeys", "no"),
    ("AddKeysToAgent", "no"),
    # So that a refusal by the peer is said at all, and the end of the login.
    ("LogLevel", "VERBOSE"),
)
"""What no configuration may change: nothing but one command runs, and nobody is asked."""

_FORCED_IF_KNOWN = (
    ("SessionType", "default"),
    ("StdinNull", "no"),
    ("ForkAfterAuthentication", "no"),
)
"""The same for keywords of OpenSSH 8.7 and newer; an older one takes them for errors."""


def argv(target: SshTarget, command: str, *, timeout_s: float) -> list[str]:
    """The call of ssh. It takes the first value of each option: what must not be overruled comes first."""
    forced = [*_FORCED, *(each for each in _FORCED_IF_KNOWN if each[0].lower() in target.keywords)]
    limit_s = min(timeout_s, target.connect_timeout_s or timeout_s)
    forced += [
        ("ConnectTimeout", str(max(1, math.ceil(limit_s)))),
        ("ServerAliveInterval", str(target.alive_interval_s or ALIVE_INTERVAL_S)),
    ]
    settings = [word for name, value in forced for word in ("-o", f"{name}={value}")]
    # The name a second time would be a word of the command.
    return ["ssh", "-T", *settings, *sshargs.quiet(target.options), "--", target.destination, command]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """ssh's environment: its words are to be English, and nobody is to be asked.

    Not LC_ALL=C: by SendEnv, which Debian sets, that would travel to the host.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name not in ("LANG", "LANGUAGE") and not name.startswith("LC_")
    }
    return {**kept, "SSH_ASKPASS_REQUIRE": "never"}


class Clients:
    """The ssh processes of one build: none outlives it, whatever its host does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = threading.Event()

    def start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start one.

        Raises:
            ConnectError: the build is over.
            ToolError: there is no ssh.
        """
        with self._lock:
            if self._closed.is_set():
                raise over()
            process = pipes.start(words, environment(os.environ))
            self._running = {each for each in self._running if each.returncode is None} | {process}
        return process

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the build is over: then true."""
        return self._closed.wait(seconds)

    def close(self) -> None:
        """End all that run still, and let none start any more."""
        with self._lock:
            self._closed.set()
            running, self._running = self._running, set()
        deadline = Deadline(END_S)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(deadline.left_s)
        left = [process for process in running if process.poll() is None]
        _end(left)


def over() -> ConnectError:
    """The error for a login that nobody waits for any more."""
    return ConnectError("still connecting when the build ended")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End them for certain, with what they have started: proxies are of their groups."""
    deadline = Deadline(TERM_S)
    # Of those that were waited for, the number may be somebody else's by now.
    ours = [process for process in processes if process.returncode is None]
    for process in ours:
        if not _is_over(process, 0.0):
            _signal(process, signal.SIGTERM)
    for process in ours:
        _is_over(process, deadline.left_s)
        _kill_group(process)
    for process in processes:
        pipes.started_pids.discard(process.pid)


def _is_over(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Has it ended, now or within `limit_s`? It is not waited for, so that its number stays its own.

    A login that is cut short is ended by two threads: what one has waited for is over for the other.
    """
    if process.returncode is not None:
        return True
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(limit_s * 1000))
    finally:
        os.close(pidfd)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill it and what it has left, a stubborn proxy for example; then wait for it, which is no wait."""
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.returncode is None:  # else its number may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


class OpenSshChannel(pipes.PipeChannel):
    """A command on a host by OpenSSH's client: `base.Channel`."""

    transport = "openssh"

    def __init__(self, process: subprocess.Popen[bytes], stderr: pipes.StderrTail, reason: str) -> None:
        super().__init__(process, stderr)
        self.reason = reason

    def _words(self) -> str:
        return openssherrors.of_interest(super()._words())

    def _leave(self) -> None:
        if self._loop is None:
            _end([self._process])  # nobody has spoken to it yet
        elif not self._ended():
            self._loop.call_later(END_S, self._terminate)

    def _terminate(self) -> None:
        if not self._ended() and self._loop is not None:
            _signal(self._process, signal.SIGTERM)
            self._loop.call_later(TERM_S, self._kill)

    def _kill(self) -> None:
        # Nothing that it could do holds up a SIGKILL, so that this wait is none.
        _end([self._process])


def connect(
    target: SshTarget, command: str, *, timeout_s: float, reason: str = "", clients: Clients | None = None
) -> OpenSshChannel:
    """Log in and start `command`; blocks until it has written a byte, at most about `timeout_s`.

    Args:
        reason: why this client, for people; it stands in every error.
        clients: where the processes of the build are known.

    Raises:
        ConnectError: the host cannot be reached, or does not speak SSH.
        HostKeyError: its key is not known, has changed or is revoked.
        LoginError: it refuses us.
        ServerStartError: it starts no command.
        ToolError: there is no ssh on this machine.
    """
    try:
        return _connect(target, command, Deadline(timeout_s), reason, clients or Clients())
    except HostError as error:
        why = f" (OpenSSH's client was used: {reason})" if reason else ""
        raise type(error)(f"{error.message}{why}", error.mend) from error


def _connect(
    target: SshTarget, command: str, deadline: Deadline, reason: str, clients: Clients
) -> OpenSshChannel:
    pause_s = FIRST_RETRY_S
    for tries_left in range(DROP_RETRIES, -1, -1):
        process = clients.start(argv(target, command, timeout_s=deadline.left_s))
        channel = OpenSshChannel(process, stderr := pipes.StderrTail(), reason)
        try:
            in_time = _wait_for_command(process, stderr, deadline)
            if in_time and process.returncode != _OWN_FAILURE and not (process.returncode or 0) < 0:
                return channel
            if clients.wait(0):
                raise over()
            said = stderr.text()
            if not in_time:
                stage = Stage.START if openssherrors.logged_in(said) else Stage.CONNECT
                raise openssherrors.too_late(target, stage, said)
            if not openssherrors.dropped(said):
                raise _explained(target, said, process.returncode)
            if not tries_left:
                raise hangs_up(target)
        except BaseException:
            channel.close()
            raise
        channel.close()
        if clients.wait(min(pause_s * random.uniform(0.5, 1.5), deadline.left_s)):
            raise over()
        pause_s *= 2
    raise AssertionError("the last try raises")


def _wait_for_command(process: subprocess.Popen[bytes], stderr: pipes.StderrTail, deadline: Deadline) -> bool:
    """Wait until the command has written (that stays unread), or ssh has ended; false: it took too long."""
    assert process.stdout and process.stderr
    out, err = process.stdout.fileno(), process.stderr.fileno()
    poll = select.poll()
    poll.register(out, select.POLLIN)
    poll.register(err, select.POLLIN)
    while True:
        events = dict(poll.poll(deadline.left_s * 1000))
        if events.get(err) and not _read(err, stderr):
            poll.unregister(err)
        if events.get(out, 0) & select.POLLIN:
            return True
        if events.get(out):
            break
        if not events and deadline.left_s == 0.0:
            return False
    # Stdout has ended: so has ssh, mostly. Where it has not, the command has closed its own.
    if _is_over(process, min(END_S, deadline.left_s)):
        _kill_group(process)
    while _read(err, stderr):
        pass
    return True


def _read(fd: int, stderr: pipes.StderrTail) -> bool:
    """Take what is there; false when nothing is."""
    try:
        data = os.read(fd, 64 << 10)
    except BlockingIOError:
        return False
    stderr.feed(data)
    return bool(data)


def _explained(target: SshTarget, said: str, status: int) -> HostError:
    methods = openssherrors.refused_methods(target, said)
    if methods is None:
        return openssherrors.explain(target, said, status)
    if "publickey" not in methods.split(","):
        begin = Stage.LOGIN.value.format(place=target.place)
        return LoginError(f"{begin}: it takes no keys ({methods})", KEYS_ALLOWED)
    # Here, not above: only now paramiko is needed, which tells what was the matter with each key.
    from .sshkeys import diagnose

    tried, locked, unusable = diagnose(target)
    error = refused(target, tried, locked, unusable)
    return LoginError(f"{error.message}; it takes {methods}", error.mend)
