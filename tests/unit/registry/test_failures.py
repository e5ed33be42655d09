"""How a refusal is answered."""

from __future__ import annotations

import json
from typing import Any

from d1fleet.registry.failures import error_response
from d1fleet.registry.gate import TooManyError
from d1fleet.registry.refusals import Refused, unknown, void_credential

NASTY = "a\x00b\n\x1b[31m\u202e<ü>\x85"


def _body(error: Refused) -> dict[str, Any]:
    response = error_response(error)
    assert response.status_code == error.status
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = json.loads(bytes(response.body))
    assert list(found) == ["error"]
    parts: dict[str, Any] = found["error"]
    return parts


def test_what_is_in_it() -> None:
    assert _body(Refused(409, "exists", "it is there", "take another", "name")) == {
        "code": "exists",
        "message": "it is there",
        "field": "name",
        "mend": "take another",
    }
    assert _body(Refused(404, "unknown", "")) == {"code": "unknown", "message": ""}


def test_what_somebody_has_sent_is_not_repeated_as_it_is() -> None:
    for parts in (_body(unknown("host", NASTY)), _body(Refused(422, "field", NASTY, NASTY, NASTY))):
        for text in parts.values():
            assert text.isprintable() and text.isascii()
    assert len(_body(unknown("host", "x" * 100_000))["message"]) <= 500


def test_headers() -> None:
    assert error_response(void_credential()).headers["www-authenticate"] == "Bearer"
    assert error_response(TooManyError("joins", 7)).headers["retry-after"] == "7"
    assert error_response(Refused(503, "database", "x")).headers["retry-after"] == "5"
    plain = error_response(Refused(403, "viewer", "x")).headers
    assert "retry-after" not in plain and "www-authenticate" not in plain
    assert error_response(Refused(405, "method", "x"), {"Allow": "GET"}).headers["allow"] == "GET"
