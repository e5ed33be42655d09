"""Where jobs on this host ask for the makes that they call: the shim in their PATH, and its socket."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from .. import interpose, protocol
from ..errors import RuntimeFolderError
from ..folders import cache_folder, living_folders, locked_folder
from ..loop import Loop
from ..makeflags import never_dispatch, parse
from ..shims import LOCAL, ShimConnection, ShimListener, ShimRequest
from ..stopwatch import Stopwatch
from .asked import Asked
from .attempt import Attempt
from .earlier import end_jobs
from .environment import parse as parse_environment
from .view import View

_MOST_ASKED = 1000
"""Requests under way at once; what is asked beyond that stays here."""

_ALONE_S = 1.5
"""What a killed server has left has this long to end: where supervisors live, makes delete half-written
targets now.
"""

_KIND, _WHOSE, _SOCKET = "servers", "build", "s"
"""Names of the folder that those of all servers lie in, and of what is in them."""


class Door:
    """Passes requests of shims on to the coordinator.

    Args:
        send: to the coordinator.
        complain: says something for people.
        attempts: those at work, by number.
        whose: the build, and the host's name in it, so that a later server of the same can tell.
        view: of the build's tree.

    Raises:
        D1fleetError: no shim can be placed on this host.
    """

    def __init__(
        self,
        loop: Loop,
        send: Callable[[protocol.Message], None],
        complain: Callable[[str], None],
        attempts: Mapping[int, Attempt],
        whose: str,
        view: View,
    ) -> None:
        self.loop = loop
        self.view = view
        self.send = send
        self.complain = complain
        self.outgoing: Callable[[bytes], bytes] = lambda block: block
        """What of an environment other hosts may have."""
        self._attempts = attempts
        self._asked: dict[int, Asked] = {}
        self._number = -1
        self.stopwatch = Stopwatch(loop)
        self._whose = whose
        self._stale: dict[str, float] = {}
        """Folders of killed servers of which something still ran, and when they were first seen."""
        self._folder, self._lock = locked_folder(_KIND, self._remove_left)
        try:
            with open(os.path.join(self._folder, _WHOSE), "w") as file:
                file.write(whose)
            try:
                cache = cache_folder("shim")
            except RuntimeFolderError:
                cache = Path(self._folder, "cache")  # no home to keep it in
            shim_dir = interpose.install_shim(cache, cache / interpose.build_id())
            path = os.path.join(self._folder, _SOCKET)
            self._listener = ShimListener(loop, path, self._connected)
        except BaseException:
            self._forget_folder()
            raise
        self.variables = {
            b"D1FLEET_SOCKET": os.fsencode(path),
            b"D1FLEET_SHIM": os.fsencode(shim_dir),
            b"D1FLEET_ORIGIN": interpose.origin().encode(),
        }
        """What a job's environment needs for its makes to come here."""

    def _connected(self, sock: socket.socket, pid: int) -> None:
        shim = ShimConnection(
            self.loop, sock, pid, self._request, lambda _: None, lambda: None, self.complain
        )
        shim.readable()

    def _request(self, shim: ShimConnection, request: ShimRequest) -> None:
        environment = parse_environment(request.environment)
        flags = parse(environment.get(b"MAKEFLAGS", b""))
        job = environment.get(b"D1FLEET_JOB", b"")
        attempt = self._attempts.get(int(job)) if job.isdigit() else None
        gnumakeflags = environment.get(b"GNUMAKEFLAGS", b"")
        if (
            attempt is None
            or attempt.supervisor is None
            or never_dispatch(flags, request.arguments, gnumakeflags)
        ):
            request.close()
            shim.reply(LOCAL)
            return
        outgoing = self.outgoing(request.environment)
        if len(self._asked) >= _MOST_ASKED or attempt.is_foreign(request.jobserver, flags.fifo):
            attempt.calls(request.folder, request.arguments, outgoing)
            argv = protocol.pack_block(request.arguments)
            self.send(protocol.Called(attempt.id, request.folder, argv, outgoing))
            request.close()
            shim.reply(LOCAL)
            return
        self._number += 2
        asked = Asked(self, self._number, attempt, shim, request, flags)
        self._asked[self._number] = asked
        asked.ask(outgoing)

    def earlier(self) -> tuple[bool, bool]:
        """What is left here of earlier servers: of the same build and host, and of any that was killed. What
        killed ones have left is ended, when it had some time for that itself.

        Raises:
            OSError: it cannot be seen.
            RuntimeFolderError: our folder is not this user's alone.
        """
        others = [each for each in living_folders(_KIND, self._remove_left) if each != self._folder]
        self._stale = {folder: since for folder, since in self._stale.items() if folder in others}
        return any(_whose(each) == self._whose for each in others), bool(self._stale)

    def _remove_left(self, folder: str) -> None:
        """Its server was killed: remove it when nothing of its jobs is left."""
        since = self._stale.setdefault(folder, self.loop.now())
        if end_jobs(os.path.join(folder, _SOCKET), kill=self.loop.now() - since > _ALONE_S):
            _remove(folder)

    def handle(self, message: protocol.Message) -> None:
        """What the coordinator says about a request; one that is over is of no interest."""
        asked = self._asked.get(message.attempt)
        if asked is not None:
            asked.handle(message)

    def forget(self, asked: Asked) -> None:
        """It is over."""
        self._asked.pop(asked.number, None)

    def close(self) -> None:
        """Hear no more shims; those that wait find nobody there."""
        self._listener.close()
        self.stopwatch.close()
        self._forget_folder()

    def _forget_folder(self) -> None:
        _remove(self._folder)
        os.close(self._lock)


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _whose(folder: str) -> str:
    try:
        with open(os.path.join(folder, _WHOSE)) as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""
