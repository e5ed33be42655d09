"""Connects to a build's hosts, some at a time, in threads: the loop goes on, and the first host gets
work at once.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Sequence

from .errors import ConnectError, D1fleetError, UsageError
from .hostlink import HostLink
from .loop import Loop
from .model import Host
from .transport import launcher, local
from .transport.base import Channel

AT_ONCE = 16
"""Connections being made at once: sshd's MaxStartups lets 10 unauthenticated ones through for sure, on
each host.
"""


def connector(
    ssh_config: str | None, ssh_options: Sequence[str], timeout_s: float
) -> Callable[[Host], Channel]:
    """The function that connects to a host by its transport."""

    def connect(host: Host) -> Channel:
        if host.transport == "local":
            return local.connect(launcher.local_argv(host.python or sys.executable))
        if host.transport != "ssh":
            raise UsageError(f"unknown transport {host.transport}", "use ssh or local")
        # Here, not above: a build without SSH does not pay for the import.
        # paramiko can do without invoke, which would bring asyncio, unittest and yaml along: half of the time
        # of the whole import, and 7 MB. (None in sys.modules: it cannot be imported.)
        sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
        from .transport import ssh, sshconfig

        target = sshconfig.resolve(host, config_file=ssh_config, extra=ssh_options)
        return ssh.connect(target, launcher.start_command(host.python), timeout_s=timeout_s)

    return connect


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
