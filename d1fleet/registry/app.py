"""The application: everything that is answered over HTTP, and what stands before it."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from typing import Any, Literal

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from .. import __version__
from . import api_admin, api_hosts, metrics
from .access import Access
from .guard import Guard
from .openapi import Api, described
from .shared import Shared

OPENAPI = "/api/v1/openapi.json"


class HealthView(TypedDict):
    """Whether all is well."""

    status: Literal["ok", "degraded"]


class _MetricsText(Response):
    media_type = metrics.CONTENT_TYPE


def build_app(shared: Shared, *, local: bool = False) -> Guard:
    """An ASGI application.

    Args:
        local: for the socket of this machine: who may open it is an operator, and there is no panel.
    """
    if local:
        access = Access(
            shared.core,
            shared.administration,
            shared.gate,
            shared.options,
            shared.secret,
            local=True,
        )
        shared = replace(shared, access=access)
    app = Api(
        title="d1fleet registry",
        description="Hosts that come and go, the projects they are in, and who may compile for whom.",
        version=__version__,
        openapi_url=OPENAPI,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=shared.failures.handlers(),
    )
    direct = api_hosts.add_routes(app, shared)
    api_admin.add_routes(app, shared, local)
    _add_looks(app, shared)
    if not local and (panel := _panel()) is not None:
        app.include_router(panel.router(shared))
    return Guard(app, shared, direct, local)


def _panel() -> Any:
    name = f"{__package__}.panel"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def _add_looks(app: FastAPI, shared: Shared) -> None:
    async def healthz(request: Request) -> Response:
        """Whether all is well. Nobody is asked who they are."""
        well = not shared.core.trouble
        body = json.dumps({"status": "ok" if well else "degraded"})
        return Response(body, 200 if well else 503, media_type="application/json")

    async def show_metrics(request: Request) -> Response:
        """Figures, as Prometheus reads them. A viewer's key is enough."""
        shared.access.reader(request)
        return _MetricsText(shared.metrics.text())

    described_so = described(200, HealthView, security=[])
    described_so["responses"] = {
        200: {"model": HealthView, "description": "All is well"},
        503: {"model": HealthView, "description": "The database cannot be written"},
    }
    app.add_api_route("/healthz", healthz, methods=["GET"], tags=["looks"], **described_so)
    app.add_api_route(
        "/metrics",
        show_metrics,
        methods=["GET"],
        tags=["looks"],
        response_class=_MetricsText,
        **described(200),
    )
