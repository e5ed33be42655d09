"""A database in a file: SQLite, with a write-ahead log.

What is new is always made beside it, whole, and then renamed: a file at the path is a whole database at any
moment, whatever ends us (`_place`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from . import migrations, statements
from .database import Fill
from .filelock import FileLock
from .sqliteopen import check_whole, closing, connected, raw
from .storeerrors import StoreError, StoreGoneError, explained, said
from .storefiles import COMPANIONS, create, protect, remove, sync

log = logging.getLogger("d1fleet.registry.store")


class SqliteFile:
    """See `database.Database`.

    Args:
        path: absolute.
    """

    remote = False

    def __init__(self, path: str) -> None:
        self.where = path
        self._lock = FileLock(path + ".lock", path)
        self._pins: dict[str, int] = {}
        """Descriptors of the files that are open, by their paths: as long as we have one, no other file can
        get its number. (O_PATH: any other would, when it is closed, drop SQLite's own locks.)"""
        self._has_log = False
        """There is a connection: the write-ahead log comes and goes with it."""

    def open(self, fill: Fill) -> Connection:
        self._check_place()
        self._lock.take()
        remove(self.where + ".new")
        if self._is_missing():
            log.warning("there is no database %s yet: it is made", self.where)
            self._make(fill)
        else:
            self._bring_up()
        return self._connect()

    def disconnect(self, connection: Connection) -> None:
        self._has_log = False
        with contextlib.suppress(SQLAlchemyError, sqlite3.Error):
            connection.close()

    def reopen(self) -> Connection:
        if why := self.gone():
            raise StoreGoneError(f"the database {self.where} {why}", "it has to be made anew")
        return self._connect()

    def renew(self, fill: Fill) -> Connection:
        self._check_place()
        self._lock.take()
        if not self._is_missing():
            self._put_aside()
        self._make(fill)
        return self._connect()

    def look(self) -> Connection:
        if self._is_missing():
            raise StoreError(f"there is no database {self.where}", "name the one that the registry has made")
        return connected(self.where, writes=False)

    def gone(self) -> str:
        if not self._pins:
            return "is not open"
        for path, pin in self._pins.items():
            if path != self.where and not self._has_log:
                continue
            try:
                found = os.stat(path)
            except FileNotFoundError:
                return f"was deleted ({path})"
            except OSError as error:
                return f"cannot be seen any more ({path}: {error.strerror})"
            if not os.path.samestat(found, os.fstat(pin)):
                return f"was replaced by another file ({path})"
            if path == self.where and not found.st_size:
                return f"was emptied ({path})"
        return ""

    def explain(self, error: BaseException) -> StoreError:
        return explained(error, self.where, ())

    def tells(self, error: BaseException) -> bool:
        return False

    def close(self) -> None:
        self._unpin(*self._pins)
        self._lock.let_go()

    # How it comes to be there

    def _check_place(self) -> None:
        """Raises:
        StoreError: there cannot be a database at this path.
        """
        folder = os.path.dirname(self.where)
        if not os.path.isdir(folder):
            raise StoreError(
                f"there is no folder {folder} for the database", f"make it: mkdir -m 700 {folder}"
            )
        try:
            found = os.stat(self.where)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(
                f"{self.where} is no file, so it is no database", "move it away, or name another"
            )

    def _is_missing(self) -> bool:
        """Nothing was ever in it. (SQLite takes an empty file for an empty database, too.)"""
        try:
            return os.stat(self.where).st_size == 0
        except FileNotFoundError:
            return True

    def _make(self, fill: Fill) -> None:
        """Have a new database at the path."""
        new = self.where + ".new"
        try:
            create(new)
            with closing(connected(new)) as connection, connection.begin():
                migrations.upgrade(connection)
                fill(connection)
            self._place(new)
        finally:
            remove(new)

    def _put_aside(self) -> None:
        """Keep what is found at the path, whosever it is."""
        aside, log_path = self.where + ".aside", self.where + "-wal"
        remove(aside)
        # SQLite leaves a log behind when its file was taken away from under it: it is no other file's.
        if self._is_pinned(log_path) and not self._is_pinned(self.where):
            os.unlink(log_path)
        for end in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.where + end, aside + end)
        log.warning("what was found at %s is now %s", self.where, aside)

    def _bring_up(self) -> None:
        """Look at the database that is there, and bring a copy of it to the newest revision if need be."""
        protect(self.where)
        with closing(connected(self.where)) as connection:
            check_whole(connection, self.where)
            with connection.begin():
                revision = migrations.revision(connection, self.where)
        if not revision:
            raise StoreError(
                f"{self.where} is a database of SQLite, but not the registry's",
                "name the one that the registry has made, or a path where there is none yet",
            )
        if revision != (newest := migrations.head()):
            self._migrate(revision, newest)

    def _migrate(self, revision: str, newest: str) -> None:
        log.warning("%s is brought from revision %s to %s of its schema", self.where, revision, newest)
        new, kept = f"{self.where}.new", f"{self.where}.rev-{revision}"
        try:
            create(new)
            with contextlib.closing(raw(self.where)) as old, contextlib.closing(raw(new)) as young:
                # This moves the log into the file, and cannot be done while another program has it open: what
                # that one would write after the copy is made would be lost.
                old.execute("PRAGMA journal_mode=DELETE")
                old.backup(young)
                young.execute("PRAGMA journal_mode=DELETE")
            # A table that others refer to may have to be made anew: they must not lose their rows with it.
            with closing(connected(new, keys=False)) as connection:
                with connection.begin():
                    migrations.upgrade(connection)
                    statements.load(connection)
                check_whole(connection, new)
            # What is replaced goes on under another name: that needs no space.
            remove(kept)
            os.link(self.where, kept)
            self._place(new)
        except Exception as error:
            why = error.message if isinstance(error, StoreError) else said(error, ())
            raise StoreError(
                f"the database {self.where} could not be brought from revision {revision} of its schema to"
                f" {newest}, and is as it was: {why}",
                "mend what the text says; until then, go on with the d1fleet that you had before",
            ) from error
        finally:
            remove(new)
        log.warning("%s is what it was before", kept)

    def _place(self, new: str) -> None:
        """Put a whole database, which nobody has open, in the place of what is there."""
        # SQLite would read what is left of a former log into it.
        for end in COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.where + end)
        os.replace(new, self.where)
        sync(os.path.dirname(self.where))

    # How it is open

    def _connect(self) -> Connection:
        self._pin(self.where)
        connection = connected(self.where, lasting=True)
        try:
            with connection.begin():
                connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
            if why := self.gone():
                raise StoreGoneError(f"the database {self.where} {why}", "start again")
            self._pin(self.where + "-wal")
            self._has_log = True
            for end in ("-wal", "-shm"):
                protect(self.where + end)
        except BaseException:
            connection.close()
            raise
        return connection

    def _pin(self, path: str) -> None:
        pin = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self._unpin(path)
        self._pins[path] = pin

    def _is_pinned(self, path: str) -> bool:
        """Is what is at the path the file that we have, or had, open?"""
        try:
            return path in self._pins and os.path.samestat(os.stat(path), os.fstat(self._pins[path]))
        except FileNotFoundError:
            return False

    def _unpin(self, *paths: str) -> None:
        for path in paths:
            if path in self._pins:
                os.close(self._pins.pop(path))
