"""Something between a client and a server on a socket, which loses connections when it is told to."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from pathlib import Path
from types import TracebackType


class Wire:
    """Passes on what is said, as long as it is not told otherwise.

    Args:
        path: of the socket for clients.
        server: path of the server's.

    Attributes:
        folder: of the socket for clients.
        lose_at: what a client says that it gets no answer to any more: its connection is lost. Works once.
        once_heard: what a client has to say before that.
        passes_on: whether the server still hears it, and has answered, when that happens.
        holds: whether the server is left with its end of the connection.
        refuses: whether new connections are closed at once.
        lost: how many connections were lost.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self.folder = path.parent
        self.lose_at = b""
        self.once_heard = b""
        self.passes_on = True
        self.holds = False
        self.refuses = False
        self.lost = 0
        self._server = str(server)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._selector = selectors.DefaultSelector()
        self._others: dict[socket.socket, socket.socket] = {}
        self._from_client: set[socket.socket] = set()
        self._held: list[socket.socket] = []
        self._bell, self._ringer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="wire")

    def __enter__(self) -> Wire:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._ringer.send(b"x")
        self._thread.join()
        for each in (self._listener, self._bell, self._ringer, *self._others, *self._held):
            each.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for event, _ in self._selector.select():
                ready = event.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._bell:
                    return
                if ready is self._listener:
                    self._accept()
                elif ready in self._others:
                    self._pass_on(ready)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self.refuses:
            client.close()
            return
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server)
        self._others |= {client: server, server: client}
        self._from_client.add(client)
        for each in (client, server):
            self._selector.register(each, selectors.EVENT_READ)

    def _pass_on(self, ready: socket.socket) -> None:
        other = self._others[ready]
        data = b""
        with contextlib.suppress(ConnectionError):
            data = ready.recv(1 << 16)
        from_client = ready in self._from_client
        if from_client and self.once_heard and self.once_heard in data:
            self.once_heard = b""
        if not data:
            self._close(ready)
            self._close(other)
        elif from_client and self.lose_at and not self.once_heard and self.lose_at in data:
            self.lose_at = b""
            if self.passes_on:
                other.sendall(data)
                other.recv(1 << 16)
            self.lost += 1
            self._close(ready)
            if self.holds:
                self._selector.unregister(other)
                del self._others[other]
                self._held.append(other)
            else:
                self._close(other)
        else:
            with contextlib.suppress(ConnectionError):
                other.sendall(data)

    def _close(self, which: socket.socket) -> None:
        self._selector.unregister(which)
        del self._others[which]
        self._from_client.discard(which)
        which.close()
