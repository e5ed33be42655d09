"""Pages of projects, the overview among them, and what can be done there."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from ..words import counted
from .access import Session
from .administration import By
from .model import Project
from .panel_forms import NEW_PROJECT, PROJECT_FIELDS, Form, project_settings, project_values, typed_project
from .panel_page import Handler, Panel
from .panel_questions import Input, Question, answer, ask
from .panel_rows import Choice
from .refusals import Refused


class ProjectPages:
    """The overview, and a page for each project."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._admin = panel.administration

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        page = "/projects/{name}"
        return (
            ("GET", "/", self.overview),
            ("POST", "/projects", self.create),
            ("GET", page, self.show),
            ("POST", f"{page}/settings", self.change),
            ("GET", f"{page}/delete", self.ask_delete),
            ("POST", f"{page}/delete", self.delete),
            ("POST", f"{page}/tokens", self.create_token),
            ("GET", f"{page}/tokens/rotate", self.ask_rotate),
            ("POST", f"{page}/tokens/rotate", self.rotate),
            ("GET", f"{page}/tokens/{{token}}/revoke", self.ask_revoke),
            ("POST", f"{page}/tokens/{{token}}/revoke", self.revoke),
        )

    # Pages

    async def overview(self, request: Request, session: Session) -> Response:
        return await self._overview(request, session, Form("new", NEW_PROJECT))

    async def _overview(self, request: Request, session: Session, form: Form, status: int = 200) -> Response:
        look = self._panel.rows.look()
        hosts = self._admin.hosts()
        return await self._panel.page(
            request,
            session,
            "overview.html",
            status,
            watch={"kind": "all", "name": ""},
            here="/",
            projects=[look.project(project) for project in self._admin.projects()],
            total=look.total(hosts),
            listing=look.listing(hosts, Choice.read(request.query_params)),
            form=form,
        )

    async def show(self, request: Request, session: Session) -> Response:
        return await self._project(request, session, self._project_of(request))

    async def _project(
        self,
        request: Request,
        session: Session,
        project: Project,
        form: Form | None = None,
        token_form: Form | None = None,
        status: int = 200,
    ) -> Response:
        look = self._panel.rows.look()
        return await self._panel.page(
            request,
            session,
            "project.html",
            status,
            watch={"kind": "project", "name": project.name},
            here=f"/projects/{project.name}",
            row=look.project(project),
            listing=look.listing(self._admin.hosts(project.name), Choice.read(request.query_params)),
            old_clients=look.old_clients(project.name),
            tokens=self._admin.tokens(project.name),
            form=form or Form("settings", project_values(project)),
            token_form=token_form or Form("token"),
            own_address=_is_own(self._panel.shared.access.url(request)),
        )

    def _project_of(self, request: Request) -> Project:
        return self._admin.project(request.path_params["name"])

    # Changes

    async def create(self, request: Request, session: Session) -> Response:
        typed: Mapping[str, Any] = NEW_PROJECT
        try:
            fields = await self._panel.fields(request)
            typed = typed_project(fields)
            by = self._panel.shared.access.changer(request, fields.get("csrf", ""))
            project = await self._admin.create_project(by, typed["name"], **project_settings(typed))
        except Refused as error:
            form = Form("new", typed).refused(error, PROJECT_FIELDS)
            return await self._overview(request, session, form, error.status)
        return self._panel.done(
            session, f"/projects/{project.name}", f"Project {project.name} is there. Next: join hosts to it."
        )

    async def change(self, request: Request, session: Session) -> Response:
        project = self._project_of(request)
        typed: Mapping[str, Any] = project_values(project)
        try:
            fields = await self._panel.fields(request)
            typed = typed_project(fields)
            by = self._panel.shared.access.changer(request, fields.get("csrf", ""))
            await self._admin.change_project(by, project.name, **project_settings(typed))
        except Refused as error:
            form = Form("settings", typed).refused(error, PROJECT_FIELDS)
            return await self._project(request, session, project, form=form, status=error.status)
        return self._panel.done(session, f"/projects/{project.name}", "The settings are saved.")

    async def create_token(self, request: Request, session: Session) -> Response:
        project = self._project_of(request)
        note = ""
        try:
            fields = await self._panel.fields(request)
            note = fields.get("note", "").strip()
            by = self._panel.shared.access.changer(request, fields.get("csrf", ""))
            text, _ = await self._admin.create_token(by, project.name, note)
        except Refused as error:
            form = Form("token", {"note": note}).refused(error, ("note",))
            return await self._project(request, session, project, token_form=form, status=error.status)
        return self._with_command(request, session, project.name, text, "There is a new join token.")

    def _with_command(
        self, request: Request, session: Session, project: str, token: str, text: str
    ) -> Response:
        shared = self._panel.shared
        pin = ["--pin", shared.pin] if shared.pin else []
        # The address may come from a browser's request; whatever it is, it is one word in a shell.
        command = shlex.join(["d1fleet", "join", shared.access.url(request), *pin, "--token", token])
        return self._panel.done(session, f"/projects/{project}", text, command, "join-now")

    # What is asked before

    async def ask_delete(self, request: Request, session: Session) -> Response:
        return await ask(self._panel, request, session, self._deleting(request))

    def _deleting(self, request: Request) -> Question:
        project = self._project_of(request)
        count = len(self._admin.hosts(project.name))
        hosts = f"{counted(count, 'host')} will leave it" if count else "It has no hosts"
        return Question(
            f"Delete project {project.name}?",
            (
                f"{hosts}, and its join tokens will be void.",
                "A backup of the database is the only way back.",
            ),
            "Delete project",
            f"/projects/{project.name}/delete",
            f"/projects/{project.name}",
            inputs=(Input("typed", "To be sure, type its name", most=63),),
        )

    async def delete(self, request: Request, session: Session) -> Response:
        name = self._project_of(request).name

        async def do(by: By, fields: Mapping[str, str]) -> Response:
            if fields.get("typed", "").strip() != name:
                raise Refused(422, "field", f"typed: it is not {name}", field="typed")
            await self._admin.delete_project(by, name, with_hosts=True)
            return self._panel.done(session, "/", f"Project {name} is deleted.")

        return await answer(self._panel, request, session, self._deleting(request), do)

    async def ask_rotate(self, request: Request, session: Session) -> Response:
        return await ask(self._panel, request, session, self._rotating(request))

    def _rotating(self, request: Request) -> Question:
        project = self._project_of(request)
        return Question(
            f"Rotate the join tokens of {project.name}?",
            ("All of them become void, and you get a new one. Hosts that have joined stay.",),
            "Rotate",
            f"/projects/{project.name}/tokens/rotate",
            f"/projects/{project.name}",
        )

    async def rotate(self, request: Request, session: Session) -> Response:
        async def do(by: By, fields: Mapping[str, str]) -> Response:
            name = request.path_params["name"]
            text, _ = await self._admin.rotate_tokens(by, name)
            return self._with_command(
                request, session, name, text, "All join tokens but the new one are void."
            )

        return await answer(self._panel, request, session, self._rotating(request), do)

    async def ask_revoke(self, request: Request, session: Session) -> Response:
        return await ask(self._panel, request, session, self._revoking(request))

    def _revoking(self, request: Request) -> Question:
        project, identity = self._project_of(request), request.path_params["token"]
        token = next((each for each in self._admin.tokens(project.name) if each.id == identity), None)
        if token is None:
            raise Refused(404, "unknown", "there is no such join token any more")
        note = f" ({token.note})" if token.note else ""
        return Question(
            f"Revoke join token {identity}{note}?",
            ("No host can join with it any more. Hosts that have joined stay.",),
            "Revoke",
            f"/projects/{project.name}/tokens/{identity}/revoke",
            f"/projects/{project.name}",
        )

    async def revoke(self, request: Request, session: Session) -> Response:
        question = self._revoking(request)

        async def do(by: By, fields: Mapping[str, str]) -> Response:
            await self._admin.revoke_token(by, request.path_params["name"], request.path_params["token"])
            return self._panel.done(session, question.back, "The join token is void.")

        return await answer(self._panel, request, session, question, do)


def _is_own(url: str) -> bool:
    """Does it lead hosts to themselves?"""
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
