"""HTTP on one connection: uvicorn's protocol, told when to give up.

uvicorn bounds no head of a request, and waits for one without end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .limits import Limits


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, with bounds for the head of a request, in bytes and in time."""

    limits: Limits
    source: tuple[str, int] | None
    leave: Callable[[], None]
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _status = 400

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        # Asked later, the kernel may not know any more.
        self.client = self.source
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # What is no request yet, such as an empty line, keeps nobody here.
        if self._timer is None and self.timeout_keep_alive_task is None and self._is_idle():
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._is_idle():
            self._expect_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url), 414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4, 431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        words = {
            400: ("request", "this is no request of HTTP"),
            408: ("slow", "no request was there in time"),
            414: ("too_large", "this address is too long"),
            431: ("too_large", "the headers are too long"),
        }
        code, message = words[self._status]
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        self.transport.write(
            STATUS_LINE[self._status]
            + b"content-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self.transport.close()

    def _count(self, count: int, status: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self.limits.head_bytes:
            self._status = status
            raise ValueError("the head is too long")  # to the parser, which gives up

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.limits.head_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._status = 408
            self.send_400_response("")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
