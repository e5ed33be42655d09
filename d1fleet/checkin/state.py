"""The agent's own folder: its credential, its last word from the registry, and caches.

    credential      0600, one line
    joined          ids of the tokens that this host has joined by: a token is used once
    peers           the last good answer, for a start while the registry is away
    machine         in place of a machine-id, where this machine has none
    status.json     0644, for people and roles: how the last try has ended, and since when that is so
    toolchain/      what server.toolchain remembers

All are written whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import tempfile
from typing import Any

from ..errors import RuntimeFolderError
from . import facts, plainfile, strictjson, values
from .strictjson import BadDocumentError

MOST_BYTES = 32 << 20
"""Of the last answers of all projects together."""


class State:
    """The folder, which has to be there.

    Raises:
        RuntimeFolderError: it is not there, or not this user's alone.
    """

    def __init__(self, folder: str) -> None:
        try:
            found = os.lstat(folder)
        except OSError as error:
            raise RuntimeFolderError(
                f"{folder} cannot be looked at: {error.strerror}", "systemd makes it: StateDirectory="
            ) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise RuntimeFolderError(
                f"{folder} is no folder of this user alone", "look who it belongs to: systemd makes it"
            )
        self._folder = folder

    @property
    def cache(self) -> str:
        """For server.toolchain."""
        return os.path.join(self._folder, "toolchain")

    @property
    def credential_path(self) -> str:
        """Watched for a credential that somebody else has put there."""
        return os.path.join(self._folder, "credential")

    def credential(self) -> str:
        """What this host shows to the registry; "" where it has not joined."""
        text = (self._read("credential", 10_000) or b"").decode("ascii", "replace").strip()
        return text if values.CREDENTIAL.fullmatch(text) else ""

    def keep_credential(self, credential: str) -> None:
        """Keep another in place of it.

        Raises:
            OSError: it cannot be written; the old one is still there.
        """
        self._write("credential", credential.encode() + b"\n")

    def tokens(self) -> set[str]:
        """Ids of the tokens that this host has joined by."""
        return set((self._read("joined", 1 << 16) or b"").decode("ascii", "replace").split())

    def keep_token(self, identity: str) -> None:
        """Note that it has joined by one.

        Raises:
            OSError: it cannot be written.
        """
        self._write("joined", "".join(f"{each}\n" for each in sorted(self.tokens() | {identity})).encode())

    def forget_membership(self) -> None:
        """This host has left for good.

        Raises:
            OSError: something cannot be removed.
        """
        for name in ("credential", "joined", "peers"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._folder, name))

    def peers(self) -> object:
        """The last good answer as it was kept; None where there is none."""
        data = self._read("peers", MOST_BYTES)
        with contextlib.suppress(BadDocumentError):
            return None if data is None else strictjson.read(data, MOST_BYTES)
        return None

    def keep_peers(self, document: Any) -> None:
        """Keep another in place of it.

        Raises:
            OSError: it cannot be written.
        """
        self._write("peers", json.dumps(document, separators=(",", ":")).encode())

    def keep_status(self, document: dict[str, Any]) -> None:
        """Say how we are.

        Raises:
            OSError: it cannot be written.
        """
        self._write("status.json", json.dumps(document).encode() + b"\n", 0o644)

    def machine(self) -> str:
        """64 hex digits that stay: a digest of the machine-id, else a number that is kept.

        Raises:
            OSError: it cannot be kept.
        """
        found = facts.machine()
        if not found:
            found = (self._read("machine", 100) or b"").decode("ascii", "replace").strip()
            if len(found) != 64 or set(found) - set("0123456789abcdef"):
                found = secrets.token_hex(32)
                self._write("machine", found.encode() + b"\n")
        return found

    def _read(self, name: str, most: int) -> bytes | None:
        with contextlib.suppress(OSError):
            return plainfile.read(os.path.join(self._folder, name), most)[0]
        return None

    def _write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        fd, new = tempfile.mkstemp(prefix=".new-", dir=self._folder)  # 0600
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(fd, mode)
                os.fsync(fd)
            os.replace(new, os.path.join(self._folder, name))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
