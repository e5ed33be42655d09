"""How a refusal is answered: always as {"error": {"code", "message", "field"?, "mend"?}}.

Messages may have names in them that somebody has sent: what is not plain text is taken out here, for all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from .gate import TooManyError
from .metrics import Metrics
from .model import FieldError, plain
from .refusals import Refused, unusable
from .schemas import field_name

log = logging.getLogger("d1fleet.registry.http")

LONGEST_MESSAGE = 500
TROUBLE_S = 5
"""When to try again where the database cannot be written: about as soon as somebody may have mended it."""


Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]


def error_response(error: Refused, headers: Mapping[str, str] | None = None) -> Response:
    """What is answered."""
    parts = {
        "code": error.code,
        "message": plain(error.message, LONGEST_MESSAGE),
        "field": plain(error.field, LONGEST_MESSAGE),
        "mend": plain(error.mend, LONGEST_MESSAGE),
    }
    shown = {name: text for name, text in parts.items() if text or name in ("code", "message")}
    sent = dict(headers or {})
    if error.status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyError):
        sent["Retry-After"] = str(error.retry_after_s)
    elif error.status == 503:
        sent["Retry-After"] = str(TROUBLE_S)
    return Response(json.dumps({"error": shown}), error.status, headers=sent, media_type="application/json")


class Failures:
    """Answers to whatever goes wrong while a request is looked at."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def answer(self, error: Exception, headers: Mapping[str, str] | None = None) -> Response:
        """The answer to an exception; what nobody has thought of is logged, and says nothing outside."""
        if isinstance(error, FieldError):
            error = unusable(error)
        if not isinstance(error, Refused):
            log.error("a request has failed", exc_info=error)
            error = Refused(500, "internal", "the registry has made a mistake", "see its log")
        self._metrics.refused(error.code)
        return error_response(error, headers)

    def handlers(self) -> dict[int | type[Exception], Handler]:
        """For FastAPI."""
        return {
            Refused: self._refused,
            FieldError: self._refused,
            RequestValidationError: self._invalid,
            HTTPException: self._http,
            Exception: self._refused,
        }

    async def _refused(self, request: Request, error: Exception) -> Response:
        return self.answer(error)

    async def _invalid(self, request: Request, error: Exception) -> Response:
        """A parameter of the path or the query."""
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = field_name(first["loc"][1:])
        # pydantic's own words: no value is in them.
        fault = str(first["msg"]).partition(" should ")[2] or "be something else"
        return self.answer(Refused(422, "field", f"{name}: it has to {fault}", field=name))

    async def _http(self, request: Request, error: Exception) -> Response:
        """What FastAPI itself refuses."""
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return self.answer(Refused(404, "path", "there is nothing at this path"))
        if error.status_code == 405:
            first = (error.headers or {}).get("Allow", "").split(", ")
            allowed = ", ".join(sorted(_methods(request).union(filter(None, first))))
            return self.answer(Refused(405, "method", f"this path takes {allowed} alone"), {"Allow": allowed})
        return self.answer(Refused(error.status_code, "http", "this request cannot be used"))


def _methods(request: Request) -> set[str]:
    """All that a path takes: FastAPI knows those of the first route that fits."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return found | ({"HEAD"} if "GET" in found else set())
