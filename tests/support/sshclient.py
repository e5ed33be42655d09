"""What clients of test servers share: keys, and a configuration that knows nothing of the user's own."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_key(path: Path) -> None:
    """Make a key pair without a passphrase, unless there is one."""
    if not path.exists():
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "d1fleet-tests", "-f", str(path)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def for_all_hosts(user: str, key: Path, known_hosts: Path) -> str:
    """The end of an ssh_config(5): strict keys from one file, one identity, no question."""
    return (
        "Host *\n"
        f"    User {user}\n"
        f"    IdentityFile {key}\n"
        "    IdentitiesOnly yes\n"
        "    IdentityAgent none\n"
        f"    UserKnownHostsFile {known_hosts}\n"
        "    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n"
        "    UpdateHostKeys no\n"
        "    BatchMode yes\n"
        "    ControlMaster no\n"
        "    ControlPath none\n"
        "    LogLevel ERROR\n"
    )
