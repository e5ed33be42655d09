"""What this machine lacks for test hosts."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

TOOLS = {
    "podman": "podman",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""Programs and the Debian packages that they come in."""

_NEEDED_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""Networks and mounts: capabilities(7). Root in a container often has neither."""


def find_tool(name: str) -> str | None:
    """Where a program is; Debian keeps some outside an ordinary PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def missing_reason() -> str:
    """Why no test hosts can be made here, or "" when they can (an image may still be out of reach)."""
    if sys.platform != "linux":
        return "containers need Linux"
    if os.geteuid() != 0:
        return "containers with systemd need root"
    lacking = [name for name, bit in _NEEDED_CAPABILITIES.items() if not _effective_capabilities() >> bit & 1]
    if lacking:
        return f"this root has no {', '.join(lacking)}"
    missing = [name for name in TOOLS if not find_tool(name)]
    if missing:
        packages = ", ".join(sorted({TOOLS[name] for name in missing}))
        return f"no {', '.join(missing)} (packages {packages})"
    return ""


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
