"""What is in an image of a test host, as data. A change here makes another image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

RELEASES = ("bookworm", "trixie")
VARIANTS = ("bare", "build", "packages")

_BARE = (
    "ca-certificates", "dbus", "iproute2", "iptables", "nftables", "openssh-server", "procps", "python3",
    "python3-apt", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
"""A small Debian server: what Ansible needs, and packet filters to make faults with."""

_BUILD = (
    "bison", "flex", "g++", "gcc", "gettext", "libblkid-dev", "libc6-dev", "libinih-dev", "liburcu-dev",
    "m4", "make", "pkg-config", "uuid-dev", "sshfs",
)  # fmt: skip
"""A C toolchain, what e2fsprogs and xfsprogs need to build, and sshfs for shared trees."""

_PACKAGES = ("cmake",)
"""What the recipes of further packages call: too big for hosts of every test."""

# dpkg leaves out what no test reads.
_DPKG = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)

# No timer may start work of its own on a host that is being measured.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "fstrim.timer", "getty@tty1.service", "systemd-timesyncd.service",
)  # fmt: skip

_HOOKS = (
    # Every host gets a key of its own before it starts.
    'rm -f "$1"/etc/ssh/ssh_host_*',
    'install -d -m 700 "$1"/root/.ssh',
    f'chroot "$1" systemctl --quiet mask {" ".join(_MASKED)}',
    # `apt-get update` takes half the time.
    """printf 'Acquire::Languages "none";\\n' > "$1"/etc/apt/apt.conf.d/90-no-translations""",
    # podman takes a host's own from its container id.
    ': > "$1"/etc/machine-id',
)


@dataclass(frozen=True)
class Recipe:
    """How mmdebstrap makes one image.

    Attributes:
        mirror: URI of the Debian archive; it stays in the image, and is where its apt-get installs from.
    """

    release: str
    variant: str
    mirror: str
    packages: Sequence[str]
    dpkg: Sequence[str] = _DPKG
    hooks: Sequence[str] = _HOOKS

    @property
    def key(self) -> str:
        """A digest of all of it."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        return f"{self.release}-{self.variant}-{self.key}"

    def argv(self, target: str) -> list[str]:
        """The command that writes the image's file system as a tar to `target`: mmdebstrap(1)."""
        return [
            "mmdebstrap",
            "--quiet",
            "--format=tar",
            "--variant=minbase",
            f"--include={','.join(self.packages)}",
            '--aptopt=APT::Install-Recommends "false"',
            *(f"--dpkgopt={option}" for option in self.dpkg),
            *(f"--customize-hook={hook}" for hook in self.hooks),
            # apt-get install must work without an update first.
            "--skip=cleanup/apt/lists",
            self.release,
            target,
            f"deb {self.mirror} {self.release} main",
        ]


def recipe(release: str, variant: str, mirror: str) -> Recipe:
    """The recipe of a release's image.

    Raises:
        ValueError: no such release or variant.
    """
    if release not in RELEASES or variant not in VARIANTS:
        raise ValueError(f"no image {release} {variant}; there are {RELEASES} and {VARIANTS}")
    packages = {"bare": _BARE, "build": (*_BARE, *_BUILD), "packages": (*_BARE, *_BUILD, *_PACKAGES)}
    return Recipe(release, variant, mirror, packages[variant])
