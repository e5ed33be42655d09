"""What the panel shows of the pool. Changes nothing; what costs much for each host is worked out for the page
that is shown alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ..server.toolchain import differences
from ..words import counted
from .core import Core
from .documents import Document, OldClient, reference
from .model import Host, Project, State
from .panel_rows import HEARD, ROWS_A_PAGE, SORTS, Choice, Listing, ProjectRow, Row, Total, fits
from .panel_words import short_fingerprint


class Rows:
    """Makes rows from the pool."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._references: dict[str, tuple[Document, Mapping[str, str]]] = {}

    def look(self) -> Look:
        """At the pool as it is now, for one page."""
        return Look(self._core, self.reference)

    def reference(self, project: str) -> Mapping[str, str]:
        """A project's toolchain. It can only become another one together with the project's document."""
        document = self._core.pool.document(project)
        known = self._references.get(project)
        if known is None or known[0] is not document:
            hosts = self._core.pool.members(project)
            found = reference(host for host in hosts if not host.expunged and not host.cloned)
            self._references[project] = known = (document, found)
        return known[1]


class Look:
    """The pool at one moment; each host is looked at once, in however many tables it is.

    Args:
        reference: the toolchain of a project.
    """

    def __init__(self, core: Core, reference: Callable[[str], Mapping[str, str]]) -> None:
        self._pool = core.pool
        self._now_s = core.clocks.monotonic()
        self._reference = reference
        self._documents = {name: core.pool.document(name) for name in core.pool.projects}
        self._rows: dict[str, Row] = {}

    def listing(self, hosts: Sequence[Host], choice: Choice) -> Listing:
        """Those of these hosts that are asked for."""
        found = [row for row in map(self._light, hosts) if fits(row, choice)]
        found.sort(key=lambda row: row.host.name)
        found.sort(key=SORTS[choice.sort], reverse=choice.down)
        page = min(choice.page, max(1, -(-len(found) // ROWS_A_PAGE)))
        shown = found[(page - 1) * ROWS_A_PAGE : page * ROWS_A_PAGE]
        return Listing([self._full(row) for row in shown], replace(choice, page=page), len(found), len(hosts))

    def row(self, host: Host) -> Row:
        """All of one."""
        return self._full(self._light(host))

    def project(self, project: Project) -> ProjectRow:
        rows = [self._light(host) for host in self._pool.members(project.name)]
        peers = set(self._documents[project.name].peers)
        return ProjectRow(
            project,
            hosts=len(rows),
            up=sum(row.state is State.UP for row in rows),
            slots=sum(row.host.slots for row in rows if row.host.name in peers)
            + sum(client.slots for client in self.old_clients(project.name) if client.name in peers),
            jobs=sum(row.report.jobs for row in rows if row.report is not None),
            wrong=tuple(_counts(rows, project.name)),
        )

    def total(self, hosts: Iterable[Host]) -> Total:
        """Of these hosts; one in two projects counts once."""
        rows = [self._light(host) for host in hosts]
        peers = {name for document in self._documents.values() for name in document.peers}
        return Total(
            hosts=len(rows),
            up=sum(row.state is State.UP for row in rows),
            slots=sum(row.host.slots for row in rows if row.host.name in peers),
            jobs=sum(row.report.jobs for row in rows if row.report is not None),
        )

    def old_clients(self, project: str) -> Sequence[OldClient]:
        return self._pool.old_clients(project)

    def _light(self, host: Host) -> Row:
        known = self._rows.get(host.id)
        if known is None:
            state = self._pool.state(host, self._now_s)
            heard = state in HEARD
            known = self._rows[host.id] = Row(
                host,
                state,
                self._pool.live[host.id].report if heard else None,
                tuple(self._left_out(host)) if heard else (),
            )
        return known

    def _left_out(self, host: Host) -> Iterable[tuple[str, str]]:
        for name in host.projects:
            document = self._documents.get(name)
            if document is not None and host.name in document.left_out:
                yield name, document.left_out[host.name]

    def _full(self, row: Row) -> Row:
        host = row.host
        differs = {}
        if host.toolchain:
            for name in host.projects:
                if name in self._documents and (found := differences(self._reference(name), host.toolchain)):
                    differs[name] = found
        return replace(row, fingerprint=short_fingerprint(host.toolchain), differs=differs)


def _counts(rows: Iterable[Row], project: str) -> Iterable[str]:
    every = list(rows)
    for state in (State.CLONED, State.SUSPECT, State.GONE, State.EXPUNGED):
        count = sum(row.state is state for row in every)
        if count:
            yield f"{count} {state.value}"
    out = [row for row in every if any(project in names for names in row.reasons.values())]
    if out:
        yield f"{len(out)} left out"
    errors = sum(row.report is not None and bool(row.report.error) for row in every)
    if errors:
        yield f"{counted(errors, 'host')} with an error"
