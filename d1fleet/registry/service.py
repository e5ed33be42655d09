"""What hosts ask for: to join, to check in, to wait for news, to leave. A host speaks for itself alone."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import replace

from . import admission
from .answer import Answer, answer, differs
from .core import Core, whole
from .credentials import TOKEN, BadCredentialError, Claim, same, secret_id
from .documents import OldClient
from .model import (
    MOST_PROJECTS,
    AuditEntry,
    FieldError,
    Host,
    Report,
    State,
    Token,
    check_host_name,
    check_number,
    may_be_peer,
    read_address,
)
from .refusals import Refused, unusable, void_credential

log = logging.getLogger("d1fleet.registry")

LONGEST_WAIT_S = 60

MOST_OLD_CLIENTS = 256
"""Of one project: nothing proves who they are."""


class HostService:
    """The registry, as hosts see it."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @whole
    async def join(
        self, token: str, name: str, report: Report, source: str, credential: str = ""
    ) -> tuple[str, Host, Answer]:
        """Let a host into the token's project.

        Args:
            source: the address that it asks from.
            credential: of a host that has joined another project already.

        Returns:
            Its credential, itself, and what it is told.

        Raises:
            Refused: the token is void, the name is taken or cannot be used, or nothing can be stored.
        """
        core = self._core
        try:
            check_host_name(name)
        except FieldError as error:
            raise unusable(error) from error
        async with core.lock:
            found = self._token(token)
            if name in core.pool.projects:
                raise Refused(409, "name_taken", f"{name} is a project", "join by another name: --name")
            host = self._joining(name, report, source, credential)
            if found.project not in host.projects:
                host = replace(host, projects=(*host.projects, found.project))
            if len(host.projects) > MOST_PROJECTS:
                raise Refused(409, "projects", f"{name} is in {MOST_PROJECTS} projects already")
            if not credential:
                host = self._reported(host, report, source)
            now_at = core.clocks.wall()
            used = replace(found, used_at=now_at)
            entry = AuditEntry(now_at, f"token:{found.id}", "join", host.name, source, found.project)
            await core.write([host, used], audit=[entry])
            core.tokens[used.id] = used
            if credential:
                # Not by this report: what checks in there is another process, and may have done so meanwhile.
                host = replace(core.pool.hosts[host.id], projects=host.projects)
                core.news(core.pool.put_host(host, core.clocks.monotonic()))
                core.note(host)
            else:
                self._put(host, report, source)
        core.news(hosts=[host])
        return core.credentials.issue(host, core.clocks.wall()), host, answer(core, host, {})

    def _token(self, text: str) -> Token:
        found = self._core.tokens.get(secret_id(text, TOKEN))
        if found is None or not same(text, found.digest):
            raise Refused(
                403,
                "token",
                "this join token is not valid",
                "a new one: d1fleet registry token create PROJECT, or the project's page",
            )
        return found

    def _joining(self, name: str, report: Report, source: str, credential: str) -> Host:
        """The host as it is before it is in the project."""
        core = self._core
        if credential:
            host = self._host(credential)
            if host.name != name:
                raise Refused(409, "name_taken", f"this host is {host.name} already", f"--name {host.name}")
            self._refuse_outcasts(host)
            self._refuse(admission.identify(host, report), host, source)
            return host
        known = core.pool.named(name)
        if known is None:
            return Host(secrets.token_hex(16), name, (), joined_at=core.clocks.wall())
        if known.expunged:
            raise Refused(
                403,
                "expunged",
                f"{name} was thrown out by an operator",
                f"d1fleet registry host readmit {name}",
            )
        away = core.pool.state(known, core.clocks.monotonic()) in (State.GONE, State.LEFT)
        if away and known.machine == report.machine and set(known.host_keys) <= set(report.host_keys):
            # The same machine, which has lost its credential; what had that is void from now on.
            return replace(known, generation=known.generation + 1, session="")
        raise Refused(
            409,
            "name_taken",
            f"there is a host {name} already",
            f"join by another name (--name), or: d1fleet registry host forget {name}",
        )

    async def check_in(
        self, credential: str, report: Report, known: Mapping[str, str], source: str
    ) -> Answer:
        """Take what a host says of itself, and tell it what it does not know yet.

        Args:
            known: {project: revision} that the host has.

        Raises:
            Refused: the credential is void, the host was thrown out or is a copy, the report is an old one.
        """
        core = self._core
        claim = self._claim(credential)
        if claim.id not in core.pool.hosts:
            await self._adopt(claim, report, source)
        host = self._claimed(claim)
        self._refuse_outcasts(host)
        self._refuse_strangers(host, report, source)
        before = host
        host = self._reported(host, report, source)
        if before.note != host.note or before.address != host.address:
            log.info("address", extra={"host": host.name, "address": host.address, "note": host.note})
        touched = self._put(host, report, source)
        if touched or replace(before, seen_at=host.seen_at) != host:
            core.note(host)
        core.news(touched)
        core.feed.hosts([host.id])
        renewed = "" if claim.fits(host) else core.credentials.issue(host, core.clocks.wall())
        return answer(core, host, known, renewed)

    async def wait(self, credential: str, known: Mapping[str, str], limit_s: float) -> Answer:
        """Answer as soon as there is something that the host does not know, or after so many seconds.

        Raises:
            Refused: as check_in, also where that comes while it waits.
        """
        core = self._core
        host = self._host(credential)
        self._refuse_outcasts(host)
        until_s = core.clocks.monotonic() + min(limit_s, LONGEST_WAIT_S)
        while not differs(core, host, known):
            # What an operator does to a host may be nothing new to it.
            if not await core.wait(host, until_s - core.clocks.monotonic()):
                break
            host = self._host(credential)
            self._refuse_outcasts(host)
        return answer(core, host, known)

    @whole
    async def leave(self, credential: str, for_good: bool, source: str) -> None:
        """Let a host go: until it checks in again, or for good.

        Raises:
            Refused: the credential is void, or that it is for good cannot be stored.
        """
        core = self._core
        host = self._host(credential)
        if for_good:
            async with core.lock:
                host = self._host(credential)
                entry = AuditEntry(core.clocks.wall(), f"host:{host.name}", "leave", host.name, source)
                await core.write(deletes=[host], audit=[entry])
                core.news(core.pool.drop_host(host), [host])
            return
        host = replace(host, left=True)
        core.news(core.pool.put_host(host, core.clocks.monotonic()), [host])
        core.note(host)

    def old_client(self, project: str, hash_: str, owner: str, version: str, slots: int, source: str) -> str:
        """What a client of dyndistcc gets: `localhost/N`, then `address/threads` of the others. An unknown
        project is as one without others, as it was there.

        Args:
            slots: its own threads.

        Raises:
            Refused: the project takes no such clients, or not from there.
        """
        core = self._core
        try:
            check_number("threads", slots, 1, 1024)
            address = read_address("address", source)
        except FieldError as error:
            raise unusable(error) from error
        found = core.pool.projects.get(project)
        if found is None:
            log.warning("old client of an unknown project", extra={"source": source})
            return f"localhost/{slots}\n"
        if not found.old_clients:
            raise Refused(403, "old_clients", f"{project} takes no clients of dyndistcc")
        if not may_be_peer(address, found.networks):
            raise Refused(403, "address", f"{source} is in none of the ranges of {project}")
        known = core.pool.old_clients(project)
        if len(known) >= MOST_OLD_CLIENTS and all(client.address != source for client in known):
            raise Refused(429, "old_clients", f"{project} has {MOST_OLD_CLIENTS} old clients already")
        now_s = core.clocks.monotonic()
        core.news(core.pool.put_old_client(OldClient(project, source, slots, owner, version, hash_, now_s)))
        others = [
            f"{host.address}/{host.slots}"
            for host in core.pool.members(project)
            if core.pool.state(host, now_s) in (State.UP, State.SUSPECT)
            and host.name in core.pool.document(project).peers
            and host.port == 3632
            and ":" not in host.address
            and host.address != source
        ]
        others += [
            f"{client.address}/{client.slots}"
            for client in core.pool.old_clients(project)
            if client.address != source
        ]
        return " ".join([f"localhost/{slots}", *others]) + "\n"

    # What is asked of every credential

    def _claim(self, credential: str) -> Claim:
        try:
            return self._core.credentials.read(credential)
        except BadCredentialError:
            raise void_credential() from None

    def _host(self, credential: str) -> Host:
        return self._claimed(self._claim(credential))

    def _claimed(self, claim: Claim) -> Host:
        host = self._core.pool.hosts.get(claim.id)
        if host is None or host.generation != claim.generation:
            raise void_credential()
        return host

    def _refuse_outcasts(self, host: Host) -> None:
        if host.expunged:
            raise Refused(
                403,
                "expunged",
                f"{host.name} was thrown out by an operator",
                f"d1fleet registry host readmit {host.name}",
            )
        if host.cloned:
            raise Refused(
                403,
                "cloned",
                f"two machines check in as {host.name}",
                f"let one of them join anew, then: d1fleet registry host readmit {host.name}",
            )

    def _refuse_strangers(self, host: Host, report: Report, source: str) -> None:
        core = self._core
        verdict = admission.judge(host, core.pool.live[host.id], report, source)
        if verdict.code == "cloned" and report.machine == host.machine:
            host = replace(host, cloned=True)
            core.news(core.pool.put_host(host, core.clocks.monotonic()), [host])
            core.note(host)
        self._refuse(verdict, host, source)

    def _refuse(self, verdict: admission.Verdict, host: Host, source: str) -> None:
        if not verdict.code:
            return
        log.warning("report refused", extra={"host": host.name, "source": source, "why": verdict.message})
        raise Refused(403 if verdict.code == "cloned" else 409, verdict.code, verdict.message, verdict.mend)

    def _reported(self, host: Host, report: Report, source: str) -> Host:
        core = self._core
        projects = [core.pool.projects[name] for name in host.projects if name in core.pool.projects]
        address, note = admission.address_of(host, projects, report, source, core.own_addresses)
        return admission.updated(host, report, address, note, core.clocks.wall())

    def _put(self, host: Host, report: Report, source: str) -> set[str]:
        core = self._core
        now_s = core.clocks.monotonic()
        touched = core.pool.put_host(host, now_s)
        admission.take(core.pool.live[host.id], report, source, now_s)
        core.news(touched)
        return touched

    @whole
    async def _adopt(self, claim: Claim, report: Report, source: str) -> None:
        """Take a host back that joined before this database was made: the one before is lost.

        Raises:
            Refused: it joined later, so that an operator or itself has removed it; or there is nothing to
                come back to yet.
        """
        core = self._core
        if claim.issued_at >= core.made_at:
            raise void_credential()
        async with core.lock:
            if claim.id in core.pool.hosts:
                return
            projects = tuple(name for name in claim.projects if name in core.pool.projects)
            if not projects:
                raise Refused(
                    403,
                    "projects",
                    f"none of the projects of {claim.name} is known: {', '.join(claim.projects)}",
                    "restore a backup of the registry, or create the project",
                )
            if core.pool.named(claim.name) is not None:
                raise Refused(409, "name_taken", f"there is another host {claim.name} by now", "join again")
            now_at = core.clocks.wall()
            host = Host(
                claim.id, claim.name, projects, joined_at=float(claim.issued_at), generation=claim.generation
            )
            entry = AuditEntry(
                now_at, f"host:{host.name}", "come back", host.name, source, " ".join(projects)
            )
            await core.write([host], audit=[entry])
            core.news(core.pool.put_host(host, core.clocks.monotonic()))
