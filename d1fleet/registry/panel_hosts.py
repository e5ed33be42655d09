"""A page for each host, and what can be done with hosts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from .access import Session
from .administration import Administration, By
from .model import AuditEntry, Host
from .panel_forms import Form, own_page
from .panel_page import Handler, Panel
from .panel_questions import Question, answer, ask, back_of
from .panel_rows import Row
from .refusals import Refused

LOOK_BACK = 1000
"""Entries of the audit log among which a host's own are looked for."""

MOST_ENTRIES = 50


@dataclass(frozen=True)
class _Action:
    """Something that can be done with a host.

    Attributes:
        title, text, button: of the page that asks before it is done.
        said: afterwards.
        danger: it cannot be taken back, or not by whom it is done to.
    """

    do: Callable[[Administration, By, str], Awaitable[object]]
    title: str
    text: tuple[str, ...]
    button: str
    said: str
    danger: bool = False


_ACTIONS: Mapping[str, _Action] = {
    "drain": _Action(
        Administration.drain,
        "Drain {}?",
        ("Its peers send nothing to it any more. It may go on to send work to others.",),
        "Drain",
        "{} is drained: peers send nothing to it any more.",
    ),
    "undrain": _Action(
        Administration.undrain,
        "Undrain {}?",
        ("Its peers send work to it again.",),
        "Undrain",
        "{} compiles for its peers again.",
    ),
    "expunge": _Action(
        Administration.expunge,
        "Expunge {}?",
        (
            "Its peers turn it away within seconds, and send nothing to it.",
            "It stays out until it is re-admitted, whatever it does.",
        ),
        "Expunge",
        "{} is out until it is re-admitted.",
        danger=True,
    ),
    "readmit": _Action(
        Administration.readmit,
        "Re-admit {}?",
        (
            "Whoever has its credential and checks in next is taken for it, with the SSH host keys that it"
            " has then. Be sure that it is the machine that you mean.",
        ),
        "Re-admit",
        "{} is re-admitted. It is back by its next check-in.",
    ),
    "forget": _Action(
        Administration.forget,
        "Forget {}?",
        (
            "It is removed from all projects, and its credential is void.",
            "It can join again with a join token. To keep a host out, expunge it instead.",
        ),
        "Forget",
        "{} is forgotten.",
        danger=True,
    ),
}


class HostPages:
    """A page for each host, and for each of the actions."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._admin = panel.administration

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        yield "GET", "/hosts/{name}", self.show
        yield "POST", "/hosts/{name}/change", self.change
        for word in _ACTIONS:
            yield "GET", f"/hosts/{{name}}/{word}", self._asking(word)
            yield "POST", f"/hosts/{{name}}/{word}", self._doing(word)

    def _host_of(self, request: Request) -> Host:
        return self._admin.host(request.path_params["name"])

    async def show(self, request: Request, session: Session) -> Response:
        return await self._page(request, session, self._host_of(request))

    async def _page(
        self, request: Request, session: Session, host: Host, form: Form | None = None, status: int = 200
    ) -> Response:
        entries, fault = await self._entries(host)
        projects = [project.name for project in self._admin.projects()]
        row = self._panel.rows.look().row(host)
        return await self._panel.page(
            request,
            session,
            "host.html",
            status,
            watch={"kind": "host", "name": host.name},
            here=f"/hosts/{host.name}",
            row=row,
            references=self._references(row),
            every_project=projects,
            entries=entries,
            entries_fault=fault,
            form=form or Form("change", {"projects": host.projects, "address": host.fixed_address}),
        )

    def _references(self, row: Row) -> list[tuple[list[str], Mapping[str, str]]]:
        """Toolchains that its own differs from, and of which projects they are."""
        found: list[tuple[list[str], Mapping[str, str]]] = []
        for name in row.differs:
            wanted = self._panel.rows.reference(name)
            for names, known in found:
                if known == wanted:
                    names.append(name)
                    break
            else:
                found.append(([name], wanted))
        return found

    async def _entries(self, host: Host) -> tuple[list[AuditEntry], str]:
        """Its own of the audit log. That it cannot be read is no reason not to show the rest."""
        try:
            entries = await self._admin.audit(LOOK_BACK)
        except Refused as error:
            return [], f"The audit log cannot be read: {error.message}"
        own = [entry for entry in entries if entry.whom == host.name or entry.who == f"host:{host.name}"]
        return own[:MOST_ENTRIES], ""

    async def change(self, request: Request, session: Session) -> Response:
        host = self._host_of(request)
        typed: dict[str, object] = {"projects": host.projects, "address": host.fixed_address}
        try:
            fields = await self._panel.fields(request, ["projects"])
            by = self._panel.shared.access.changer(request, fields.get("csrf", ""))
            address = fields.get("address", "").strip()
            chosen = fields.get("projects", "").splitlines()
            # Those that it is in keep their order: new ones come behind.
            projects = [name for name in host.projects if name in chosen]
            projects += [name for name in chosen if name not in host.projects]
            typed = {"projects": projects, "address": address}
            await self._admin.change_host(by, host.name, projects, address)
        except Refused as error:
            form = Form("change", typed).refused(error, ("projects", "address"))
            return await self._page(request, session, host, form, error.status)
        return self._panel.done(session, f"/hosts/{host.name}", "Saved.")

    # Actions

    def _question(self, request: Request, word: str, back: str) -> Question:
        host, action = self._host_of(request), _ACTIONS[word]
        return Question(
            action.title.format(host.name),
            action.text,
            action.button,
            f"/hosts/{host.name}/{word}",
            back,
            action.danger,
        )

    def _asking(self, word: str) -> Handler:
        async def show(request: Request, session: Session) -> Response:
            back = back_of(request, f"/hosts/{request.path_params['name']}")
            return await ask(self._panel, request, session, self._question(request, word, back))

        return show

    def _doing(self, word: str) -> Handler:
        async def act(request: Request, session: Session) -> Response:
            host = self._host_of(request)

            async def do(by: By, fields: Mapping[str, str]) -> Response:
                back = own_page(fields.get("back", ""), f"/hosts/{host.name}")
                await _ACTIONS[word].do(self._admin, by, host.name)
                if word == "forget" and back.startswith(f"/hosts/{host.name}"):
                    back = f"/projects/{host.projects[0]}" if host.projects else "/"
                return self._panel.done(session, back, _ACTIONS[word].said.format(host.name))

            question = self._question(request, word, f"/hosts/{host.name}")
            return await answer(self._panel, request, session, question, do)

        return act
