"""What there is at this moment: projects, hosts, which are alive, and what each project is told. Pure.

Time is given, as monotonic seconds. A project's document is worked out only when something in it may have
changed, however many ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from .documents import Document, OldClient, document
from .model import Host, Project, Report, State

MISSED_BEATS = 2
"""So many, and a host is suspect."""


@dataclass(frozen=True)
class Timing:
    """How often hosts speak, and how soon they are given up.

    Attributes:
        beat_s: between two check-ins.
        jitter: part of beat_s by which each host varies it, so that not all come at once.
        gone_after_s: of silence, and peers do not get a host any more.
        old_clients_s: the same for clients of dyndistcc, which come every five minutes.
    """

    beat_s: float = 15.0
    jitter: float = 0.2
    gone_after_s: float = 40.0
    old_clients_s: float = 660.0

    @property
    def suspect_after_s(self) -> float:
        """Two beats, as late as jitter may make them."""
        return min(MISSED_BEATS * self.beat_s * (1 + self.jitter / 2), self.gone_after_s)


@dataclass
class Live:
    """What is known of a host at this moment, and not stored.

    Attributes:
        heard_s: when it was last heard of.
        session, sequence: of its last report.
        past: sessions before that one, with the highest sequence that was seen of each since.
        strays: reports that came from past sessions, or backwards, from elsewhere.
        source: the address that the last report came from.
    """

    heard_s: float
    session: str = ""
    sequence: int = 0
    past: dict[str, int] = field(default_factory=dict)
    strays: int = 0
    source: str = ""
    report: Report | None = None


class Pool:
    """All that is handed out, and what it is worked out from.

    Args:
        now_s: hosts that were alive when this was written count as heard of now: after a restart they have
            time to come.
    """

    def __init__(
        self, projects: Iterable[Project], hosts: Iterable[Host], timing: Timing, now_s: float
    ) -> None:
        self.timing = timing
        self.projects = {project.name: project for project in projects}
        self.hosts = {host.id: host for host in hosts}
        self.live = {identity: Live(now_s, session=host.session) for identity, host in self.hosts.items()}
        self.worked_out = 0
        """How many documents have been worked out so far."""
        self._names = {host.name: host.id for host in self.hosts.values()}
        self._members: dict[str, set[str]] = {}
        for host in self.hosts.values():
            self._enter(host)
        self._old: dict[tuple[str, str], OldClient] = {}
        self._documents: dict[str, Document] = {}

    # Questions

    def named(self, name: str) -> Host | None:
        identity = self._names.get(name)
        return self.hosts[identity] if identity else None

    def members(self, project: str) -> list[Host]:
        """All hosts of a project, in the order in which they joined."""
        found = [self.hosts[identity] for identity in self._members.get(project, ())]
        return sorted(found, key=lambda host: (host.joined_at, host.id))

    def old_clients(self, project: str) -> list[OldClient]:
        return [client for (name, _), client in sorted(self._old.items()) if name == project]

    def state(self, host: Host, now_s: float) -> State:
        if host.expunged:
            return State.EXPUNGED
        if host.cloned:
            return State.CLONED
        if host.left:
            return State.LEFT
        silent_s = now_s - self.live[host.id].heard_s
        if host.gone or silent_s >= self.timing.gone_after_s:
            return State.GONE
        if silent_s >= self.timing.suspect_after_s:
            return State.SUSPECT
        return State.DRAINED if host.drained else State.UP

    def document(self, project: str) -> Document:
        """What members of a project are told.

        Raises:
            KeyError: there is no such project.
        """
        known = self._documents.get(project)
        if known is None:
            hosts = [host for host in self.members(project) if not host.expunged and not host.cloned]
            alive = frozenset(host.id for host in hosts if not host.left and not host.gone)
            self.worked_out += 1
            known = document(self.projects[project], hosts, alive, self.old_clients(project))
            self._documents[project] = known
        return known

    # Changes: each returns the projects whose document may be another now

    def put_project(self, project: Project) -> set[str]:
        self.projects[project.name] = project
        return self._touched([project.name])

    def drop_project(self, name: str) -> set[str]:
        """Its hosts have to have left it before."""
        del self.projects[name]
        self._documents.pop(name, None)
        self._old = {key: client for key, client in self._old.items() if key[0] != name}
        return {name}

    def put_host(self, host: Host, now_s: float) -> set[str]:
        before = self.hosts.get(host.id)
        if before is not None and before.name != host.name:
            del self._names[before.name]
        if before is not None:
            self._forget(before)
        self._enter(host)
        self.hosts[host.id] = host
        self._names[host.name] = host.id
        self.live.setdefault(host.id, Live(now_s, session=host.session))
        if before is not None and _same_to_peers(before, host):
            return set()
        return self._touched([*host.projects, *(before.projects if before else ())])

    def drop_host(self, host: Host) -> set[str]:
        self._forget(self.hosts[host.id])
        del self.hosts[host.id], self.live[host.id], self._names[host.name]
        return self._touched(host.projects)

    def put_old_client(self, client: OldClient) -> set[str]:
        before = self._old.get((client.project, client.address))
        self._old[client.project, client.address] = client
        if before is not None and before.slots == client.slots:
            return set()
        return self._touched([client.project])

    def expire(self, now_s: float) -> tuple[list[Host], set[str]]:
        """Give up those that were not heard of for too long.

        Returns:
            The hosts that are gone by now and were not before, and the projects that have lost one.
        """
        silent = [
            host
            for host in self.hosts.values()
            if not (host.gone or host.left) and now_s - self.live[host.id].heard_s >= self.timing.gone_after_s
        ]
        touched: set[str] = set()
        for host in silent:
            touched |= self.put_host(replace(host, gone=True), now_s)
        for key, client in list(self._old.items()):
            if now_s - client.heard_s >= self.timing.old_clients_s:
                del self._old[key]
                touched |= self._touched([client.project])
        return [self.hosts[host.id] for host in silent], touched

    def _enter(self, host: Host) -> None:
        for project in host.projects:
            self._members.setdefault(project, set()).add(host.id)

    def _forget(self, host: Host) -> None:
        for project in host.projects:
            self._members[project].discard(host.id)

    def _touched(self, projects: Iterable[str]) -> set[str]:
        names = {name for name in projects if name in self.projects}
        for name in names:
            self._documents.pop(name, None)
        return names

    def silent(self, now_s: float) -> Iterator[Host]:
        """Those that are suspect now."""
        return (host for host in self.hosts.values() if self.state(host, now_s) is State.SUSPECT)


_TO_PEERS = (
    *("name", "projects", "address", "slots", "port", "ssh_port", "serving", "host_keys", "toolchain"),
    *("drained", "expunged", "cloned", "left", "gone", "note", "joined_at"),
)


def _same_to_peers(before: Host, after: Host) -> bool:
    return all(getattr(before, name) == getattr(after, name) for name in _TO_PEERS)
