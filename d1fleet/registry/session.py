"""The one connection to the registry's database, which may be lost and found again."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from . import statements
from .checks import UnfitError
from .database import Database
from .statements import WRITER
from .storeerrors import StoreError, StoreGoneError

log = logging.getLogger("d1fleet.registry.store")

T = TypeVar("T")

Work = Callable[[Connection], T]
"""What is done in a transaction. It may be done twice, and has to come to the same."""


class Session:
    """Every method raises StoreError, and nothing else, where the database cannot be used.

    Args:
        database: not taken yet.
    """

    def __init__(self, database: Database) -> None:
        self.unsure = False
        """A connection was lost: what it was about to commit last may be there, or not. Whoever writes next
        sees to it, and clears this."""
        self.is_open = False
        self._database = database
        self._connection: Connection | None = None
        self._writer = secrets.token_hex(16)
        self._is_damaged = False

    @property
    def where(self) -> str:
        """The database, for messages."""
        return self._database.where

    def open(self, fill: Work[object], work: Work[T]) -> T:
        """Take the database, made and filled or brought up where need be, and do the first work in it."""
        with self._explained():
            if self.is_open:
                raise StoreError(f"the database {self.where} is open already")
            try:
                self._connection = self._database.open(fill)
                with self._connection.begin():
                    done = work(self._connection)
                    statements.set_mark(self._connection, WRITER, self._writer)
            except BaseException:
                self.close()
                raise
        self.is_open, self.unsure, self._is_damaged = True, False, False
        return done

    def do(self, work: Work[T]) -> T:
        """Do work in a transaction, which is on the disk when this returns. Work is done once more when the
        connection was lost.
        """
        with self._explained():
            self._check_open()
            lost = False
            while True:
                try:
                    self._look_for_it()
                    connection = self._connected()
                    with connection.begin():
                        done = work(connection)
                    # What was deleted just now holds nothing of it.
                    self._look_for_it()
                    return done
                except Exception as error:
                    again = self._gave_up_connection() and not lost
                    if not again or isinstance(error, StoreError | UnfitError):
                        raise
                    lost = True
                    log.warning("the connection to %s was lost", self.where)

    def renew(self, fill: Work[T]) -> T:
        """Fill a database that is made anew where the one before is gone; else the one that is there."""

        def ours(connection: Connection) -> T:
            self._check_writer(statements.mark(connection, WRITER) or self._writer)
            statements.set_mark(connection, WRITER, self._writer)
            return fill(connection)

        with self._explained():
            self._check_open()
            if self.is_there():
                with contextlib.suppress(StoreGoneError):
                    return self.do(ours)
            self._disconnect()
            done: list[T] = []
            self._connection = self._database.renew(lambda connection: done.append(ours(connection)))
            self._is_damaged = False
            return done[-1]

    def is_there(self) -> bool:
        """Is it still the database that was opened? One on a server is asked."""
        if not self.is_open or self._is_damaged or self._database.gone():
            return False
        if self._database.remote:
            with contextlib.suppress(StoreGoneError):
                self.do(lambda connection: statements.mark(connection, WRITER))
        return not self._is_damaged

    def look(self, work: Work[T]) -> T:
        """Read in a database that another process may have."""
        with self._explained():
            connection = self._database.look()
            try:
                with connection.begin():
                    return work(connection)
            finally:
                connection.close()

    def close(self) -> None:
        """Let others have the database."""
        self._disconnect()
        self._database.close()
        self.is_open = False

    def _connected(self) -> Connection:
        """The connection; a new one where it was lost."""
        if self._connection is None:
            connection = self._database.reopen()
            try:
                with connection.begin():
                    self._check_writer(statements.mark(connection, WRITER))
            except BaseException:
                self._database.disconnect(connection)
                raise
            self._connection, self.unsure = connection, True
        return self._connection

    def _gave_up_connection(self) -> bool:
        """After an error: give up the connection if it cannot be used any more."""
        connection = self._connection
        if connection is None:
            return False
        usable = not (connection.closed or connection.invalidated or connection.in_transaction())
        # SQLite's says so where it could not even roll back.
        if usable and not getattr(connection.connection.driver_connection, "in_transaction", False):
            return False
        self._disconnect()
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._database.disconnect(self._connection)
            self._connection = None

    def _check_open(self) -> None:
        if not self.is_open:
            raise StoreError(f"the database {self.where} is not open")

    def _check_writer(self, writer: str) -> None:
        if writer != self._writer:
            raise StoreError(
                f"another registry has used the database {self.where} meanwhile",
                "start this one again, and see that only one is set up to use it",
            )

    def _look_for_it(self) -> None:
        if why := self._database.gone():
            raise StoreGoneError(f"the database {self.where} {why}", "it has to be made anew")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of others become ours."""
        try:
            yield
        except UnfitError as error:
            raise unfit(self.where, error) from error
        except (SQLAlchemyError, sqlite3.Error, OSError, UnicodeError) as error:
            ours = self._database.explain(error)
            if isinstance(ours, StoreGoneError):
                self._is_damaged = True
            raise ours from (None if self._database.tells(error) else error)


def unfit(where: str, error: UnfitError) -> StoreError:
    """For a record that cannot be meant."""
    return StoreError(
        f"the database {where}: {error}",
        "mend that row (sqlite3, psql), or restore a backup: d1fleet registry restore",
    )
