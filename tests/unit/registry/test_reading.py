"""Bodies of requests: forms, and what is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from d1fleet.registry.reading import MOST_FORM_FIELDS, form
from d1fleet.registry.refusals import Refused

FORM = "application/x-www-form-urlencoded"


async def _read(body: bytes, kind: str = FORM, **values: Any) -> dict[str, str]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode()), *values.pop("headers", [])]
    return await form(Request({"type": "http", "headers": headers}, receive), **values)


def _run(*arguments: Any, **values: Any) -> dict[str, str]:
    return asyncio.run(_read(*arguments, **values))


def test_forms() -> None:
    assert _run(b"") == {}
    assert _run(b"a=1&b=&c=x+y%20z%0A%C3%A4") == {"a": "1", "b": "", "c": "x y z\nä"}
    assert _run(b"a=1", f"{FORM}; charset=utf-8") == {"a": "1"}
    assert _run(b"a=1&b=2&a=3", several=("a",)) == {"a": "1\n3", "b": "2"}


def test_what_is_no_form() -> None:
    for body, status, code in (
        (b"a=1&a=2", 422, "field"),
        (b"a=%FF", 400, "form"),
        (b"a=\xff", 400, "form"),
        (b"&".join(b"a%d=1" % number for number in range(MOST_FORM_FIELDS + 1)), 400, "form"),
    ):
        with pytest.raises(Refused) as caught:
            _run(body)
        assert (caught.value.status, caught.value.code) == (status, code), body
    for kind in ("", "text/plain", "application/json", "multipart/form-data; boundary=x"):
        with pytest.raises(Refused) as caught:
            _run(b"a=1", kind)
        assert caught.value.status == 415
    with pytest.raises(Refused) as caught:
        _run(b"a=1", headers=[(b"content-encoding", b"gzip")])
    assert caught.value.status == 415


def test_a_name_that_is_there_twice_is_not_repeated_as_it_is() -> None:
    with pytest.raises(Refused) as caught:
        _run(b"a%0A%1b=1&a%0A%1b=2")
    assert caught.value.field == "a??" and caught.value.message.isprintable()
