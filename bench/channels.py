"""`python -m bench.channels SSH_CONFIG HOST...`: seconds until all hosts have an authenticated channel.

The same way as a build connects, with a command that costs nothing: a hundred servers of ours, which in
earnest start on a hundred machines, would start on this one.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from d1fleet import connect
from d1fleet.errors import D1fleetError
from d1fleet.loop import Loop
from d1fleet.model import Host
from d1fleet.transport import ssh, sshconfig
from d1fleet.transport.base import Channel


@dataclass
class _Link:
    """What `connect.Logins` tells; stands in for `HostLink`."""

    host: Host
    found: list[Channel] = field(default_factory=list)

    def connected(self, channel: Channel) -> None:
        self.found.append(channel)

    def fail(self, error: D1fleetError) -> None:
        raise error


def main(config: str, *names: str) -> int:
    """Connect, print the seconds, let go."""
    links = [_Link(Host(name)) for name in names]
    loop = Loop()
    began = time.monotonic()

    def open_channel(host: Host) -> Channel:
        target = sshconfig.resolve(host, config_file=config, extra=())
        return ssh.connect(target, "exec cat", timeout_s=60)

    logins = connect.Logins(loop, open_channel, lambda host: True)
    for link in links:
        logins.start(link)  # type: ignore[arg-type]
    while not all(link.found for link in links):
        loop.run_once(1.0)
    print(time.monotonic() - began)
    for link in links:
        for channel in link.found:
            channel.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
