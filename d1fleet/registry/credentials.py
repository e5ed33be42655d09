"""Secrets: hosts' credentials, join tokens, API keys, passwords. None of them is ever stored as it is.

A credential is signed (itsdangerous: HMAC-SHA256) with the registry's own secret, and says whose it is. So it
can be checked without the database, and hosts come back by themselves when that was lost.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

import argon2
import itsdangerous

from ..checkin.values import HOST_NAME, PROJECT_NAME
from ..errors import RuntimeFolderError
from .model import Host

SECRET_BYTES = 32

MOST_TEXT = 8192
"""Characters of a credential: with 64 projects it is half of that."""

TOKEN = "d1j"
KEY = "d1k"

_SECRET_TEXT = re.compile(r"(d1[jk])_([0-9a-f]{8})_([A-Za-z0-9_-]{43})", re.ASCII)
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

_HASHER = argon2.PasswordHasher()

_NOBODYS_HASH = _HASHER.hash(secrets.token_hex(16))
"""For names that nobody has: an answer takes as long as for one that somebody has."""


class BadCredentialError(ValueError):
    """A text is no credential of ours."""


@dataclass(frozen=True)
class Claim:
    """What a credential says of its host.

    Attributes:
        issued_at: seconds since the epoch.
    """

    id: str
    name: str
    projects: tuple[str, ...]
    generation: int
    issued_at: int

    def fits(self, host: Host) -> bool:
        """Does it say what would be said now?"""
        return (self.name, self.projects, self.generation) == (host.name, host.projects, host.generation)


class Credentials:
    """Makes and reads credentials.

    Args:
        secret: the registry's own.
    """

    def __init__(self, secret: bytes) -> None:
        self._serializer = itsdangerous.URLSafeSerializer(
            secret,
            salt="d1fleet.host",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def issue(self, host: Host, now_s: float) -> str:
        """What a host shows from now on.

        Args:
            now_s: seconds since the epoch.
        """
        return str(
            self._serializer.dumps([host.id, host.name, list(host.projects), host.generation, int(now_s)])
        )

    def read(self, text: str) -> Claim:
        """Whose a credential is.

        Raises:
            BadCredentialError: it was not made by this registry.
        """
        if len(text) > MOST_TEXT or not text.isascii():
            raise BadCredentialError("no credential")
        try:
            identity, name, projects, generation, issued_at = self._serializer.loads(text)
        except (itsdangerous.BadData, ValueError, TypeError):
            raise BadCredentialError("no credential") from None
        claim = Claim(str(identity), str(name), tuple(map(str, projects)), int(generation), int(issued_at))
        # What we have signed is right, unless an older version of ours signed something else.
        if not _ID.fullmatch(claim.id) or not HOST_NAME.fullmatch(claim.name):
            raise BadCredentialError("no credential")
        if not all(PROJECT_NAME.fullmatch(project) for project in claim.projects):
            raise BadCredentialError("no credential")
        return claim


def new_secret_text(prefix: str) -> tuple[str, str, str]:
    """A new token or key: the text to be shown once, its id, and the digest to be stored."""
    identity = secrets.token_hex(4)
    text = f"{prefix}_{identity}_{secrets.token_urlsafe(32)}"
    return text, identity, digest(text)


def secret_id(text: str, prefix: str) -> str:
    """The id in a token or key; "" for a text that is none."""
    found = _SECRET_TEXT.fullmatch(text)
    return found[2] if found and found[1] == prefix else ""


def digest(text: str) -> str:
    """What is stored of a token or key: it is random enough to need no slow hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def same(text: str, stored: str) -> bool:
    """Is it the token or key whose digest is stored?"""
    return hmac.compare_digest(digest(text), stored)


def hash_password(password: str) -> str:
    """What is stored of a password. Takes a tenth of a second, on purpose."""
    return _HASHER.hash(password)


def is_password(password: str, stored: str | None) -> bool:
    """Is it the one? As slow for nobody (None) as for somebody."""
    try:
        return _HASHER.verify(stored or _NOBODYS_HASH, password) and stored is not None
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def load_secret(path: Path) -> bytes:
    """The registry's own secret, made at the first start.

    Raises:
        RuntimeFolderError: it cannot be read or made, or others may read it.
    """
    try:
        if not path.exists():
            write_secret(path, secrets.token_bytes(SECRET_BYTES))
        if path.stat().st_mode & 0o077:
            raise RuntimeFolderError(f"others may read {path}", f"chmod 600 {path}")
        secret = path.read_bytes()
    except OSError as error:
        raise RuntimeFolderError(
            f"{path} cannot be used: {error.strerror}", "see `ls -l` of it and of its folder"
        ) from error
    if len(secret) != SECRET_BYTES:
        raise RuntimeFolderError(
            f"{path} is {len(secret)} bytes long instead of {SECRET_BYTES}",
            "restore it from a backup; without it, all hosts have to join again",
        )
    return secret


def write_secret(path: Path, secret: bytes) -> None:
    """Write it, whole or not at all, mode 0600.

    Raises:
        OSError: it cannot be written.
    """
    number, name = tempfile.mkstemp(prefix=".secret-", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise
