"""The control panel: its addresses, and signing in and out. Pages only show; what changes something is in
`panel_projects`, `panel_hosts` and `panel_people`, and goes by POST.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from .access import Session
from .gate import TooManyError
from .panel_audit import AuditPage
from .panel_forms import Form, own_page
from .panel_hosts import HostPages
from .panel_page import Panel, to
from .panel_people import PeoplePages
from .panel_projects import ProjectPages
from .panel_static import Static
from .refusals import Refused
from .shared import Shared


def router(shared: Shared) -> APIRouter:
    """All addresses of the panel."""
    panel = Panel(shared)
    projects, hosts, people = ProjectPages(panel), HostPages(panel), PeoplePages(panel)
    doors = _Doors(panel)
    pages = APIRouter()
    pages.add_route("/static/{name}", Static().answer, ["GET"])
    pages.add_route("/sign-in", doors.show, ["GET"])
    pages.add_route("/sign-in", doors.sign_in, ["POST"])
    pages.add_route("/sign-out", panel.guarded(doors.sign_out, changes=False), ["POST"])
    for method, path, handler in (
        ("GET", "/audit", AuditPage(panel).show),
        *projects.routes(),
        *hosts.routes(),
        *people.routes(),
    ):
        changes = method == "POST" or path.endswith(QUESTIONS)
        pages.add_route(path, panel.guarded(handler, changes), [method])
    for path, page in FORMS.items():
        pages.add_route(path, _leads_to(page), ["GET"])
    return pages


QUESTIONS = (
    *("/delete", "/revoke", "/rotate", "/remove", "/password"),
    *("/drain", "/undrain", "/expunge", "/readmit", "/forget"),
)
"""How addresses end of pages that ask before something is changed: viewers have no use for them."""

FORMS = {
    "/projects": "/",
    "/projects/{name}/settings": "/projects/{name}",
    "/projects/{name}/tokens": "/projects/{name}",
    "/hosts": "/",
    "/hosts/{name}/change": "/hosts/{name}",
    "/people/operators": "/people",
    "/people/keys": "/people",
}
"""Where forms go, and whose address a browser shows when they were refused -> the page that they are on."""


def _leads_to(page: str) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        names = {key: quote(value, safe="") for key, value in request.path_params.items()}
        return to(page.format(**names))

    return route


class _Doors:
    """Signing in and out."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    async def show(self, request: Request) -> Response:
        page = own_page(request.query_params.get("next", ""))
        if self._panel.shared.access.session(request) is not None:
            return to(page)
        return await self._form(request, Form("sign-in", {"name": "", "next": page}))

    async def sign_in(self, request: Request) -> Response:
        access = self._panel.shared.access
        typed = {"name": "", "next": "/"}
        try:
            fields = await self._panel.fields(request)
            typed = {"name": fields.get("name", ""), "next": own_page(fields.get("next", ""))}
            session = await access.sign_in(request, typed["name"], fields.get("password", ""))
        except Refused as error:
            again = await self._form(request, Form("sign-in", typed).refused(error, ()), error.status)
            if isinstance(error, TooManyError):
                again.headers["Retry-After"] = str(error.retry_after_s)
            return again
        response = to(typed["next"])
        access.set_cookie(request, response, session)
        return response

    async def sign_out(self, request: Request, session: Session) -> Response:
        fields = await self._panel.fields(request)
        response = to("/sign-in?signed_out=1")
        self._panel.shared.access.sign_out(request, response, fields.get("csrf", ""))
        return response

    async def _form(self, request: Request, form: Form, status: int = 200) -> Response:
        return await self._panel.page(
            request,
            None,
            "sign_in.html",
            status,
            form=form,
            signed_out="signed_out" in request.query_params,
            anybody=bool(self._panel.core.operators),
        )
