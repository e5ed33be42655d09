"""What a build may do: the part of the settings that the coordinator goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .machines import COST
from .rules import KEEP_LOCAL, NOT_REPEATABLE


@dataclass(frozen=True)
class Policy:
    """Rules of one build."""

    build: str
    """Its name on the wire: random, new each time."""
    project: str = ""
    """Of the inventory; empty where hosts were named without one."""
    lease_s: float = 10.0
    grace_s: float = 6.0
    heartbeat_s: float = 2.0
    strict: bool = False
    """Never run a sub-make here because no host can take it."""
    makeargs: Sequence[str] = ()
    """Further arguments for each sub-make on a host."""
    setup: str = ""
    """For hosts that have none of their own."""
    fence: str = ""
    """As of a host, for those that have none of their own."""
    trees: Sequence[bytes] = ()
    """Further folders that hosts share, beside the build's own."""
    proofs: str = ""
    """File that keeps the names of the files by which hosts prove their trees; empty keeps none."""
    method: str = COST.name
    """How hosts are chosen: a name in METHODS."""
    trust_hosts: bool = False
    """What a job on a host asks for may run on this machine too."""
    keep_local: Sequence[str] = KEEP_LOCAL
    """Rules about sub-makes that stay where they are called; the last ones are the strongest."""
    not_repeatable: Sequence[str] = NOT_REPEATABLE
    """Rules about sub-makes that must not be done twice."""
    local_slots: int = 1
    """Recipes at once on this machine."""
