"""The document that describes the API: what FastAPI knows, and what it need not look at for each request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .access import COOKIE, CSRF_HEADER
from .schemas import REQUESTS, ErrorBody

_REFERENCE = "#/components/schemas/{model}"

_COMMON = {
    400: "The body is no JSON",
    401: "Nobody that is known asks",
    403: "Whoever asks may not do that",
    408: "The body was not there in time",
    413: "The body is too large",
    415: "The body is of another kind",
    422: "A field cannot be used; `field` names it",
    429: "Too many; Retry-After says when to try again",
    500: "A mistake of the registry",
    503: "The database cannot be written; nothing was changed",
}
_MORE = {404: "There is no such thing", 409: "Something stands in the way"}

_SECURITY = {
    "credential": {
        "type": "http",
        "scheme": "bearer",
        "description": "What a host gets when it joins. It speaks for that host alone.",
    },
    "key": {"type": "http", "scheme": "bearer", "description": "An API key: d1fleet registry key create."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"Whoever has signed in at the panel. Changes need {CSRF_HEADER} beside it.",
    },
}

OF_HOSTS: list[dict[str, list[str]]] = [{"credential": []}]
OF_OPERATORS: list[dict[str, list[str]]] = [{"key": []}, {"session": []}]


def described(
    status: int,
    view: Any = None,
    *,
    takes: type[BaseModel] | None = None,
    security: list[dict[str, list[str]]] = OF_OPERATORS,
    also: tuple[int, ...] = (),
) -> dict[str, Any]:
    """What FastAPI is told of a route.

    Args:
        status: when all is well.
        view: what is answered then; None for nothing.
        takes: the body.
        security: who may ask.
        also: further statuses.
    """
    well: dict[str, Any] = {"description": "All is well"}
    if view is not None:
        well["model"] = view
    extra: dict[str, Any] = {"security": security}
    if takes is not None:
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(takes)}},
        }
    refusals = {**_COMMON, **{each: _MORE[each] for each in also}}
    return {
        "status_code": status,
        "response_model": None,
        "responses": {status: well, **{each: _refusal(refusals[each]) for each in sorted(refusals)}},
        "openapi_extra": extra,
    }


def _refusal(words: str) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": _reference(ErrorBody)}}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


class Api(FastAPI):
    """An application that describes all of itself."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            found = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            models: list[type[BaseModel]] = [*REQUESTS, ErrorBody]
            _, definitions = models_json_schema(
                [(each, "validation") for each in models], ref_template=_REFERENCE
            )
            components = found.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions.get("$defs", {}))
            components["securitySchemes"] = _SECURITY
            self.openapi_schema = found
        return self.openapi_schema
