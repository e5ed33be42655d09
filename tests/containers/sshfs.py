"""A tree that the first host exports and the others mount by sshfs(1).

Attributes and names are cached, so that changes are seen late, as on NFS; NFS's own semantics are not proved.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path

from tests.containers.access import HOST_KEY
from tests.containers.errors import ContainerError
from tests.support import sshclient

CACHE_S = 5
"""How late a change may be seen; NFS's acregmin is 3, its acregmax 60: nfs(5)."""

MOUNT_TIMEOUT_S = 30.0
"""Until a tree is there; a guess."""

PODMAN_ARGUMENTS = ("--device=/dev/fuse", "--cap-add=SYS_ADMIN")
"""What a host needs to mount by FUSE."""

_FOLDER = "etc/d1fleet-tests"
_UNIT = "d1fleet-tests-sshfs.service"


def export(key: Path, root: Path) -> None:
    """Let whoever has `key` (made if need be) log in to the host whose files are prepared in `root`."""
    if not key.exists():
        sshclient.make_key(key)
    with (root / "root/.ssh/authorized_keys").open("a") as keys:
        keys.write(key.with_suffix(".pub").read_text())


def mount(path: str, key: Path, root: Path, server: str, server_root: Path) -> None:
    """Let the host prepared in `root` mount `path` from the host with the address `server` at every start."""
    folder = root / _FOLDER
    folder.mkdir(mode=0o755)
    (folder / "sshfs_key").write_text(key.read_text())
    (folder / "sshfs_key").chmod(0o600)
    kind, public = (server_root / f"{HOST_KEY}.pub").read_text().split()[:2]
    (folder / "sshfs_known_hosts").write_text(f"{server} {kind} {public}\n")
    options = (
        f"IdentityFile=/{_FOLDER}/sshfs_key", f"UserKnownHostsFile=/{_FOLDER}/sshfs_known_hosts",
        "StrictHostKeyChecking=yes", "reconnect", "ServerAliveInterval=5", "allow_other",
        f"attr_timeout={CACHE_S}", f"entry_timeout={CACHE_S}", f"dcache_timeout={CACHE_S}",
    )  # fmt: skip
    command = ["/usr/bin/sshfs", "-f", "-o", ",".join(options), f"root@{server}:{path}", path]
    units = root / "etc/systemd/system"
    (units / "multi-user.target.wants").mkdir(parents=True)
    for made in (units.parent, units, units / "multi-user.target.wants"):
        made.chmod(0o755)
    (units / _UNIT).write_text(
        "[Unit]\nAfter=network.target\n"
        "[Service]\n"
        f"ExecStartPre=/bin/mkdir -p {shlex.quote(path)}\n"
        f"ExecStart={shlex.join(command)}\n"
        # The first host may not answer yet.
        "Restart=always\nRestartSec=1\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    (units / "multi-user.target.wants" / _UNIT).symlink_to(f"../{_UNIT}")


def wait_for_mount(path: str, pid: int, name: str) -> None:
    """Return when `path` is mounted in the host with the init process `pid`.

    Raises:
        ContainerError: it is not in time.
    """
    deadline = time.monotonic() + MOUNT_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/mounts").read_text().splitlines()
            if any(line.split()[1:3] == [path, "fuse.sshfs"] for line in lines):
                return
        time.sleep(0.1)
    raise ContainerError(f"{name}: {path} is not mounted by sshfs after {MOUNT_TIMEOUT_S} s")
