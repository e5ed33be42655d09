"""What the root helper is asked for, checked, and the files that follow from it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .. import distccssh, hostsfile
from ..distccssh import Login
from ..hostsfile import HostsFile, HostsFileError, Peer
from . import projects, strictjson, values
from .firewall import additions
from .projects import Entry, Project
from .strictjson import BadDocumentError

MOST_BYTES = 4 << 20

MARK = "written by check-in, role d1.fleet.checkin"
"""Stands in the first line of each file: others are not removed."""

NO_KEYS = "its SSH host keys are not known"


@dataclass(frozen=True)
class Request:
    """What a host's files are made of.

    Attributes:
        name: the host's, as the registry knows it; "" where it is in no project.
        slots: compilers at once on the host itself.
    """

    name: str
    slots: int
    projects: Mapping[str, Project]

    @property
    def members(self) -> list[values.Address]:
        """Who may connect to this host's compile server; peers over SSH come by a login."""
        by_tcp = [project for project in self.projects.values() if not project.is_over_ssh]
        return list({each: None for project in by_tcp for each in project.members})


def read(data: bytes, networks: tuple[values.Network, ...]) -> Request:
    """A request.

    Raises:
        BadDocumentError: anything in it is wrong, or an address in none of the networks.
    """
    found = strictjson.members(
        strictjson.read(data, MOST_BYTES), "the request", ("name", "slots", "projects")
    )
    listed = strictjson.mapping(found["projects"], "projects", values.MOST_PROJECTS)
    name = "" if found["name"] == "" and not listed else values.host_name(found["name"], "name")
    slots = strictjson.whole(found["slots"], "slots", 1, hostsfile.MOST_SLOTS)
    read_projects = {}
    for project, value in listed.items():
        values.project_name(project, "projects")
        each = strictjson.members(value, project, ("peers", "members", "left_out"))
        read_projects[project] = projects.read(each, project, networks)
    request = Request(name, slots, read_projects)
    _refuse_ambiguous(over_ssh(request))
    return request


def over_ssh(request: Request) -> list[Entry]:
    """Peers that are reached by a login, and whose keys are known."""
    found = {
        entry: None
        for project in request.projects.values()
        for entry in project.entries
        if entry.peer.ssh and entry.host_keys and entry.peer.name != request.name
    }
    return list(found)


def _refuse_ambiguous(entries: Iterable[Entry]) -> None:
    """ssh has one answer for an address."""
    known: dict[str, tuple[str, int, tuple[str, ...]]] = {}
    for entry in entries:
        way = entry.peer.name, entry.ssh_port, entry.host_keys
        if known.setdefault(entry.peer.address, way) != way:
            raise BadDocumentError(f"{entry.peer.address} is reached over SSH in two ways")


def hosts_file(request: Request, name: str, project: Project) -> str:
    """The hosts file of a project.

    Raises:
        BadDocumentError: it would be one that distcc reads in another way.
    """
    left_out = dict(project.left_out)
    entries = []
    for entry in project.entries:
        if entry.peer.ssh and not entry.host_keys and entry.peer.name != request.name:
            left_out[entry.peer.name] = NO_KEYS
        else:
            entries.append(entry.peer)
    head = [
        f"distcc's hosts for project {name} on {request.name}; {MARK}.",
        *(f"left out: {each}: {strictjson.plain(why, 400)}" for each, why in left_out.items()),
    ]
    peers = hostsfile.ring(request.name, entries)
    try:
        text = HostsFile(request.slots, peers).text(head)
        again = hostsfile.parse(text)
    except HostsFileError as error:
        raise BadDocumentError(f"{name}: {error}") from None
    if _words(again.peers) != _words(peers) or again.localslots != request.slots:
        raise BadDocumentError(f"{name}: its hosts file would say something else")
    return text


def _words(peers: Iterable[Peer]) -> list[str]:
    return [str(peer) for peer in peers]


def rules(request: Request) -> str:
    """What the packet filter's table is loaded with, beside what the role has written."""
    return f"# Members of this host's projects; {MARK}.\n{additions(request.members)}"


def ssh_files(request: Request, known_hosts: str) -> tuple[str, str]:
    """Configuration of ssh and the keys of peers; both empty where none is reached over SSH.

    Args:
        known_hosts: where the second will lie.
    """
    entries = over_ssh(request)
    if not entries:
        return "", ""
    logins = {entry.peer: Login(entry.peer.name, 22, entry.ssh_port) for entry in entries}
    keys = {logins[entry.peer]: entry.host_keys for entry in entries}
    return (
        distccssh.ssh_config(
            f"How distcc on {request.name} reaches its peers over SSH; {MARK}.",
            _by_alias(logins),
            known_hosts,
        ),
        distccssh.known_hosts(f"Host keys of peers over SSH; {MARK}.", keys),
    )


def _by_alias(logins: Mapping[Peer, Login]) -> dict[Peer, Login]:
    """One for each address: in two projects a peer may have other slots or options."""
    found = {peer.alias: peer for peer in reversed(list(logins))}
    return {peer: logins[peer] for peer in reversed(list(found.values()))}
