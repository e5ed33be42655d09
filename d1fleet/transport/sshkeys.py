"""The keys that a login may try: files, the agent's, and why others are of no use."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko
from paramiko.agent import AgentSSH

from .keyfile import public_blob
from .sshconfig import SshTarget, fingerprint
from .sshterms import printable

AGENT_TIMEOUT_S = 15.0
"""For an agent's answer; one that asks its user for leave may take long, and nobody watches."""


class Agent(AgentSSH):
    """The agent behind a socket; paramiko's own class knows the environment's alone."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(AGENT_TIMEOUT_S)
            self._sock.connect(path)
            self._connect(self._sock)  # type: ignore[attr-defined] # the one way to name a socket
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._sock.close()


@dataclass(frozen=True)
class Candidate:
    """A key to try; `name` is for people and holds nothing secret."""

    name: str
    key: paramiko.PKey


class Keyring:
    """The keys that may be tried, in ssh's order, and why others may not."""

    def __init__(self, target: SshTarget, agent: Agent | None) -> None:
        self._target = target
        self._held = {key.blob: key for key in agent.get_keys()} if agent is not None else {}
        self.unusable: list[str] = []
        self.locked: list[str] = []

    def __iter__(self) -> Iterator[Candidate]:
        """Keys of the agent that are named as files too, then its others, then files alone."""
        target = self._target
        files = [path for path in target.identity_files if os.path.exists(path)]
        if target.identity_chosen:
            chosen = target.identity_files[0]
            if chosen not in files and public_blob(chosen) not in self._held:
                self.unusable.append(f"{chosen}: no such file")
            files = [path for path in files if path != chosen]
            yield from self._of_file(chosen)
        both = [path for path in target.identity_files if path in files or os.path.exists(f"{path}.pub")]
        both = [path for path in both if public_blob(path) in self._held]
        for path in both:
            yield from self._of_file(path)
        if not target.identities_only:
            for key in list(self._held.values()):
                yield Candidate(f"agent's {key.get_name()} {fingerprint(key.blob)}", key)
        for path in files:
            if path not in both:
                yield from self._of_file(path)

    def _of_file(self, path: str) -> Iterator[Candidate]:
        """The key of a file: through the agent where that has it, with its certificate first."""
        held = self._held.pop(public_blob(path) or b"", None)
        if held is None and not os.path.exists(path):
            return
        if held is None and not self._may_read(path):
            return
        certificate = f"{path}-cert.pub"
        for name in ([certificate] if os.path.exists(certificate) else []) + [path]:
            try:
                key = held if held is not None else copy.copy(_load(path, os.stat(path).st_mtime_ns))
                key.public_blob = None
                if name == certificate:
                    key.load_certificate(certificate)
            except (paramiko.PasswordRequiredException, TypeError):  # cryptography's word for it
                self.locked.append(path)
                return
            # Whatever a strange file makes the loaders raise: the key is of no use, others may be.
            except Exception as error:
                self.unusable.append(f"{name}: {printable(str(error)) or type(error).__name__}")
                continue
            yield Candidate(name, key)

    def _may_read(self, path: str) -> bool:
        """As ssh: a key that others can read is no key."""
        try:
            status = os.stat(path)
        except OSError as error:
            self.unusable.append(f"{path}: {error.strerror}")
            return False
        if not os.access(path, os.R_OK):
            self.unusable.append(f"{path}: no permission to read it")
            return False
        if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o077:
            self.unusable.append(f"{path}: others may read it (chmod 600 {path})")
            return False
        return True


_loading = threading.Lock()


@functools.lru_cache(maxsize=16)
def _loaded(path: str, mtime_ns: int) -> paramiko.PKey:
    key = paramiko.PKey.from_path(path)
    key.public_blob = None
    return key


def _load(path: str, mtime_ns: int) -> paramiko.PKey:
    """A private key, read once for all hosts: OpenSSL checks an RSA key for a tenth of a second."""
    with _loading:
        return _loaded(path, mtime_ns)


def diagnose(target: SshTarget) -> tuple[list[str], list[str], list[str]]:
    """Keys that ssh will have tried, by name; files that are locked; files that are of no use."""
    agent = None
    if target.agent is not None:
        with contextlib.suppress(OSError, paramiko.SSHException, ValueError):
            agent = Agent(target.agent)
    try:
        keys = Keyring(target, agent)
        return [candidate.name for candidate in keys], keys.locked, keys.unusable
    finally:
        if agent is not None:
            agent.close()
