"""The panel's style sheet, scripts and mark: a few small files, read once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_CACHING = "no-cache"
"""Kept by browsers, and asked for each time: a new version is there at once."""


@dataclass(frozen=True)
class _File:
    body: bytes
    kind: str
    tag: str


def _read() -> Mapping[str, _File]:
    found = {}
    for path in sorted((Path(__file__).parent / "static").iterdir()):
        if path.suffix in _KINDS:
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            found[path.name] = _File(body, f"{_KINDS[path.suffix]}; charset=utf-8", tag)
    return found


class Static:
    """Answers for /static/{name}; there are these files, and no paths."""

    def __init__(self) -> None:
        self._files = _read()

    async def answer(self, request: Request) -> Response:
        file = self._files.get(request.path_params["name"])
        if file is None:
            return PlainTextResponse("there is no such file\n", 404)
        headers = {"ETag": file.tag, "Cache-Control": _CACHING}
        if request.headers.get("If-None-Match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers={**headers, "Content-Type": file.kind})
