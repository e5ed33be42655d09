"""What this host knows of its peers, and what follows from it for its files. Pure.

A registry that is away changes nothing here. One that throws the host out leaves it alone in its projects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from . import projects, strictjson, values
from .answer import STILL_SENDS, Answer, News
from .projects import Entry, Project
from .strictjson import BadDocumentError

Target = tuple[str, int]
"""Address and port of a compile server."""

SILENT = "it does not answer, and the registry is away"
ITSELF = "it is this host itself"


@dataclass(frozen=True)
class Own:
    """What of this host's own counts for its files."""

    slots: int
    port: int
    addresses: frozenset[str] = frozenset()


class View:
    """A host's projects.

    Attributes:
        name: that the registry knows this host by; "" before its first answer.
        news: {project: what is known of it}.
    """

    def __init__(self) -> None:
        self.name = ""
        self.news: dict[str, News] = {}
        self._is_current = False

    def known(self) -> dict[str, str]:
        """{project: revision}, for the registry; of what was kept from an earlier run it is told nothing."""
        return {name: each.revision for name, each in self.news.items()} if self._is_current else {}

    def forget_revisions(self) -> None:
        """Have the registry tell everything again."""
        self._is_current = False

    def take(self, answer: Answer) -> bool:
        """Take what the registry has answered; returns whether anything is another now.

        Raises:
            BadDocumentError: it leaves a project out that is not known here. Nothing is taken.
        """
        known = self.news if self._is_current else {}
        lacking = [name for name in answer.every if name not in answer.news and name not in known]
        if lacking:
            raise BadDocumentError(f"the answer says nothing of project {lacking[0]}")
        before = self.name, self.news
        self.name = answer.name
        self.news = {name: answer.news[name] if name in answer.news else known[name] for name in answer.every}
        self._is_current = True
        return before != (self.name, self.news)

    def withdraw(self) -> bool:
        """This host is no member any more: it is alone, and nobody is let in. Returns whether that is new."""
        self._is_current = False
        before = self.news
        self.news = {name: News("", Project()) for name in self.news}
        return before != self.news

    def targets(self, own: Own) -> list[Target]:
        """Compile servers of all peers that are reached by TCP."""
        found = {
            (entry.peer.address, entry.peer.port): None
            for each in self.news.values()
            for entry in each.project.entries
            if not entry.peer.ssh and entry.peer.name != self.name and not _is_own(entry, own)
        }
        return list(found)

    def request(self, own: Own, silent: Collection[Target] = ()) -> dict[str, Any]:
        """What the root helper is asked for.

        Args:
            silent: compile servers that do not answer.
        """
        return {
            "name": self.name,
            "slots": own.slots,
            "projects": {
                name: self._usable(each.project, own, silent).document() for name, each in self.news.items()
            },
        }

    def _usable(self, project: Project, own: Own, silent: Collection[Target]) -> Project:
        """A project without the peers that this host must not, or cannot, use."""
        if project.is_over_ssh:
            project = dataclasses.replace(project, members=())
        unlike = project.left_out.get(self.name, STILL_SENDS[0])
        if unlike not in STILL_SENDS:
            return dataclasses.replace(project, entries=(), left_out={self.name: unlike})
        entries, left_out = [], dict(project.left_out)
        for entry in project.entries:
            if entry.peer.name != self.name and _is_own(entry, own):
                left_out[entry.peer.name] = ITSELF
            elif not entry.peer.ssh and (entry.peer.address, entry.peer.port) in silent:
                left_out[entry.peer.name] = SILENT
            else:
                entries.append(entry)
        return dataclasses.replace(project, entries=tuple(entries), left_out=left_out)

    # For the next run, when the registry may be away

    def document(self) -> dict[str, Any]:
        """All of it."""
        return {
            "name": self.name,
            "projects": {
                name: {"revision": each.revision, **each.project.document()}
                for name, each in self.news.items()
            },
        }

    def restore(self, document: object, networks: tuple[values.Network, ...]) -> None:
        """Take what `document` was.

        Raises:
            BadDocumentError: it is none.
        """
        found = strictjson.members(document, "it", ("name", "projects"))
        name = "" if found["name"] == "" else values.host_name(found["name"], "name")
        kept = strictjson.mapping(found["projects"], "projects", values.MOST_PROJECTS)
        news = {}
        for project, value in kept.items():
            each = strictjson.members(value, project, ("revision", "peers", "members", "left_out"))
            news[values.project_name(project, "a project")] = News(
                strictjson.text(each["revision"], "revision", 128),
                projects.read(each, project, networks),
            )
        self.name, self.news, self._is_current = name, news, False


def _is_own(entry: Entry, own: Own) -> bool:
    return entry.peer.address in own.addresses and entry.port == own.port
