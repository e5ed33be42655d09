"""Which member of a project compiles on which other one, and when: no more at once than a server has slots.
Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .doctor_case import Case, Seen
from .hostsfile import Peer
from .server.toolchain import COMPILERS, NONE

PAIR_LIMIT_S = 10.0
"""For the compilations of one pair; distcc itself waits 4 s for a connection, and here 5 s for an answer."""

PHASE_LIMIT_S = 40.0
"""For all of them; what is left then is said not to be checked."""

CLIENT_AT_ONCE = 2

SIGN = "d1fleet-canary:"
"""Before each word of the shell that looks around on a server."""


@dataclass(frozen=True)
class Pair:
    """One member that sends, and the one that compiles, as the hosts file of the first has it."""

    client: str
    peer: Peer


def pairs(case: Case) -> Iterator[Pair]:
    """Each member with each other one that has told of itself, from the one behind it on."""
    known = {seen.name for seen in case.known}
    for seen in case.known:
        file = seen.hosts_file
        if file is not None and seen.facts and seen.facts.versions and seen.facts.versions.distcc:
            for peer in file.peers:
                if peer.name in known and peer.name != seen.name:
                    yield Pair(seen.name, peer)


def compilers(seen: Seen) -> list[str]:
    """What a member would send: those of every project, and the project's own that distcc has names for."""
    facts = seen.facts
    found = facts.toolchain if facts else None
    if found is None:
        return list(COMPILERS)
    names = [name for name in COMPILERS if found.parts.get(name, NONE) not in ("", NONE)]
    masquerade = seen.distcc.masquerade if seen.distcc else ()
    further = [tool.rpartition("/")[2] for tool in found.tools]
    return names + [name for name in further if name in masquerade and name not in names]


class Plan:
    """Deals out pairs: a server has no more clients at once than slots, and one that let somebody wait until
    the time was over is asked no more.
    """

    def __init__(self, every: list[Pair]) -> None:
        self._waiting = list(every)
        self._servers: Counter[str] = Counter()
        self._clients: Counter[str] = Counter()
        self.given_up: list[Pair] = []

    @property
    def done(self) -> bool:
        """Has every pair ended?"""
        return not self._waiting and not any(self._clients.values())

    def start(self) -> list[Pair]:
        """The pairs that begin now."""
        begun = []
        for pair in list(self._waiting):
            if (
                self._clients[pair.client] < CLIENT_AT_ONCE
                and self._servers[pair.peer.name] < pair.peer.slots
            ):
                self._waiting.remove(pair)
                self._clients[pair.client] += 1
                self._servers[pair.peer.name] += 1
                begun.append(pair)
        return begun

    def ended(self, pair: Pair, *, too_late: bool) -> None:
        """A pair has ended."""
        self._clients[pair.client] -= 1
        self._servers[pair.peer.name] -= 1
        if too_late:
            self._give_up(lambda each: each.peer.name == pair.peer.name)

    def stop(self) -> None:
        """Begin no more."""
        self._give_up(lambda each: True)

    def _give_up(self, which: Callable[[Pair], bool]) -> None:
        self.given_up += [each for each in self._waiting if which(each)]
        self._waiting = [each for each in self._waiting if not which(each)]
