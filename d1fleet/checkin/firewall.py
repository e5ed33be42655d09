"""Who may connect to distccd: two sets of the packet filter's table, which role distcc has made."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Iterable

from ..errors import ToolError
from .values import Address

TABLE = "inet d1fleet_distcc"
SETS = {4: "members4", 6: "members6"}
LIMIT_S = 30.0

NO_TABLE = f"the packet filter has no table {TABLE}: nobody but this host can use its compile server"
"""No fault where there is no compile server."""

_ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def additions(members: Iterable[Address]) -> str:
    """Commands that add these to the sets, IPv4 first; made of addresses alone."""
    lines = []
    for version, name in SETS.items():
        numbers = sorted({int(each) for each in members if each.version == version})
        kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        if numbers:
            elements = ", ".join(str(kind(number)) for number in numbers)
            lines.append(f"add element {TABLE} {name} {{ {elements} }}\n")
    return "".join(lines)


class Firewall:
    """The packet filter of this host.

    Args:
        nft: the program.
    """

    def __init__(self, nft: str) -> None:
        self._nft = nft

    def admit(self, members: Iterable[Address]) -> bool:
        """Let exactly these in, in one transaction; returns whether others were let in before.

        Raises:
            ToolError: there is no nft, or no such table, or it cannot be changed.
        """
        wanted = list(members)
        if self.members() == set(wanted):
            return False
        flushes = "".join(f"flush set {TABLE} {name}\n" for name in SETS.values())
        self._run(["-f", "-"], flushes + additions(wanted))
        return True

    def members(self) -> set[Address] | None:
        """Who is let in now; None where nft does not say it so that it can be read.

        Raises:
            ToolError: there is no nft, or no such table.
        """
        found: set[Address] = set()
        for name in SETS.values():
            said = self._run(["-j", "list", "set", *TABLE.split(), name])
            try:
                (listed,) = (each["set"] for each in json.loads(said)["nftables"] if "set" in each)
                found.update(map(ipaddress.ip_address, listed.get("elem", [])))
            except (ValueError, KeyError, TypeError, AttributeError):
                return None
        return found

    def _run(self, arguments: list[str], text: str = "") -> str:
        try:
            done = subprocess.run(
                [self._nft, *arguments],
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                env=_ENVIRON,
                check=False,
                timeout=LIMIT_S,
            )
        except OSError as error:
            raise ToolError(
                f"{self._nft} cannot be run: {error.strerror}", "apt-get install nftables"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"{self._nft} does not end within {LIMIT_S:g} s") from error
        if done.returncode:
            said = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[0]
            if "No such file or directory" in said:
                raise ToolError(NO_TABLE, "systemctl start d1fleet-distcc-guard")
            raise ToolError(
                f"nft cannot look after table {TABLE}: {said}", "systemctl restart d1fleet-distcc-guard"
            )
        return done.stdout
