"""What hosts ask for, over HTTP: to join, to check in, to wait for news, to leave.

These are asked for by the hundred each second: a request is validated once, and an answer is bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Literal, NotRequired

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from .access import bearer
from .answer import Answer
from .guard import Endpoint
from .openapi import OF_HOSTS, described
from .reading import read
from .refusals import Refused
from .schemas import CheckIn, Join, Leave, Wait
from .shared import Shared
from .views import StateName

JSON = "application/json"


class PeerView(TypedDict):
    """A host that compiles for others."""

    name: str
    address: str
    slots: int
    port: int
    options: list[str]
    transport: Literal["tcp", "ssh"]
    ssh_port: int
    host_keys: list[str]


class DocumentView(TypedDict):
    """What members of a project are told of each other: the same for all of them.

    Attributes:
        members: who may connect to their compile servers.
        left_out: name -> why peers do not get that host.
    """

    revision: str
    ranges: list[str]
    options: list[str]
    peers: list[PeerView]
    members: list[str]
    left_out: dict[str, str]


class AnswerView(TypedDict):
    """What a host is told. Projects are those that differ from what it knows.

    Attributes:
        epoch: another one after each start of the registry.
        message: why peers do not get this host, "" where they do.
        all: every project of this host.
        credential: only where it has to be replaced.
    """

    epoch: str
    beat_s: float
    jitter: float
    gone_after_s: float
    name: str
    state: StateName
    message: str
    all: list[str]
    projects: dict[str, DocumentView]
    credential: NotRequired[str]


class JoinedView(AnswerView):
    """What a host is told that has joined."""

    id: str


def add_routes(app: FastAPI, shared: Shared) -> dict[str, Endpoint]:
    """Have an application answer hosts.

    Returns:
        path -> what answers a POST to it, for whoever wants to go there straight.
    """
    desk = _Desk(shared)
    routes: list[tuple[str, Callable[[Request], Any], dict[str, Any]]] = [
        ("join", desk.join, described(201, JoinedView, takes=Join, security=[*OF_HOSTS, {}], also=(409,))),
        ("checkin", desk.check_in, described(200, AnswerView, takes=CheckIn, security=OF_HOSTS, also=(409,))),
        ("wait", desk.wait, described(200, AnswerView, takes=Wait, security=OF_HOSTS)),
        ("leave", desk.leave, described(204, takes=Leave, security=OF_HOSTS)),
    ]
    for name, endpoint, described_so in routes:
        app.add_api_route(
            f"/api/v1/{name}", endpoint, methods=["POST"], operation_id=name, tags=["hosts"], **described_so
        )
    return {f"/api/v1/{name}": endpoint for name, endpoint, _ in routes}


class _Desk:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._hosts = shared.hosts
        self._gate = shared.gate
        self._metrics = shared.metrics

    async def join(self, request: Request) -> Response:
        """Let a host into the project of a join token; one that shows its credential is in others already."""
        source = self._shared.access.source(request)
        self._gate.join(source)
        body = await read(request, Join)
        with self._counted(source):
            credential, host, answer = await self._hosts.join(
                body.token, body.name, body.report.report(), source, _shown(request)
            )
        head = {**answer.head, "credential": credential, "id": host.id}
        return Response(replace(answer, head=head).body(), 201, media_type=JSON)

    async def check_in(self, request: Request) -> Response:
        """Take what a host says of itself, and tell it what it does not know yet."""
        began_s = time.perf_counter()
        source = self._shared.access.source(request)
        with self._counted(source):
            credential = _wanted(request)
            self._gate.check_in(credential)
            body = await read(request, CheckIn)
            answer = await self._hosts.check_in(credential, body.report.report(), body.known, source)
        self._metrics.checkins.inc()
        self._metrics.checkin_s.observe(time.perf_counter() - began_s)
        return _said(answer)

    async def wait(self, request: Request) -> Response:
        """Answer as soon as there is something that the host does not know, or after so many seconds."""
        with self._counted(self._shared.access.source(request)):
            credential = _wanted(request)
            self._gate.wait(credential)
            body = await read(request, Wait)
            limit_s = 0 if self._shared.ending.is_set() else body.wait_s
            answer = await _while_there(request, self._hosts.wait(credential, body.known, limit_s))
        # Nobody is there to read it.
        return Response(status_code=204) if answer is None else _said(answer)

    async def leave(self, request: Request) -> Response:
        """Let a host go: until it checks in again, or for good."""
        source = self._shared.access.source(request)
        with self._counted(source):
            credential = _wanted(request)
            self._gate.check_in(credential)
            body = await read(request, Leave)
            await self._hosts.leave(credential, body.for_good, source)
        return Response(status_code=204)

    @contextlib.contextmanager
    def _counted(self, source: str) -> Any:
        """Count what shows that somebody guesses."""
        try:
            yield
        except Refused as error:
            if error.code in ("credential", "token"):
                self._gate.failed(source)
            raise


def _shown(request: Request) -> str:
    """The credential of a request that may have one.

    Raises:
        Refused: 401, its header holds something else.
    """
    return _wanted(request) if "authorization" in request.headers else ""


def _wanted(request: Request) -> str:
    """The credential of a request that has to have one."""
    found = bearer(request)
    if not found:
        raise Refused(
            401,
            "credential",
            "a host has to show its credential",
            "send Authorization: Bearer; see d1fleet join",
        )
    return found


def _said(answer: Answer) -> Response:
    return Response(answer.body(), media_type=JSON)


async def _while_there(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """Go on as long as whoever asks is there; None for one who has gone."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for each in (working, gone):
            each.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
