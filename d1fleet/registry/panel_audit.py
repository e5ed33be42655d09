"""The audit log, as a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from .access import Session
from .model import AuditEntry
from .panel_page import Panel

LIMITS = (200, 1000, 5000)
"""How many entries can be looked at."""


@dataclass(frozen=True)
class AuditChoice:
    """Which entries are asked for.

    Attributes:
        q: a part of who, whom, from where, or in detail.
        what: was done, "" for everything.
        limit: of entries that are looked at, the newest.
    """

    q: str = ""
    what: str = ""
    limit: int = LIMITS[0]

    @classmethod
    def read(cls, query: Mapping[str, str]) -> AuditChoice:
        """From an address; what makes no sense there is as if it were not there."""
        limits = {str(limit): limit for limit in LIMITS}
        return cls(
            query.get("q", "").strip()[:100],
            query.get("what", "")[:100],
            limits.get(query.get("limit", ""), LIMITS[0]),
        )

    def of(self, entries: Iterable[AuditEntry]) -> list[AuditEntry]:
        return [entry for entry in entries if self._fits(entry)]

    def _fits(self, entry: AuditEntry) -> bool:
        if self.what and entry.what != self.what:
            return False
        words = (entry.who, entry.what, entry.whom, entry.source, entry.detail)
        return not self.q or any(self.q.lower() in each.lower() for each in words)


class AuditPage:
    """Shows it."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    async def show(self, request: Request, session: Session) -> Response:
        choice = AuditChoice.read(request.query_params)
        entries = await self._panel.administration.audit(choice.limit)
        kinds = {entry.what for entry in entries} | ({choice.what} if choice.what else set())
        return await self._panel.page(
            request,
            session,
            "audit.html",
            watch={"kind": "log", "name": ""},
            choice=choice,
            entries=choice.of(entries),
            looked=len(entries),
            kinds=sorted(kinds),
            limits=LIMITS,
        )
