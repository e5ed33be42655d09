"""The registry's database: its durable copy of what it knows.

The store keeps all records in memory, too: what was acknowledged. After a connection was lost, nobody knows
whether its last transaction was committed. Then the whole database is brought to what was acknowledged, as
part of the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from sqlalchemy import Connection

from . import migrations, statements
from .checks import UnfitError
from .contents import Contents, Snapshot, as_stored, check_together
from .databaseurl import database_at, url_of_file
from .model import AuditEntry, Record
from .session import Session, unfit
from .statements import KEEP_AUDIT, MADE_AT
from .storeerrors import StoreError, StoreGoneError

__all__ = ["Snapshot", "Store", "StoreError", "StoreGoneError", "url_of_file"]

TRIM_EACH = 1000
"""Entries of the audit log that are written before old ones are looked for, which takes some 10 ms."""


class Store:
    """A database that one registry has, and no other process may write meanwhile.

    Synchronous; one thread at a time, others wait. Every method raises StoreError where the database cannot
    be read or written: then nothing has changed, and it may be tried again once the cause is gone.

    Args:
        url: `sqlite:////FOLDER/FILE`, or `postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`.

    Raises:
        StoreError: the URL cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._session = Session(database_at(url))
        self._mutex = threading.RLock()
        self._contents = Contents()
        """What was acknowledged."""
        self._made_at = 0.0
        self._audit_number = 0
        """Of the newest entry of the audit log that was acknowledged."""
        self._untrimmed = 0
        """Entries that were written since old ones were looked for."""

    def __repr__(self) -> str:
        return f"<Store {self._session.where}>"

    def __enter__(self) -> Store:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        return self._session.is_open

    def open(self) -> Snapshot:
        """Take the database, make it or bring it to the newest schema if need be, and read it.

        Raises:
            StoreError: it cannot be used, or another process has it, or a newer program has made it, or
                somebody has edited a row into something that cannot be meant. It is as it was.
        """

        def fill(connection: Connection) -> None:
            statements.set_mark(connection, MADE_AT, repr(time.time()))

        def load(connection: Connection) -> tuple[Contents, float, int]:
            statements.trim_audit(connection, KEEP_AUDIT)
            return (
                statements.load(connection),
                statements.made_at(connection),
                statements.append_audit(connection, ()),
            )

        with self._mutex:
            self._contents, self._made_at, self._audit_number = self._session.open(fill, load)
            self._untrimmed = 0
            return self.snapshot()

    def snapshot(self) -> Snapshot:
        """What was acknowledged; nobody is asked."""
        return self._contents.snapshot(self._made_at)

    def apply(
        self,
        puts: Sequence[Record] = (),
        deletes: Sequence[Record] = (),
        audit: Sequence[AuditEntry] = (),
    ) -> None:
        """Put records, each in place of the one with its key, delete others, and say so in the audit log: all
        of it or nothing, and for good when this returns.

        Args:
            deletes: known by their keys; that one is not there is no mistake.
            audit: the oldest entry first.

        Raises:
            StoreGoneError: the database was deleted, replaced or damaged: `rewrite` makes it anew.
            StoreError: nothing is stored.
        """

        def work(connection: Connection) -> int:
            if self._session.unsure:
                statements.forget_audit_after(connection, self._audit_number)
                statements.replace_all(connection, after)
                statements.set_mark(connection, MADE_AT, repr(self._made_at))
            else:
                statements.write(connection, stored, deletes)
            newest = statements.append_audit(connection, audit)
            if trims:
                statements.trim_audit(connection, KEEP_AUDIT)
            return newest

        with self._mutex:
            try:
                stored = [as_stored(record) for record in puts]
                after = self._contents.changed(stored, deletes)
            except UnfitError as error:
                raise unfit(self._session.where, error) from error
            untrimmed = self._untrimmed + len(audit)
            trims = untrimmed >= TRIM_EACH
            self._audit_number = self._session.do(work)
            self._session.unsure = False
            self._contents = after
            self._untrimmed = 0 if trims else untrimmed

    def rewrite(self, snapshot: Snapshot, audit: Sequence[AuditEntry] = ()) -> None:
        """Have exactly these records in the database, which is made anew where it was deleted, replaced or
        damaged. Where there still is an audit log, it is kept; a file that is found at its place is renamed.

        Raises:
            StoreError: it cannot be done.
        """
        self._replace(snapshot, audit, keep_audit=True)

    def restore(self, snapshot: Snapshot, audit: Sequence[AuditEntry]) -> None:
        """Have exactly these records, and this audit log (the oldest entry first), in the database.

        Raises:
            StoreError: it cannot be done.
        """
        self._replace(snapshot, audit, keep_audit=False)

    def is_there(self) -> bool:
        """Is it still the database that was opened? If not, `rewrite` makes it anew.

        Raises:
            StoreError: it is on a server, which cannot be asked.
        """
        with self._mutex:
            return self._session.is_there()

    def audit(self, limit: int) -> list[AuditEntry]:
        """So many entries of the audit log at most, the newest first.

        Raises:
            StoreError: it cannot be read.
        """
        with self._mutex:
            return self._session.do(lambda connection: statements.audit(connection, max(0, limit)))

    def look(self) -> tuple[Snapshot, list[AuditEntry]]:
        """What the database of a store that is not open holds: it is not taken from the registry that has it.

        Returns:
            All records, and the audit log, the newest entry first.

        Raises:
            StoreError: it is not there, or has another schema than this program's.
        """

        def work(connection: Connection) -> tuple[Snapshot, list[AuditEntry]]:
            revision = migrations.revision(connection, self._session.where)
            if revision != migrations.head():
                raise StoreError(
                    f"the database {self._session.where} has revision {revision or '(none)'} of its schema,"
                    f" not {migrations.head()}",
                    "start this registry once: it brings the database to its own schema",
                )
            contents = statements.load(connection)
            audit = statements.audit(connection, KEEP_AUDIT)
            return contents.snapshot(statements.made_at(connection)), audit

        with self._mutex:
            return self._session.look(work)

    def close(self) -> None:
        """Let other processes have the database. It may be called again."""
        with self._mutex:
            self._session.close()

    def _replace(self, snapshot: Snapshot, audit: Sequence[AuditEntry], keep_audit: bool) -> None:
        def fill(connection: Connection) -> int:
            if not keep_audit:
                statements.forget_audit_after(connection, 0)
            elif self._session.unsure:
                statements.forget_audit_after(connection, self._audit_number)
            statements.replace_all(connection, after)
            statements.set_mark(connection, MADE_AT, repr(float(snapshot.made_at)))
            return statements.append_audit(connection, audit)

        with self._mutex:
            try:
                check_together(snapshot.records)
                after = Contents(as_stored(record) for record in snapshot.records)
            except UnfitError as error:
                raise unfit(self._session.where, error) from error
            self._audit_number = self._session.renew(fill)
            self._session.unsure = False
            self._contents = after
            self._made_at = float(snapshot.made_at)
