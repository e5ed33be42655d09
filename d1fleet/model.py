"""What the inventory and the settings say, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_NICE = 10

TRANSPORTS = ("ssh", "openssh", "local")

MISMATCHES = ("exclude", "fail", "ignore")
"""What to do with a host whose toolchain is not its project's; a build only knows `exclude` and `ignore`."""


@dataclass(frozen=True)
class Host:
    """One inventory host: a name, a way to reach it, and what it may be asked to do.

    `None` means that nobody said anything: ssh's configuration, or the host itself, decides.
    """

    name: str
    """What people call it; ssh's configuration is looked up by `address`, or by this name."""
    address: str | None = None
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    ssh_args: tuple[str, ...] = ()
    """Further options of ssh(1) that say how to connect."""
    python: str | None = None
    """Interpreter on the host; None tries python3."""
    transport: str = "ssh"
    """One of TRANSPORTS: paramiko, or OpenSSH's client where that is needed; OpenSSH's client; pipes on this
    machine.
    """
    slots: int | None = None
    """Recipes at once on that machine; None asks the host (its usable CPUs)."""
    max_jobs: int | None = None
    """Sub-makes of ours at once there; None means as many as it has slots."""
    nice: int = DEFAULT_NICE
    setup: str = ""
    """Shell text put directly before the command whose environment is kept."""
    fence: str = ""
    """Command of the site that makes sure that nothing runs there any more (fence.py)."""
    makeargs: tuple[str, ...] = ()
    """Further arguments for each sub-make there."""
    trees: tuple[str, ...] = ()
    """Further folders, beside the build's own, that this host shares with the coordinator."""
    toolchain_mismatch: str = MISMATCHES[0]
    """One of MISMATCHES; `fail` is a playbook's, for a build it is `exclude`."""
