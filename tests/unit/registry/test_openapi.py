"""The OpenAPI document: complete, true, and the service is asked for what it allows and what it forbids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as conformance

from d1fleet.registry.app import OPENAPI

from .inthread import InThread, in_thread
from .memory_store import SOMEBODY, report
from .web import ADMIN, PASSWORD, Web, as_json, with_web

QUICK, LONG = 5, 400
"""Examples for each operation and kind: in the gate, and in the run that takes minutes."""

ENDLESS = f"{ADMIN}/events"
"""It never ends; test_events looks at it."""

CHECKS: list[Any] = [
    schemathesis.checks.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_headers_conformance,
    conformance.response_schema_conformance,
    conformance.negative_data_rejection,
    conformance.unsupported_method,
    conformance.allow_header_conformance,
]
"""Left out: positive_data_acceptance, as a schema cannot say which networks a project has, or which token
holds; ignored_auth, as test_api_admin asks every path without a key.
"""

THERE = {"project": "engine", "host": "alder", "operator": "ada"}
"""Things that are there, for paths."""


@pytest.fixture
def service() -> Iterator[InThread]:
    with in_thread() as found:
        yield found


async def _furnish(web: Web) -> dict[str, str]:
    """What is there before each example, whatever the last one has done: a credential and a key."""
    admin, core = web.registry.admin, web.registry.core
    if "engine" not in core.pool.projects:
        await admin.create_project(SOMEBODY, "engine", ("192.0.2.0/24",))
    if "ada" not in core.operators:
        await admin.put_operator(SOMEBODY, "ada", PASSWORD)
    if core.pool.named("alder") is None:
        token, _ = await admin.create_token(SOMEBODY, "engine")
        web.key = ""
        credential, _, _ = await web.shared.hosts.join(token, "alder", report("alder"), "192.0.2.11")
        _FOUND["credential"] = credential
    if not web.key or web.key.split("_")[1] not in core.keys:
        web.key, _ = await admin.create_key(SOMEBODY, "operator")
    return {"key": web.key, "credential": _FOUND["credential"]}


_FOUND: dict[str, str] = {}


def _document(service: InThread) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(service.url + OPENAPI, timeout=20).json()
    return found


def _fuzz(service: InThread, examples: int) -> int:
    """Ask for everything; how often that was."""
    schema = schemathesis.openapi.from_dict(_document(service))
    found: list[Any] = list(schema.get_all_operations())
    operations = [each.ok() for each in found]
    return sum(
        _ask(service, operation, mode, examples)
        for operation in operations
        if operation.path != ENDLESS
        for mode in GenerationMode
    )


def _ask(service: InThread, operation: Any, mode: GenerationMode, examples: int) -> int:
    whose = "credential" if {"credential": []} in operation.definition.raw["security"] else "key"
    asked = 0

    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        secret = service.do(lambda: _furnish(service.web))[whose]
        if mode is GenerationMode.POSITIVE:
            for name in set(THERE) & set(case.path_parameters or ()):
                case.path_parameters[name] = THERE[name]
        bearer = {"Authorization": f"Bearer {secret}"}
        case.call_and_validate(service.url, headers=bearer, checks=CHECKS, timeout=20)

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        # There is nothing that could be wrong with it.
        assert mode is GenerationMode.NEGATIVE and "requestBody" not in operation.definition.raw
    return asked


@pytest.mark.timeout(300)
def test_the_service_is_as_it_is_described(service: InThread) -> None:
    assert _fuzz(service, QUICK) > 200


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_service_is_as_it_is_described_at_length(service: InThread) -> None:
    assert _fuzz(service, LONG) > 10_000


@with_web
async def test_nothing_is_left_out(web: Web) -> None:
    """Every path of the API is described, with who may ask, and every refusal as all of them are."""
    document = (await (await web.client()).get(OPENAPI)).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    routed = {
        (method, route.path)
        for route in web.app._app.routes
        if getattr(route, "path", "").startswith(("/api/", "/metrics", "/healthz")) and route.path != OPENAPI
        for method in route.methods
    }
    assert described == routed
    schemes = set(document["components"]["securitySchemes"])
    identities = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            identities.append(operation["operationId"])
            assert operation["description"], where
            wanted: list[dict[str, list[str]]] = [{"key": []}, {"session": []}]
            if re.fullmatch(r"/api/v1/[a-z]+", path):
                wanted = [{"credential": []}, {}] if path.endswith("/join") else [{"credential": []}]
            elif path == "/healthz":
                wanted = []
            assert operation["security"] == wanted, where
            assert {name for each in operation["security"] for name in each} <= schemes
            assert ("requestBody" in operation) == (_takes_a_body(method, path)), where
            for status, response in operation["responses"].items():
                if path == "/healthz" or int(status) < 400:
                    continue
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"}, where
                assert list(response["content"]) == ["application/json"], where
    assert len(set(identities)) == len(identities)


def _takes_a_body(method: str, path: str) -> bool:
    verbs = ("drain", "undrain", "expunge", "readmit", "forget", "rotate")
    return method in ("post", "patch") and not path.endswith(verbs)


@with_web
async def test_references_lead_somewhere(web: Web) -> None:
    text = (await (await web.client()).get(OPENAPI)).text
    document = (await (await web.client()).get(OPENAPI)).json()
    names = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert names <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in text
    # Nothing in it is a place of this machine, or of the code.
    assert "/work" not in text and "d1fleet.registry" not in text


@with_web
async def test_a_report_that_is_taken_is_described_so(web: Web) -> None:
    """The other way round: what hosts send is what the document wants."""
    document = (await (await web.client()).get(OPENAPI)).json()
    schema = document["components"]["schemas"]["ReportBody"]
    sent = as_json(report("alder", version="0.1.0"))
    assert set(schema["required"]) == set(schema["properties"]) == set(sent)
    for name, value in sent.items():
        pattern = schema["properties"][name].get("pattern")
        if pattern:
            assert re.search(pattern, value), name
