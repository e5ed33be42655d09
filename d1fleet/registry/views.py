"""What is shown of hosts, projects and the rest: by the API, the panel and its events.

Never a digest, a hash of a password, what tells machines apart, or a session: nothing here lets anybody in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

# pydantic, which describes these, wants that of Python 3.12.
from typing_extensions import TypedDict

from ..server.toolchain import fingerprint
from .core import Core
from .model import AuditEntry, Host, Key, Operator, Project, State, Token

StateName = Literal["expunged", "cloned", "left", "gone", "suspect", "drained", "up"]


class HostView(TypedDict):
    """A host. Figures of this moment are null where it was not heard of since the registry was started.

    Attributes:
        fingerprint: of its toolchain, equal for equal ones; "" where nothing is known of it.
        last_contact_s: seconds ago.
        joined_at: seconds since the epoch.
        error: what went wrong there, in the host's own words.
        notes: project -> why its peers do not get it.
    """

    id: str
    name: str
    state: StateName
    projects: list[str]
    address: str
    fixed_address: str
    slots: int
    port: int
    ssh_port: int
    owner: str
    version: str
    system: str
    fingerprint: str
    serving: bool
    drained: bool
    expunged: bool
    cloned: bool
    joined_at: float
    last_contact_s: float
    jobs: int | None
    load_others_cpus: float | None
    load_1min: float | None
    memory_available_bytes: int | None
    memory_bytes: int | None
    disk_free_bytes: int | None
    error: str
    notes: dict[str, str]


class ProjectView(TypedDict):
    """A project.

    Attributes:
        hosts: how many are in it.
        states: state -> how many of them.
        peers: how many compile for others at this moment.
        slots: theirs together.
    """

    name: str
    ranges: list[str]
    options: list[str]
    transport: Literal["tcp", "ssh"]
    toolchain_mismatch: Literal["exclude", "ignore"]
    old_clients: bool
    created_at: float
    hosts: int
    states: dict[str, int]
    peers: int
    slots: int
    old_client_count: int


class TokenView(TypedDict):
    """A join token, without what is secret in it. used_at: 0 for never."""

    id: str
    project: str
    note: str
    created_at: float
    used_at: float


class OperatorView(TypedDict):
    """Somebody who signs in at the panel."""

    name: str
    kind: Literal["viewer", "operator"]
    created_at: float


class KeyView(TypedDict):
    """An API key, without what is secret in it."""

    id: str
    kind: Literal["viewer", "operator"]
    note: str
    created_at: float


class AuditView(TypedDict):
    """Who did what to whom, and from where. at: seconds since the epoch."""

    at: float
    who: str
    what: str
    whom: str
    source: str
    detail: str


class InventoryProject(TypedDict):
    """What an Ansible inventory says of a project."""

    transport: Literal["tcp", "ssh"]
    options: list[str]
    ranges: list[str]


class InventoryHost(TypedDict):
    """What an Ansible inventory says of a host."""

    address: str
    slots: int
    port: int
    ssh_port: int
    projects: list[str]
    owner: str
    version: str
    state: StateName
    host_keys: list[str]


class Inventory(TypedDict):
    """What an Ansible inventory is made from."""

    projects: dict[str, InventoryProject]
    hosts: dict[str, InventoryHost]


def host(core: Core, found: Host) -> HostView:
    live = core.pool.live[found.id]
    report = live.report
    if report is None:
        # Of this start nothing is known yet; `live` says when that was.
        silent_s = core.clocks.wall() - found.seen_at if found.seen_at else 0.0
    else:
        silent_s = core.clocks.monotonic() - live.heard_s
    return {
        "id": found.id,
        "name": found.name,
        "state": _state(core, found),
        "projects": list(found.projects),
        "address": found.address,
        "fixed_address": found.fixed_address,
        "slots": found.slots,
        "port": found.port,
        "ssh_port": found.ssh_port,
        "owner": found.owner,
        "version": found.version,
        "system": found.system,
        "fingerprint": fingerprint(found.toolchain),
        "serving": found.serving,
        "drained": found.drained,
        "expunged": found.expunged,
        "cloned": found.cloned,
        "joined_at": found.joined_at,
        "last_contact_s": round(max(0.0, silent_s), 1),
        "jobs": report.jobs if report else None,
        "load_others_cpus": report.load_others_cpus if report else None,
        "load_1min": report.load_1min if report else None,
        "memory_available_bytes": report.memory_available_bytes if report else None,
        "memory_bytes": report.memory_bytes if report else None,
        "disk_free_bytes": report.disk_free_bytes if report else None,
        "error": report.error if report else "",
        "notes": {
            name: why
            for name in found.projects
            if name in core.pool.projects and (why := core.pool.document(name).left_out.get(found.name))
        },
    }


def hosts(core: Core, found: Iterable[Host]) -> list[HostView]:
    return [host(core, each) for each in found]


def _state(core: Core, found: Host) -> StateName:
    name: StateName = core.pool.state(found, core.clocks.monotonic()).value
    return name


def project(core: Core, found: Project) -> ProjectView:
    members = core.pool.members(found.name)
    states = Counter(_state(core, each) for each in members)
    compiling = set(core.pool.document(found.name).peers)
    old = core.pool.old_clients(found.name)
    return {
        "name": found.name,
        "ranges": list(found.ranges),
        "options": list(found.options),
        "transport": "ssh" if found.transport == "ssh" else "tcp",
        "toolchain_mismatch": "ignore" if found.toolchain_mismatch == "ignore" else "exclude",
        "old_clients": found.old_clients,
        "created_at": found.created_at,
        "hosts": len(members),
        "states": {state.value: states[state.value] for state in State if states[state.value]},
        "peers": len(compiling),
        "slots": sum(each.slots for each in members if each.name in compiling)
        + sum(each.slots for each in old if each.name in compiling),
        "old_client_count": len(old),
    }


def projects(core: Core, found: Iterable[Project]) -> list[ProjectView]:
    return [project(core, each) for each in found]


def token(found: Token) -> TokenView:
    return {
        "id": found.id,
        "project": found.project,
        "note": found.note,
        "created_at": found.created_at,
        "used_at": found.used_at,
    }


def operator(found: Operator) -> OperatorView:
    return {"name": found.name, "kind": _kind(found.kind), "created_at": found.created_at}


def key(found: Key) -> KeyView:
    return {"id": found.id, "kind": _kind(found.kind), "note": found.note, "created_at": found.created_at}


def _kind(text: str) -> Literal["viewer", "operator"]:
    return "operator" if text == "operator" else "viewer"


def audit_entry(found: AuditEntry) -> AuditView:
    return {
        "at": found.at,
        "who": found.who,
        "what": found.what,
        "whom": found.whom,
        "source": found.source,
        "detail": found.detail,
    }


def inventory(core: Core) -> Inventory:
    """What an Ansible inventory is made from. Those who were thrown out are not in it."""
    return {
        "projects": {
            name: {
                "transport": "ssh" if each.transport == "ssh" else "tcp",
                "options": list(each.options),
                "ranges": list(each.ranges),
            }
            for name, each in sorted(core.pool.projects.items())
        },
        "hosts": {
            each.name: {
                "address": each.address,
                "slots": each.slots,
                "port": each.port,
                "ssh_port": each.ssh_port,
                "projects": list(each.projects),
                "owner": each.owner,
                "version": each.version,
                "state": _state(core, each),
                "host_keys": list(each.host_keys),
            }
            for each in sorted(core.pool.hosts.values(), key=lambda each: each.name)
            if not each.expunged and not each.cloned
        },
    }
