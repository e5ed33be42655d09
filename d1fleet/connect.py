"""Connects to a build's hosts, some at a time, in threads: the loop goes on, and the first host gets
work at once.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Sequence

from .errors import ConnectError, D1fleetError, HostError, UsageError
from .hostlink import HostLink
from .loop import Loop
from .model import TRANSPORTS, Host
from .transport import launcher, local, openssh, sshconfig
from .transport.base import Channel

AT_ONCE = 16
"""Connections being made at once: sshd's MaxStartups lets 10 unauthenticated ones through for sure, on
each host.
"""


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

    def __call__(self, host: Host) -> Channel:
        if host.transport == "local":
            return local.connect(launcher.local_argv(host.python or sys.executable))
        if host.transport not in TRANSPORTS:
            raise UsageError(f"unknown transport {host.transport}", f"use {', '.join(TRANSPORTS)}")
        command = launcher.start_command(host.python)
        target = sshconfig.resolve(host, config_file=self._ssh_config, extra=self._ssh_options)
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


def start(loop: Loop, links: Sequence[HostLink], connect: Callable[[Host], Channel]) -> None:
    """Connect to all hosts in the background; links are told in the loop's thread."""
    waiting: queue.SimpleQueue[HostLink] = queue.SimpleQueue()
    for link in links:
        waiting.put(link)

    def work() -> None:
        while True:
            try:
                link = waiting.get_nowait()
            except queue.Empty:
                return
            _connect_one(loop, link, connect)

    for number in range(min(AT_ONCE, len(links))):
        threading.Thread(target=work, name=f"connect-{number}", daemon=True).start()


def _connect_one(loop: Loop, link: HostLink, connect: Callable[[Host], Channel]) -> None:
    try:
        channel = connect(link.host)
    except D1fleetError as error:
        failure = error
    except (
        Exception
    ) as error:  # a fault of ours in a thread would otherwise leave the host connecting for ever
        failure = ConnectError(f"connecting failed: {type(error).__name__}: {error}")
    else:
        loop.post(lambda: link.connected(channel))
        return
    loop.post(lambda: link.fail(failure))
