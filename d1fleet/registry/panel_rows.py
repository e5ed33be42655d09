"""Rows of the panel's tables: what is in them, which are shown, and in which order. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .model import Host, Project, Report, State
from .panel_words import short_fingerprint

ROWS_A_PAGE = 100

HEARD = (State.UP, State.SUSPECT, State.DRAINED)
"""States in which a host's last report holds."""

_ORDER = (State.CLONED, State.SUSPECT, State.GONE, State.LEFT, State.EXPUNGED, State.DRAINED, State.UP)
"""By state, those come first that somebody should look at."""

DRAINED = "drained by an operator"
"""The reason that `documents` gives for it."""

TROUBLE = "trouble"
"""A choice of the filter, beside the states: whatever is not as it should be."""


@dataclass(frozen=True)
class Row:
    """One host.

    Attributes:
        report: its last one; None where there is none that holds.
        left_out: (project, reason) for those projects whose peers do not get it.
        fingerprint: of its toolchain, short.
        differs: what in its toolchain differs from a project's, for each project where something does.
    """

    host: Host
    state: State
    report: Report | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    fingerprint: str = ""
    differs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """What is not as it should be, in words, the worst first."""
        said = list(self.reasons)
        if self.report is not None and self.report.error:
            said.append(self.report.error)
        if not self.host.projects:
            said.append("it is in no project")
        return said

    @property
    def reasons(self) -> Mapping[str, Sequence[str]]:
        """Why peers do not get it -> in which projects that is so; where an operator wants it so, nothing is
        wrong.
        """
        found: dict[str, list[str]] = {}
        for project, reason in self.left_out:
            if reason != DRAINED:
                found.setdefault(reason, []).append(project)
        return found


@dataclass(frozen=True)
class ProjectRow:
    """One project.

    Attributes:
        up: hosts that are heard of and compile.
        slots: of all that peers get.
        wrong: counts of what is not as it should be, in words.
    """

    project: Project
    hosts: int
    up: int
    slots: int
    jobs: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Total:
    """Of all projects; attributes as in ProjectRow."""

    hosts: int
    up: int
    slots: int
    jobs: int


@dataclass(frozen=True)
class Choice:
    """Which hosts are asked for: what stands in the address of a page.

    Attributes:
        text: a part of a name, an owner, an address, a system, a version or what is wrong.
        state: a state, TROUBLE, or "" for all.
        page: from 1.
    """

    text: str = ""
    state: str = ""
    sort: str = "name"
    down: bool = False
    page: int = 1

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Choice:
        """From an address; what makes no sense there is as if it were not there."""
        states = [TROUBLE, *(each.value for each in State)]
        page = query.get("page", "1")
        return cls(
            text=query.get("q", "").strip()[:100],
            state=query["state"] if query.get("state") in states else "",
            sort=query["sort"] if query.get("sort") in SORTS else "name",
            down=query.get("down") == "1",
            page=int(page) if page.isascii() and page.isdigit() and len(page) < 6 else 1,
        )

    def query(self, **changes: Any) -> dict[str, str]:
        """As it stands in an address: what is as it always is, is left out."""
        values = {
            "q": self.text,
            "state": self.state,
            "sort": self.sort,
            "down": self.down,
            "page": self.page,
            **changes,
        }
        usual = {"q": "", "state": "", "sort": "name", "down": False, "page": 1}
        return {
            name: str(int(value)) if isinstance(value, bool) else str(value)
            for name, value in values.items()
            if value != usual[name]
        }


@dataclass(frozen=True)
class Listing:
    """Hosts for one page.

    Attributes:
        found: how many there are on all pages.
        all: how many there would be without a filter.
    """

    rows: Sequence[Row]
    choice: Choice
    found: int
    all: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.found // ROWS_A_PAGE))


def fits(row: Row, choice: Choice) -> bool:
    """Is it asked for?"""
    if choice.state == TROUBLE:
        if row.state in (State.UP, State.DRAINED, State.LEFT) and not row.wrong:
            return False
    elif choice.state and row.state.value != choice.state:
        return False
    if not choice.text:
        return True
    host = row.host
    words = (host.name, host.owner, host.address, host.version, host.system, *host.projects, *row.wrong)
    return any(choice.text.lower() in each.lower() for each in words)


def _address(text: str) -> tuple[int, int]:
    if not text:
        return 9, 0
    address = ipaddress.ip_address(text)
    return address.version, int(address)


def _live(what: Callable[[Report], float]) -> Callable[[Row], float]:
    """Hosts of which it is not known stand below all others."""
    return lambda row: what(row.report) if row.report is not None else -1.0


SORTS: Mapping[str, Callable[[Row], Any]] = {
    "name": lambda row: row.host.name,
    "state": lambda row: _ORDER.index(row.state),
    "address": lambda row: _address(row.host.address),
    "jobs": _live(lambda report: report.jobs),
    "slots": lambda row: row.host.slots,
    "load": _live(lambda report: report.load_others_cpus),
    "memory": _live(lambda report: report.memory_available_bytes),
    "disk": _live(lambda report: report.disk_free_bytes),
    "owner": lambda row: row.host.owner.lower(),
    "toolchain": lambda row: short_fingerprint(row.host.toolchain),
    "version": lambda row: row.host.version,
    "contact": lambda row: -row.host.seen_at,
    "wrong": lambda row: (not row.wrong, row.wrong),
}
"""By what hosts can be sorted, as an address of a page has it."""
