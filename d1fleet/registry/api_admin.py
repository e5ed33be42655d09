"""What operators ask for, over HTTP: projects, tokens, hosts, and who may do it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from . import model, views
from .backup import document
from .events import EventStream
from .model import Token
from .openapi import described
from .reading import read
from .refusals import Refused
from .schemas import (
    ChangeHost,
    ChangeProject,
    CreateKey,
    CreateProject,
    CreateToken,
    PutOperator,
    given,
)
from .shared import Shared
from .statements import KEEP_AUDIT
from .views import (
    AuditView,
    HostView,
    Inventory,
    KeyView,
    OperatorView,
    ProjectView,
    TokenView,
)

MOST_AUDIT = 1000

ProjectPath = Annotated[str, Path(max_length=63, pattern=f"^(?:{model.PROJECT_NAME.pattern})$")]
HostPath = Annotated[str, Path(max_length=100, pattern="^[a-z0-9][a-z0-9.-]*$")]
OperatorPath = Annotated[str, Path(max_length=32, pattern=f"^(?:{model.OPERATOR_NAME.pattern})$")]
IdPath = Annotated[str, Path(max_length=8, pattern="^[0-9a-f]{8}$")]


class NewToken(TokenView):
    """A join token that was made just now: its text is shown this once.

    Attributes:
        url: by which hosts reach the registry, "" where that is not known.
        pin: of its certificate, "" without TLS.
    """

    token: str
    url: str
    pin: str


class NewKey(KeyView):
    """An API key that was made just now: its text is shown this once."""

    key: str


class _Events(Response):
    media_type = "text/event-stream"


def add_routes(app: FastAPI, shared: Shared, local: bool) -> None:
    """Have an application answer operators.

    Args:
        local: by the socket of this machine, which gives backups, too: the registry's secret is in them.
    """
    for each in (_projects, _tokens, _hosts, _people, _looks, *([_backup] if local else [])):
        each(_Routes(app, each.__name__.strip("_")), shared)


class _Routes:
    """Adds routes below /api/v1/admin, described as they are."""

    def __init__(self, app: FastAPI, tag: str) -> None:
        self._app = app
        self._tag = tag

    def add(
        self, method: str, path: str, status: int, view: Any = None, response: Any = None, **more: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def take(endpoint: Callable[..., Any]) -> Callable[..., Any]:
            self._app.add_api_route(
                f"/api/v1/admin{path}",
                endpoint,
                methods=[method],
                tags=[self._tag],
                operation_id=endpoint.__name__,
                **({} if response is None else {"response_class": response}),
                **described(status, view, **more),
            )
            return endpoint

        return take


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")


def _nothing() -> Response:
    return Response(status_code=204)


def _projects(routes: _Routes, shared: Shared) -> None:
    core, administration, access = shared.core, shared.administration, shared.access

    @routes.add("GET", "/projects", 200, list[ProjectView])
    async def list_projects(request: Request) -> Response:
        """All projects."""
        access.reader(request)
        return _json(views.projects(core, administration.projects()))

    @routes.add("POST", "/projects", 201, ProjectView, takes=CreateProject, also=(409,))
    async def create_project(request: Request) -> Response:
        """Make a project."""
        by = access.changer(request)
        body = await read(request, CreateProject)
        project = await administration.create_project(by, **dict(body))
        return _json(views.project(core, project), 201)

    @routes.add("GET", "/projects/{project}", 200, ProjectView, also=(404,))
    async def show_project(request: Request, project: ProjectPath) -> Response:
        """One project."""
        access.reader(request)
        return _json(views.project(core, administration.project(project)))

    @routes.add("PATCH", "/projects/{project}", 200, ProjectView, takes=ChangeProject, also=(404,))
    async def change_project(request: Request, project: ProjectPath) -> Response:
        """Change what is given of a project."""
        by = access.changer(request)
        body = await read(request, ChangeProject)
        changed = await administration.change_project(by, project, **given(body))
        return _json(views.project(core, changed))

    @routes.add("DELETE", "/projects/{project}", 204, also=(404, 409))
    async def delete_project(
        request: Request, project: ProjectPath, with_hosts: Annotated[bool, Query()] = False
    ) -> Response:
        """Delete a project. With hosts in it only where they shall leave it."""
        by = access.changer(request)
        await administration.delete_project(by, project, with_hosts)
        return _nothing()


def _tokens(routes: _Routes, shared: Shared) -> None:
    administration, access = shared.administration, shared.access

    def shown(request: Request, text: str, token: Token) -> Response:
        where = {"url": access.url(request), "pin": shared.pin}
        return _json({**views.token(token), "token": text, **where}, 201)

    @routes.add("GET", "/projects/{project}/tokens", 200, list[TokenView], also=(404,))
    async def list_tokens(request: Request, project: ProjectPath) -> Response:
        """A project's join tokens, without what is secret in them."""
        access.reader(request)
        return _json([views.token(each) for each in administration.tokens(project)])

    @routes.add("POST", "/projects/{project}/tokens", 201, NewToken, takes=CreateToken, also=(404,))
    async def create_token(request: Request, project: ProjectPath) -> Response:
        """Make a join token. It is shown this once."""
        by = access.changer(request)
        body = await read(request, CreateToken)
        return shown(request, *await administration.create_token(by, project, body.note))

    # In front of the one with an id, which would take `rotate` for one.
    @routes.add("POST", "/projects/{project}/tokens/rotate", 201, NewToken, also=(404,))
    async def rotate_tokens(request: Request, project: ProjectPath) -> Response:
        """Make all join tokens of a project void, and a new one."""
        by = access.changer(request)
        return shown(request, *await administration.rotate_tokens(by, project))

    @routes.add("DELETE", "/projects/{project}/tokens/{token}", 204, also=(404,))
    async def revoke_token(request: Request, project: ProjectPath, token: IdPath) -> Response:
        """Make a join token void. Hosts that have joined by it stay."""
        by = access.changer(request)
        await administration.revoke_token(by, project, token)
        return _nothing()


def _hosts(routes: _Routes, shared: Shared) -> None:
    core, administration, access = shared.core, shared.administration, shared.access

    @routes.add("GET", "/hosts", 200, list[HostView], also=(404,))
    async def list_hosts(request: Request, project: Annotated[str, Query(max_length=63)] = "") -> Response:
        """All hosts, or those of a project."""
        access.reader(request)
        return _json(views.hosts(core, administration.hosts(project)))

    @routes.add("GET", "/hosts/{host}", 200, HostView, also=(404,))
    async def show_host(request: Request, host: HostPath) -> Response:
        """One host."""
        access.reader(request)
        return _json(views.host(core, administration.host(host)))

    @routes.add("PATCH", "/hosts/{host}", 200, HostView, takes=ChangeHost, also=(404,))
    async def change_host(request: Request, host: HostPath) -> Response:
        """Change a host's projects, or fix its address."""
        by = access.changer(request)
        body = await read(request, ChangeHost)
        return _json(views.host(core, await administration.change_host(by, host, **given(body))))

    def add(name: str, words: str) -> None:
        async def do(request: Request, host: HostPath) -> Response:
            by = access.changer(request)
            return _json(views.host(core, await getattr(administration, name)(by, host)))

        do.__name__, do.__doc__ = name, words
        routes.add("POST", f"/hosts/{{host}}/{name}", 200, HostView, also=(404,))(do)

    add("drain", "Have a host compile for nobody; it may go on to send work to others.")
    add("undrain", "Have it compile for others again.")
    add("expunge", "Throw a host out: it stays out until it is re-admitted.")
    add("readmit", "Take a host back that was thrown out, cloned or installed anew.")

    @routes.add("POST", "/hosts/{host}/forget", 204, also=(404,))
    async def forget(request: Request, host: HostPath) -> Response:
        """Have no such host any more, and its credential void."""
        by = access.changer(request)
        await administration.forget(by, host)
        return _nothing()


def _people(routes: _Routes, shared: Shared) -> None:
    administration, access = shared.administration, shared.access

    @routes.add("GET", "/operators", 200, list[OperatorView])
    async def list_operators(request: Request) -> Response:
        """Who may sign in at the panel."""
        access.reader(request)
        return _json([views.operator(each) for each in administration.operators()])

    @routes.add("POST", "/operators", 201, OperatorView, takes=PutOperator)
    async def put_operator(request: Request) -> Response:
        """Add somebody who signs in at the panel, or give them another password."""
        by = access.changer(request)
        body = await read(request, PutOperator)
        return _json(views.operator(await administration.put_operator(by, **dict(body))), 201)

    @routes.add("DELETE", "/operators/{operator}", 204, also=(404,))
    async def remove_operator(request: Request, operator: OperatorPath) -> Response:
        """Let somebody sign in no more; their sessions end."""
        by = access.changer(request)
        await administration.remove_operator(by, operator)
        return _nothing()

    @routes.add("GET", "/keys", 200, list[KeyView])
    async def list_keys(request: Request) -> Response:
        """API keys, without what is secret in them."""
        access.reader(request)
        found = administration.keys()
        return _json([views.key(each) for each in found])

    @routes.add("POST", "/keys", 201, NewKey, takes=CreateKey)
    async def create_key(request: Request) -> Response:
        """Make an API key. It is shown this once."""
        by = access.changer(request)
        body = await read(request, CreateKey)
        text, key = await administration.create_key(by, body.kind, body.note)
        return _json({**views.key(key), "key": text}, 201)

    @routes.add("DELETE", "/keys/{key}", 204, also=(404,))
    async def remove_key(request: Request, key: IdPath) -> Response:
        """Make an API key void."""
        by = access.changer(request)
        await administration.remove_key(by, key)
        return _nothing()


def _looks(routes: _Routes, shared: Shared) -> None:
    core, administration, access = shared.core, shared.administration, shared.access

    @routes.add("GET", "/audit", 200, list[AuditView])
    async def audit(request: Request, limit: Annotated[int, Query(ge=1, le=MOST_AUDIT)] = 200) -> Response:
        """Who did what, the newest first."""
        access.reader(request)
        return _json([views.audit_entry(each) for each in await administration.audit(limit)])

    @routes.add("GET", "/inventory", 200, Inventory)
    async def inventory(request: Request) -> Response:
        """What an Ansible inventory is made from."""
        access.reader(request)
        return _json(views.inventory(core))

    @routes.add("GET", "/events", 200, response=_Events)
    async def events(request: Request) -> Response:
        """Changes, as they happen: server-sent events."""
        access.reader(request)

        def may_go_on() -> bool:
            try:
                access.reader(request)
            except Refused:
                return False
            return True

        return EventStream(core, may_go_on, shared.ending)


def _backup(routes: _Routes, shared: Shared) -> None:
    core, access = shared.core, shared.access

    @routes.add("GET", "/backup", 200, dict[str, Any])
    async def backup(request: Request) -> Response:
        """All that the registry must not lose, with its secret."""
        access.reader(request)
        entries = await core.audit(KEEP_AUDIT)
        async with core.lock:  # what is written is in the pool, too
            snapshot = core.snapshot()
        text = await asyncio.to_thread(lambda: json.dumps(document(snapshot, shared.secret, entries)))
        return Response(text, media_type="application/json")
