"""The root helper: writes what follows from what the agent knows, after it has looked at all of it again.

Started by a socket unit for each request (Accept=yes, StandardInput=socket). It reads one JSON document to
its end, at most 4 MiB, writes one, and ends:

    in    {"name": HOST, "slots": NUMBER, "projects": {PROJECT: {"left_out": {HOST: REASON},
           "members": [ADDRESS, ...]: who may connect, "peers": [{"name", "address", "slots", "port",
           "options", "transport", "ssh_port", "host_keys"}, ...]}}}: all projects of this host
    out   {"changed": [TEXT, ...], "faults": [TEXT, ...]}

Nothing of a request is done when anything in it is wrong; the rest of a good one is done when a part fails.
Networks, and which project's hosts are distcc's own, are the configuration's to say, which is root's.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator

from ..errors import D1fleetError
from . import check_hosts, config, render
from .config import Configuration
from .firewall import Firewall
from .journal import ERROR, WARNING, log
from .places import HelperPlaces
from .render import MARK, Request
from .safefolder import SafeFolder
from .strictjson import BadDocumentError

READ_S = 10.0
"""For a request: the agent sends it at once."""

LOCK_S = 30.0


class _Work:
    """One request at work: what has changed so far, and what is wrong."""

    def __init__(self, places: HelperPlaces, settings: Configuration, request: Request) -> None:
        self._places = places
        self._settings = settings
        self._request = request
        self.changed: list[str] = []
        self.faults: list[str] = []

    def do(self) -> None:
        """All of it: who may connect, then ways to peers, then the files that name them."""
        rules = os.path.split(self._places.rules)
        with self._folder(rules[0]) as folder:
            if folder is None:
                return
            try:
                lock = folder.lock("lock", LOCK_S)
            except OSError as error:
                self.faults.append(f"{rules[0]}/lock: {error.strerror or error}")
                return
            try:
                folder.sweep()
                self._try(self._admit)
                self._write(folder, rules[1], render.rules(self._request))
                self._write_ssh()
                self._write_hosts()
            finally:
                os.close(lock)

    def _admit(self) -> None:
        if Firewall(self._places.nft).admit(self._request.members):
            self.changed.append("who may connect")

    def _write_ssh(self) -> None:
        texts = render.ssh_files(self._request, os.path.join(self._places.ssh, "known_hosts"))
        if not any(texts) and not os.path.isdir(self._places.ssh):
            return
        with self._folder(self._places.ssh) as folder:
            if folder is not None:
                folder.sweep()
                for name, text in zip(("known_hosts", "ssh_config"), reversed(texts)):
                    if text:
                        self._write(folder, name, text)
                    else:
                        self._remove(folder, name)

    def _write_hosts(self) -> None:
        texts = {}
        for name, project in self._request.projects.items():
            text = render.hosts_file(self._request, name, project)
            if self._is_understood(name, text):
                texts[name] = text
        with self._folder(self._places.hosts) as folder:
            if folder is not None:
                folder.sweep()
                for name, text in texts.items():
                    self._write(folder, name, text)
                for name in folder.names():
                    if name not in self._request.projects:
                        self._remove(folder, name)
        self._write_default(texts)

    def _is_understood(self, name: str, text: str) -> bool:
        try:
            fault = check_hosts.fault(text, self._places.distcc)
        except OSError as error:
            fault = f"{self._places.distcc} cannot be run: {error.strerror}"
        if fault:
            self.faults.append(f"the hosts file of {name} is not written: {fault}")
        return not fault

    def _write_default(self, texts: dict[str, str]) -> None:
        """What distcc reads by itself: the hosts of the only project, or of that which the host is set to."""
        projects = list(self._request.projects)
        chosen = self._settings.default_project or (projects[0] if len(projects) == 1 else "")
        place, name = os.path.split(self._places.default)
        if chosen in projects and chosen not in texts:
            return  # as it was; why was said
        with self._folder(place) as folder:
            if folder is not None:
                folder.sweep()
                if chosen in texts:
                    self._write(folder, name, texts[chosen])
                else:
                    self._remove(folder, name)

    # Each part by itself

    @contextlib.contextmanager
    def _folder(self, path: str) -> Iterator[SafeFolder | None]:
        try:
            folder = SafeFolder(path)
        except D1fleetError as error:
            self.faults.append(error.message)
            yield None
            return
        except OSError as error:
            self.faults.append(f"{path}: {error.strerror}")
            yield None
            return
        try:
            yield folder
        finally:
            folder.close()

    def _write(self, folder: SafeFolder, name: str, text: str) -> None:
        path = os.path.join(folder.path, name)
        try:
            if folder.write(name, text.encode()):
                self.changed.append(path)
        except OSError as error:
            self.faults.append(f"{path} cannot be written: {error.strerror}")

    def _remove(self, folder: SafeFolder, name: str) -> None:
        """Remove a file where it is one of ours."""
        first = (folder.read(name) or b"").partition(b"\n")[0]
        if first.startswith(b"#") and MARK.encode() in first:
            path = os.path.join(folder.path, name)
            try:
                folder.remove(name)
                self.changed.append(path)
            except OSError as error:
                self.faults.append(f"{path} cannot be removed: {error.strerror}")

    def _try(self, part: Callable[[], None]) -> None:
        try:
            part()
        except D1fleetError as error:
            self.faults.append(error.message)


def answer(places: HelperPlaces, data: bytes) -> dict[str, list[str]]:
    """Do what a request asks for; see above."""
    try:
        settings = config.load(places.config)
        request = render.read(data, settings.networks)
        # Looked at before anything is done: nothing of a bad request is.
        for name, project in request.projects.items():
            render.hosts_file(request, name, project)
    except D1fleetError as error:
        return {"changed": [], "faults": [f"refused: {error.message}"]}
    except BadDocumentError as error:
        return {"changed": [], "faults": [f"refused: {error}"]}
    work = _Work(places, settings, request)
    work.do()
    return {"changed": work.changed, "faults": work.faults}


def _read(fd: int) -> bytes:
    """All that comes, in time, up to what is too much anyway.

    Raises:
        OSError: it does not come in time.
    """
    data = bytearray()
    until_s = time.monotonic() + READ_S
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        while len(data) <= render.MOST_BYTES and (piece := os.read(fd, 1 << 16)):
            data += piece
        return bytes(data)
    with socket.socket(fileno=os.dup(fd)) as sock:
        while True:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the request does not end")
            sock.settimeout(left_s)
            piece = sock.recv(1 << 16)
            if not piece:
                return bytes(data)
            # What is too much is read all the same: else our answer would be lost.
            data += piece if len(data) <= render.MOST_BYTES else b""


def _write(fd: int, data: bytes) -> None:
    os.set_blocking(fd, True)
    while data:
        data = data[os.write(fd, data) :]


def run(places: HelperPlaces) -> int:
    """One request, from the standard input; returns an exit status."""
    os.umask(0o022)
    try:
        data = _read(0)
    except OSError as error:
        log(ERROR, f"a request is not read: {error}")
        return 1
    found = answer(places, data)
    for fault in found["faults"]:
        log(WARNING, fault)
    is_socket = stat.S_ISSOCK(os.fstat(0).st_mode)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _write(0 if is_socket else 1, json.dumps(found).encode() + b"\n")
    return 0
