"""What operators do: projects, tokens, hosts, and who may do it. Each change is stored with its audit entry
before it is answered.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import credentials
from .core import Core, whole
from .credentials import KEY, TOKEN
from .model import (
    MOST_PROJECTS,
    AuditEntry,
    FieldError,
    Host,
    Key,
    Operator,
    Project,
    Record,
    Token,
    may_be_peer,
    read_address,
)
from .refusals import Refused, unknown, unusable

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1024
"""Characters; more would only cost time."""

LONGEST_NOTE = 100


@dataclass(frozen=True)
class By:
    """Who asks.

    Attributes:
        who: as in the audit log: `operator:ada`, `key:1f2e3d4c`, `socket`.
        may_change: a viewer may not.
        source: the address that it comes from, or "".
    """

    who: str
    may_change: bool
    source: str = ""


class Administration:
    """The registry, as operators see it. Every method that changes something raises Refused where it may not
    (403), where there is no such thing (404), where a value cannot be used (422), where something stands in
    the way (409), and where nothing can be stored (503).
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    # Projects

    def projects(self) -> list[Project]:
        return sorted(self._core.pool.projects.values(), key=lambda project: project.name)

    def project(self, name: str) -> Project:
        """Raises:
        Refused: 404.
        """
        found = self._core.pool.projects.get(name)
        if found is None:
            raise unknown("project", name)
        return found

    @whole
    async def create_project(self, by: By, name: str, ranges: Sequence[str], **settings: Any) -> Project:
        """Args:
        settings: further fields of a Project.
        """
        core = self._core
        _may_change(by)
        try:
            project = Project(name, tuple(ranges), **settings, created_at=core.clocks.wall())
        except FieldError as error:
            raise unusable(error) from error
        async with core.lock:
            if name in core.pool.projects:
                raise Refused(409, "exists", f"there is a project {name} already")
            if core.pool.named(name) is not None:
                raise Refused(409, "exists", f"there is a host {name}: a project needs a name of its own")
            await self._write(by, "create project", name, ", ".join(ranges), puts=[project])
            core.news(core.pool.put_project(project))
        core.feed.everything()
        return project

    @whole
    async def change_project(self, by: By, name: str, **settings: Any) -> Project:
        """Args:
        settings: fields of a Project, other than its name.
        """
        core = self._core
        _may_change(by)
        async with core.lock:
            before = self.project(name)
            try:
                project = replace(before, **settings)
            except FieldError as error:
                raise unusable(error) from error
            if project == before:
                return project
            await self._write(by, "change project", name, _said(settings), puts=[project])
            core.news(core.pool.put_project(project))
        core.feed.everything()
        return project

    @whole
    async def delete_project(self, by: By, name: str, with_hosts: bool = False) -> None:
        """Args:
        with_hosts: its hosts leave it; without, it has to be empty.
        """
        core = self._core
        _may_change(by)
        async with core.lock:
            project = self.project(name)
            hosts = core.pool.members(name)
            if hosts and not with_hosts:
                raise Refused(
                    409,
                    "not_empty",
                    f"{name} has {len(hosts)} hosts",
                    "say that they shall leave it: --with-hosts",
                )
            without = functools.partial(_without, name)
            tokens = [token for token in core.tokens.values() if token.project == name]
            await self._write(
                by, "delete project", name, puts=[without(host) for host in hosts], deletes=[*tokens, project]
            )
            for token in tokens:
                del core.tokens[token.id]
            for host in hosts:
                if host.id in core.pool.hosts:
                    core.pool.put_host(without(core.pool.hosts[host.id]), core.clocks.monotonic())
            core.pool.drop_project(name)
            core.news(hosts=hosts)
        core.feed.everything()

    # Join tokens

    def tokens(self, project: str) -> list[Token]:
        """Raises:
        Refused: 404.
        """
        self.project(project)
        found = [token for token in self._core.tokens.values() if token.project == project]
        return sorted(found, key=lambda token: token.created_at)

    @whole
    async def create_token(self, by: By, project: str, note: str = "") -> tuple[str, Token]:
        """Returns:
        The token, which nobody can show again, and what is kept of it.
        """
        core = self._core
        _may_change(by)
        _check_note(note)
        async with core.lock:
            self.project(project)
            text, token = self._new_token(project, note)
            await self._write(by, "create token", project, token.id, puts=[token])
            core.tokens[token.id] = token
        return text, token

    @whole
    async def rotate_tokens(self, by: By, project: str) -> tuple[str, Token]:
        """Make all tokens of a project void, and a new one. Hosts that have joined stay."""
        core = self._core
        _may_change(by)
        async with core.lock:
            old = self.tokens(project)
            text, token = self._new_token(project, "")
            await self._write(by, "rotate tokens", project, token.id, puts=[token], deletes=old)
            for each in old:
                del core.tokens[each.id]
            core.tokens[token.id] = token
        return text, token

    @whole
    async def revoke_token(self, by: By, project: str, identity: str) -> None:
        core = self._core
        _may_change(by)
        async with core.lock:
            token = core.tokens.get(identity)
            if token is None or token.project != project:
                raise unknown("join token", identity)
            await self._write(by, "revoke token", project, identity, deletes=[token])
            del core.tokens[identity]

    def _new_token(self, project: str, note: str) -> tuple[str, Token]:
        text, identity, digest = credentials.new_secret_text(TOKEN)
        return text, Token(identity, project, digest, note, self._core.clocks.wall())

    # Hosts

    def hosts(self, project: str = "") -> list[Host]:
        """Raises:
        Refused: 404.
        """
        if project:
            self.project(project)
            return self._core.pool.members(project)
        return sorted(self._core.pool.hosts.values(), key=lambda host: host.name)

    def host(self, name: str) -> Host:
        """Raises:
        Refused: 404.
        """
        found = self._core.pool.named(name)
        if found is None:
            raise unknown("host", name)
        return found

    async def drain(self, by: By, name: str) -> Host:
        """Have a host compile for nobody; it may go on to send work to others."""
        return await self._change(by, "drain", name, lambda host: replace(host, drained=True))

    async def undrain(self, by: By, name: str) -> Host:
        return await self._change(by, "undrain", name, lambda host: replace(host, drained=False))

    async def expunge(self, by: By, name: str) -> Host:
        """Throw a host out: its peers turn it away, and it stays out until it is re-admitted."""
        return await self._change(by, "expunge", name, lambda host: replace(host, expunged=True))

    async def readmit(self, by: By, name: str) -> Host:
        """Take a host back that was thrown out, cloned or installed anew: whoever has its credential and
        checks in next is it, with the SSH host keys that it has then.
        """
        return await self._change(
            by,
            "readmit",
            name,
            lambda host: replace(
                host, expunged=False, cloned=False, machine="", host_keys=(), session="", gone=True
            ),
        )

    @whole
    async def forget(self, by: By, name: str) -> None:
        """Have no such host any more, and its credential void. It may join again, with a token."""
        core = self._core
        _may_change(by)
        async with core.lock:
            host = self.host(name)
            await self._write(by, "forget", name, deletes=[host])
            core.news(core.pool.drop_host(host), [host])
        core.feed.everything()

    async def change_host(
        self, by: By, name: str, projects: Sequence[str] | None = None, address: str | None = None
    ) -> Host:
        """Args:
        projects: in which it is from now on; None leaves them as they are.
        address: by which peers reach it from now on; "" for the one that it is seen at.
        """
        host = self.host(name)
        values: dict[str, Any] = {}
        if projects is not None:
            if not 1 <= len(projects) <= MOST_PROJECTS or len(set(projects)) != len(projects):
                raise Refused(
                    422, "field", f"projects: name from 1 to {MOST_PROJECTS}, each once", field="projects"
                )
            for each in projects:
                if each not in self._core.pool.projects:
                    raise Refused(422, "field", f"projects: there is no project {each}", field="projects")
            values["projects"] = tuple(projects)
        if address is not None:
            values["fixed_address"] = address
            values["address"] = address or host.address
            if address:
                self._check_address(address, values.get("projects", host.projects))
        return await self._change(
            by, "change host", name, lambda host: replace(host, **values), _said(values)
        )

    def _check_address(self, text: str, projects: Sequence[str]) -> None:
        try:
            read_address("address", text)
        except FieldError as error:
            raise unusable(error) from error
        networks = [
            network
            for name in projects
            if name in self._core.pool.projects
            for network in self._core.pool.projects[name].networks
        ]
        if not may_be_peer(ipaddress.ip_address(text), networks):
            raise Refused(
                422, "field", f"address: {text} is in no range of the host's projects", field="address"
            )

    @whole
    async def _change(
        self, by: By, what: str, name: str, change: Callable[[Host], Host], detail: str = ""
    ) -> Host:
        core = self._core
        _may_change(by)
        async with core.lock:
            host = self.host(name)
            await self._write(by, what, name, detail, puts=[change(host)])
            # It may have checked in meanwhile: what is changed is changed in that.
            host = change(core.pool.hosts[host.id])
            live = core.pool.live[host.id]
            if host.session != live.session:
                live.session, live.sequence, live.strays = host.session, 0, 0
                live.past.clear()
            core.news(core.pool.put_host(host, core.clocks.monotonic()), [host])
            core.note(host)
        return host

    # Who may do all that

    def operators(self) -> list[Operator]:
        return sorted(self._core.operators.values(), key=lambda operator: operator.name)

    @whole
    async def put_operator(self, by: By, name: str, password: str, kind: str = "operator") -> Operator:
        """Add somebody who signs in at the panel, or give them another password."""
        core = self._core
        _may_change(by)
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise Refused(
                422, "field", f"password: at least {SHORTEST_PASSWORD} characters", field="password"
            )
        hashed = await asyncio.to_thread(credentials.hash_password, password)
        try:
            operator = Operator(name, hashed, kind, core.clocks.wall())
        except FieldError as error:
            raise unusable(error) from error
        async with core.lock:
            await self._write(by, "put operator", name, kind, puts=[operator])
            core.operators[name] = operator
        return operator

    @whole
    async def remove_operator(self, by: By, name: str) -> None:
        core = self._core
        _may_change(by)
        async with core.lock:
            operator = core.operators.get(name)
            if operator is None:
                raise unknown("operator", name)
            await self._write(by, "remove operator", name, deletes=[operator])
            del core.operators[name]

    async def sign_in(self, name: str, password: str, source: str) -> Operator:
        """Raises:
        Refused: 403; it takes as long, and says the same, for a name that nobody has.
        """
        operator = self._core.operators.get(name)
        stored = operator.password_hash if operator else None
        right = await asyncio.to_thread(credentials.is_password, password[:LONGEST_PASSWORD], stored)
        # Removed, or given another password, in the meantime.
        if operator is None or not right or self._core.operators.get(name) != operator:
            raise Refused(403, "sign_in", "this name and this password do not belong together")
        return operator

    def keys(self) -> list[Key]:
        return sorted(self._core.keys.values(), key=lambda key: key.created_at)

    @whole
    async def create_key(self, by: By, kind: str, note: str = "") -> tuple[str, Key]:
        """Returns:
        The key, which nobody can show again, and what is kept of it.
        """
        core = self._core
        _may_change(by)
        _check_note(note)
        text, identity, digest = credentials.new_secret_text(KEY)
        try:
            key = Key(identity, digest, kind, note, core.clocks.wall())
        except FieldError as error:
            raise unusable(error) from error
        async with core.lock:
            await self._write(by, "create key", identity, kind, puts=[key])
            core.keys[identity] = key
        return text, key

    @whole
    async def remove_key(self, by: By, identity: str) -> None:
        core = self._core
        _may_change(by)
        async with core.lock:
            key = core.keys.get(identity)
            if key is None:
                raise unknown("key", identity)
            await self._write(by, "remove key", identity, deletes=[key])
            del core.keys[identity]

    def who_has(self, key: str, source: str) -> By | None:
        """Whose an API key is; None for nobody's."""
        found = self._core.keys.get(credentials.secret_id(key, KEY))
        if found is None or not credentials.same(key, found.digest):
            return None
        return By(f"key:{found.id}", found.kind == "operator", source)

    async def audit(self, limit: int = 200) -> list[AuditEntry]:
        """The newest first.

        Raises:
            Refused: 503.
        """
        return await self._core.audit(limit)

    async def _write(
        self,
        by: By,
        what: str,
        whom: str,
        detail: str = "",
        puts: Sequence[Record] = (),
        deletes: Sequence[Record] = (),
    ) -> None:
        entry = AuditEntry(self._core.clocks.wall(), by.who, what, whom, by.source, detail)
        await self._core.write(puts, deletes, [entry])


def _may_change(by: By) -> None:
    if not by.may_change:
        raise Refused(403, "viewer", f"{by.who} may look, and change nothing", "ask an operator")


def _without(project: str, host: Host) -> Host:
    return replace(host, projects=tuple(each for each in host.projects if each != project))


def _check_note(note: str) -> None:
    if len(note) > LONGEST_NOTE or not note.isprintable():
        raise Refused(
            422, "field", f"note: at most {LONGEST_NOTE} characters that can be printed", field="note"
        )


def _said(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
