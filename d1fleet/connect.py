"""Connects to a build's hosts, some at a time, in threads: the loop goes on, and the first host gets
work at once. Hosts that are gone are looked at in the same way.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from .errors import D1fleetError, HostError, UsageError
from .hostlink import HostLink
from .loop import Loop
from .model import TRANSPORTS, Host
from .transport import launcher, local, openssh, sshconfig
from .transport.base import Channel

AT_ONCE = 16
"""Connections being made at once: sshd's MaxStartups lets 10 unauthenticated ones through for sure, on
each host.
"""

AGAIN_AT_ONCE = 64
"""Looks at hosts that are gone, at once: they mostly wait for an answer that does not come, and a hundred
hosts behind a switch that is off shall not wait for each other. A guess.
"""

LOOK_LIMIT_S = 2.0
"""For the answer to a look: time for a second SYN, a second after the first."""

_TARGET_KEPT_S = 60.0
"""What ssh's configuration says of a host is asked again after this time: somebody may have mended it."""


class Connector:
    """Connects to a host by its transport; call it.

    Args:
        ssh_config: a file, as `ssh -F`; None for the user's own.
        ssh_options: further options of ssh.
        timeout_s: for one login.
    """

    def __init__(self, ssh_config: str | None, ssh_options: Sequence[str], timeout_s: float) -> None:
        self._ssh_config = ssh_config
        self._ssh_options = ssh_options
        self._timeout_s = timeout_s
        self._clients = openssh.Clients()
        self._targets: dict[Host, tuple[float, sshconfig.SshTarget]] = {}
        """What was found out of hosts, and when."""

    def answers(self, host: Host) -> bool:
        """Does anything listen there? True where that cannot be told without a login, as behind a jump host.

        It costs the host one connection without a word: no process here, no login there.
        """
        if host.transport == "local":
            return True
        try:
            target = self._target(host)
        except D1fleetError:
            return True  # to connect says why
        if target.proxy or any(each.startswith("Bind") for each in target.only_openssh):
            return True  # the way there is not ours to go
        with contextlib.suppress(OSError, UnicodeError):
            for family, kind, protocol, _, address in socket.getaddrinfo(
                target.hostname, target.port, target.address_family, socket.SOCK_STREAM
            ):
                with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as sock:
                    sock.settimeout(LOOK_LIMIT_S)
                    sock.connect(address)
                    return True
        return False

    def _target(self, host: Host) -> sshconfig.SshTarget:
        known_at, target = self._targets.get(host, (0.0, None))
        if target is None or time.monotonic() - known_at > _TARGET_KEPT_S:
            target = sshconfig.resolve(host, config_file=self._ssh_config, extra=self._ssh_options)
            self._targets[host] = (time.monotonic(), target)
        return target

    def __call__(self, host: Host) -> Channel:
        if host.transport == "local":
            return local.connect(launcher.local_argv(host.python or sys.executable))
        if host.transport not in TRANSPORTS:
            raise UsageError(f"unknown transport {host.transport}", f"use {', '.join(TRANSPORTS)}")
        command = launcher.start_command(host.python)
        self._targets.pop(host, None)
        target = self._target(host)
        if host.transport == "openssh":
            return self._by_openssh(target, command, "as it is set")
        return self._by_what_fits(target, command)

    def _by_openssh(self, target: sshconfig.SshTarget, command: str, reason: str) -> Channel:
        return openssh.connect(
            target, command, timeout_s=self._timeout_s, reason=reason, clients=self._clients
        )

    def _by_what_fits(self, target: sshconfig.SshTarget, command: str) -> Channel:
        """By paramiko, where that follows all that is said; else by OpenSSH's client."""
        if target.only_openssh:
            return self._by_openssh(target, command, ", ".join(target.only_openssh))
        known = sshconfig.KnownHosts(target)
        if known.by_authority:
            return self._by_openssh(target, command, f"known_hosts has an authority for {known.name}")
        # Here, not above: a build without it does not pay for the import.
        # paramiko can do without invoke, which would bring asyncio, unittest and yaml along: half of the time
        # of the whole import, and 7 MB. (None in sys.modules: it cannot be imported.)
        sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
        from .transport import ssh

        lacking = ssh.lacking(target)
        if lacking:
            return self._by_openssh(target, command, ", ".join(lacking))
        try:
            return ssh.connect(target, command, timeout_s=self._timeout_s, known=known)
        except HostError as error:
            reason = ssh.openssh_may(target, error)
            if not reason:
                raise
        return self._by_openssh(target, command, reason)

    def close(self) -> None:
        """End what would outlive the build: logins under way, and clients whose hosts do not answer."""
        self._clients.close()


class Logins:
    """Logs in to hosts in threads; who asked is told in the loop's thread.

    Args:
        connect: makes a connection, as `Connector`.
        answers: as `Connector.answers`.
    """

    def __init__(
        self, loop: Loop, connect: Callable[[Host], Channel], answers: Callable[[Host], bool]
    ) -> None:
        self._loop = loop
        self._connect = connect
        self._answers = answers
        self._first = _Threads("connect", AT_ONCE)
        self._again = _Threads("again", AGAIN_AT_ONCE)

    def start(self, link: HostLink) -> None:
        """Connect a link for the first time."""
        self.begin(link.host, link.connected, link.fail)

    def begin(
        self, host: Host, arrived: Callable[[Channel], None], failed: Callable[[D1fleetError], None]
    ) -> None:
        """Connect to a host for the first time: one of the two is called."""
        self._first.do(lambda: self._try(host, arrived, failed))

    def again(
        self,
        host: Host,
        arrived: Callable[[Channel], None],
        failed: Callable[[D1fleetError], None],
        absent: Callable[[], None],
    ) -> None:
        """Try a host that was gone: one of the three is called."""

        self._again.do(lambda: self._try(host, arrived, failed, absent))

    def _try(
        self,
        host: Host,
        arrived: Callable[[Channel], None],
        failed: Callable[[D1fleetError], None],
        absent: Callable[[], None] | None = None,
    ) -> None:
        """Connect, if anything listens there where `absent` is given."""
        try:
            if absent is not None and not self._answers(host):
                self._loop.post(absent)
                return
            channel = self._connect(host)
        except D1fleetError as error:
            failure = error
        except Exception as error:  # a fault of ours must not leave the host connecting for ever
            failure = D1fleetError(f"connecting failed: {type(error).__name__}: {error}")
        else:
            self._loop.post(lambda: arrived(channel))
            return
        self._loop.post(lambda: failed(failure))


class _Threads:
    """Runs what it is given in threads that end when there is nothing to do."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0

    def do(self, work: Callable[[], None]) -> None:
        """Run `work` soon."""
        with self._lock:
            self._waiting.append(work)
            if self._running >= self._most:
                return
            self._running += 1
            number = self._running
        threading.Thread(target=self._serve, name=f"{self._name}-{number}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                work = self._waiting.popleft()
            work()
