"""Backups: all that a registry must not lose, as one file of JSON. Either kind of database can be made of it.

Whoever has such a file can make credentials for every host: it is written for its owner alone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn, TypeVar

from ..errors import D1fleetError
from . import checks
from .checks import LATEST, UnfitError
from .contents import Snapshot, check_together
from .credentials import SECRET_BYTES
from .model import AuditEntry, FieldError, Host, Key, Operator, Project, Token, plain
from .statements import KEEP_AUDIT
from .store import Store
from .storefiles import sync

FORMAT = "d1fleet registry backup"
VERSION = 1
"""Of the format."""

LARGEST_BYTES = 1 << 30
"""A hundred thousand entries of the audit log take 30 MB: more than this is no backup (a guess)."""

KINDS = {"projects": Project, "hosts": Host, "tokens": Token, "operators": Operator, "keys": Key}
"""What there is a list of, beside the audit log."""

R = TypeVar("R", Project, Host, Token, Operator, Key, AuditEntry)


class BackupError(D1fleetError):
    """A backup cannot be written, read or restored."""


@dataclass(frozen=True, repr=False)
class Backup:
    """What a backup holds.

    Attributes:
        secret: the registry's own, with which all credentials are signed.
        audit: the newest entry first.
        made_at: of the backup, in seconds since the epoch; the database's is in the snapshot.
    """

    snapshot: Snapshot
    secret: bytes
    audit: tuple[AuditEntry, ...]
    made_at: float

    def __repr__(self) -> str:
        return f"<Backup of {len(self.snapshot.records)} records>"


def write_backup(
    what: Store | Snapshot, secret: bytes, path: str | os.PathLike[str], audit: Sequence[AuditEntry] = ()
) -> None:
    """Write a backup: whole or not at all, for its owner alone (0600), and on the disk when this returns. A
    file that is there is replaced.

    Args:
        what: a store, with its audit log. Of one that is not open the database is read, which a registry that
            runs may have. Or a snapshot.
        secret: the registry's own.
        audit: of a snapshot, the newest entry first.

    Raises:
        BackupError: the file cannot be written.
        StoreError: the database cannot be read.
        ValueError: that is no secret.
    """
    if isinstance(what, Snapshot):
        snapshot = what
    elif what.is_open:
        snapshot, audit = what.snapshot(), what.audit(KEEP_AUDIT)
    else:
        snapshot, audit = what.look()
    target = os.fspath(path)
    text = json.dumps(document(snapshot, secret, audit), ensure_ascii=False, indent=1)
    try:
        _write(target, text.encode() + b"\n")
    except OSError as error:
        raise BackupError(
            f"the backup {target} cannot be written: {error.strerror}",
            "see `ls -l` of its folder, and whether space is left there",
        ) from error


def document(snapshot: Snapshot, secret: bytes, audit: Sequence[AuditEntry]) -> dict[str, Any]:
    """What stands in a backup that is made now.

    Args:
        audit: the newest entry first.

    Raises:
        ValueError: that is no secret.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_at": time.time(),
        "database_made_at": snapshot.made_at,
        "secret": base64.b64encode(secret).decode("ascii"),
        **{name: [asdict(record) for record in getattr(snapshot, name)] for name in KINDS},
        "audit": [asdict(entry) for entry in audit],
    }


def read_backup(path: str | os.PathLike[str]) -> Backup:
    """Read a backup, and check all that is in it.

    Raises:
        BackupError: it cannot be read, or is none, or a newer program's, or an entry cannot be meant.
    """
    target = os.fspath(path)
    try:
        return _read(_parsed(target))
    except OSError as error:
        raise BackupError(
            f"the backup {target} cannot be read: {error.strerror}", "see `ls -l` of it"
        ) from error
    except (_Fault, UnfitError, FieldError) as error:
        text = error.message if isinstance(error, FieldError) else str(error)
        raise BackupError(
            f"the backup {target} cannot be used: {text}", "mend that entry, or take another backup"
        ) from error


def restore(store_url: str, path: str | os.PathLike[str], overwrite: bool = False) -> Backup:
    """Put what a backup holds into a database, which is made if it is not there. It counts as made now: hosts
    that have joined after the backup was made come back by themselves.

    Args:
        overwrite: what the database holds may go, its audit log too.

    Returns:
        The backup. Its secret is not written anywhere yet.

    Raises:
        BackupError: it cannot be read, or the database holds something.
        StoreError: the database cannot be used, or a registry has it.
    """
    backup = read_backup(path)
    with Store(store_url) as store:
        there = store.snapshot()
        if there.records and not overwrite:
            raise BackupError(
                f"the database has {len(there.projects)} projects and {len(there.hosts)} hosts already,"
                " which would be lost",
                "make a backup of it first, then say that it may be overwritten",
            )
        store.restore(replace(backup.snapshot, made_at=time.time()), list(reversed(backup.audit)))
    return backup


class _Fault(ValueError):
    """What is wrong with a text that should be a backup."""


def _parsed(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise _Fault("it is too large")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_without_doubles, parse_constant=_no_number)
    except _Fault:
        raise
    except UnicodeDecodeError as error:
        raise _Fault(f"it is no UTF-8, at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _Fault(f"it is no JSON, at line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise _Fault("it is no JSON that could be a backup") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _Fault("it is no backup of a registry")
    if document.get("version") != VERSION:
        raise _Fault(
            f"its format has version {plain(str(document.get('version')))}, this d1fleet knows {VERSION}"
        )
    return document


def _read(document: dict[str, Any]) -> Backup:
    known = {"format", "version", "made_at", "database_made_at", "secret", *KINDS, "audit"}
    for name in sorted(known ^ document.keys()):
        raise _Fault(f"{plain(name)} {'is missing' if name in known else 'is nothing that belongs there'}")
    try:
        secret = base64.b64decode(document["secret"], validate=True)
    except (ValueError, TypeError) as error:
        raise _Fault("secret: it is no base64") from error
    if len(secret) != SECRET_BYTES:
        raise _Fault(f"secret: it has {len(secret)} bytes instead of {SECRET_BYTES}")
    snapshot = Snapshot(
        _records("projects", Project, document),
        _records("hosts", Host, document),
        _records("tokens", Token, document),
        _records("operators", Operator, document),
        _records("keys", Key, document),
        _moment("database_made_at", document),
    )
    check_together(snapshot.records)
    return Backup(snapshot, secret, _records("audit", AuditEntry, document), _moment("made_at", document))


def _records(name: str, kind: type[R], document: dict[str, Any]) -> tuple[R, ...]:
    entries = document[name]
    if not isinstance(entries, list):
        raise _Fault(f"{name}: it has to be a list")
    made = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise UnfitError(name, f"entry {number}", "it has to be a mapping")
        try:
            made.append(checks.make(kind, entry))
        except FieldError as error:
            called = entry.get("name") or entry.get("id")
            where = f"entry {number}" + (f" ({called})" if isinstance(called, str) else "")
            raise UnfitError(name, where, error.message) from error
    return tuple(made)


def _moment(name: str, document: dict[str, Any]) -> float:
    value = document[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise _Fault(f"{name}: it has to be seconds since the epoch")
    return float(value)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Fault(f"{plain(max(names, key=names.count))} is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise _Fault(f"{text} is no number")


def _write(path: str, data: bytes) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    number, name = tempfile.mkstemp(prefix=".backup-", dir=folder)  # 0600
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync(folder)
