"""Bodies of requests. How large they may be and how long they may take is seen to outside, by `guard`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.requests import Request

from .model import plain
from .refusals import Refused
from .schemas import parse

MOST_FORM_FIELDS = 64

M = TypeVar("M", bound=BaseModel)


async def read(request: Request, wanted: type[M]) -> M:
    """A body of JSON.

    Raises:
        Refused: it is none, or a field cannot be used.
    """
    _check_kind(request, "application/json")
    return parse(wanted, await request.body())


async def form(request: Request, several: Collection[str] = ()) -> dict[str, str]:
    """A form of a page.

    Args:
        several: fields that may come more than once; their values are lines then.

    Raises:
        Refused: it is none, or has a field twice.
    """
    _check_kind(request, "application/x-www-form-urlencoded")
    body = await request.body()
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MOST_FORM_FIELDS,
        )
    except ValueError:
        raise Refused(400, "form", "the body is no form") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found and name not in several:
            name = plain(name, 60)
            raise Refused(422, "field", f"{name}: it is there twice", field=name)
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def _check_kind(request: Request, wanted: str) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != wanted:
        raise Refused(415, "content_type", f"the body has to be {wanted}", f"send Content-Type: {wanted}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "content_type", "the body has to be sent as it is", "send no Content-Encoding")
