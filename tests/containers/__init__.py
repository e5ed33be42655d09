"""Test hosts: containers that run systemd and sshd, on a network of their own, to be treated badly.

    with ContainerHosts("name", count=3) as hosts:
        subprocess.run(hosts.ssh("h1", "true"), check=True)
        hosts[0].kill()

The same from a shell: `python -m tests.containers up NAME`, `down NAME`, `list`. Needs root and podman.
"""

from tests.containers.errors import ContainerError, ImageUnavailable
from tests.containers.fleet import ContainerHosts
from tests.containers.host import Host
from tests.containers.missing import missing_reason
from tests.containers.settings import Settings

__all__ = ["ContainerError", "ContainerHosts", "Host", "ImageUnavailable", "Settings", "missing_reason"]
