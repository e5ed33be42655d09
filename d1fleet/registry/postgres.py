"""A database of a PostgreSQL server, 12 or newer.

The session that writes holds an advisory lock for as long as the registry has the database. It has to be a
real one: through a pooler that shares sessions (pgbouncer's transaction mode) this cannot work.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from sqlalchemy import URL, Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from . import migrations, statements
from .database import Fill
from .storeerrors import StoreError, explained, said, tells

log = logging.getLogger("d1fleet.registry.store")

LOCK = 0xD1F1EE7
"""First number of the advisory lock; the second one stands for the schema."""

LOCK_WAIT_S = 5.0
"""The session of a registry that was killed takes a moment to end (a guess, for a server that is busy)."""

_CONNECT = {
    "connect_timeout": 5,
    "application_name": "d1fleet registry",
    # Without, a database that was made with SQL_ASCII gives bytes.
    "client_encoding": "utf8",
    # A server that is gone without a word is noticed after 10 s, not after 15 min (tcp(7)). By TCP only.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Of libpq; what the URL says counts more."""

_SESSION = (
    # The server ends the session, and with it the lock, of a registry whose machine is gone.
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = 20000",
    # Whoever waits for an answer waits for this.
    "SET lock_timeout = '5s'",
    "SET statement_timeout = '30s'",
    # What is acknowledged has to last; a server may be set up otherwise.
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'",
)


class PostgresServer:
    """See `database.Database`.

    Args:
        url: of SQLAlchemy, for psycopg.
    """

    remote = True

    def __init__(self, url: URL) -> None:
        self._secrets = {str(url.password or "")} | {
            value if isinstance(value, str) else ",".join(value)
            for name, value in url.query.items()
            if "password" in name
        }
        query = {name: value for name, value in url.query.items() if name in ("host", "port")}
        self.where = URL.create(
            "postgresql", url.username, None, url.host, url.port, url.database, query
        ).render_as_string()
        self._engine = create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            use_native_hstore=False,
            connect_args={name: value for name, value in _CONNECT.items() if name not in url.query},
        )
        self._session: tuple[int, Any] | None = None
        """Process and start of the one that holds the lock."""

    def open(self, fill: Fill) -> Connection:
        connection = self._connect()
        try:
            self._bring_up(connection, fill)
        except BaseException:
            self.disconnect(connection)
            raise
        return connection

    def disconnect(self, connection: Connection) -> None:
        with contextlib.suppress(SQLAlchemyError):
            if not connection.invalidated:
                # A server takes its time to see that a session is over; who comes next need not wait for it.
                connection.rollback()
                connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        with contextlib.suppress(SQLAlchemyError):
            connection.close()

    def reopen(self) -> Connection:
        return self._connect()

    def renew(self, fill: Fill) -> Connection:
        connection = self._connect()
        try:
            if not self._bring_up(connection, fill):
                with connection.begin():
                    fill(connection)
        except BaseException:
            self.disconnect(connection)
            raise
        return connection

    def look(self) -> Connection:
        connection = self._engine.connect()
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.commit()
        return connection

    def gone(self) -> str:
        return ""

    def explain(self, error: BaseException) -> StoreError:
        return explained(error, self.where, self._secrets)

    def tells(self, error: BaseException) -> bool:
        return tells(error, self._secrets)

    def close(self) -> None:
        self._session = None

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        try:
            with connection.begin():
                for statement in _SESSION:
                    connection.exec_driver_sql(statement)
                self._take(connection)
                started = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
                pid, start = connection.exec_driver_sql(started).one()
            self._session = (pid, start)
        except BaseException:
            connection.close()
            raise
        return connection

    def _take(self, connection: Connection) -> None:
        """Take the lock; from a session of our own that has been lost, if need be."""
        if self._session is not None:
            # Its server may not know yet that nobody is there any more. What it was about to commit is
            # committed or not when it is gone, and not later.
            pid, start = self._session
            ended = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid = :pid AND backend_start = :start"
            )
            connection.execute(text(ended), {"pid": pid, "start": start})
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_WAIT_S * 1000:.0f}")
        try:
            connection.exec_driver_sql(
                f"SELECT pg_advisory_lock({LOCK}, hashtext(coalesce(current_schema(), '')))"
            )
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", "") != "55P03":
                raise
            raise StoreError(
                f"the database {self.where} is in use by another registry",
                "only one registry may have it: stop that one first, or CREATE DATABASE for this one",
            ) from error

    def _bring_up(self, connection: Connection, fill: Fill) -> bool:
        """Bring it to the newest revision.

        Returns:
            Whether there was nothing, so that it was filled.
        """
        with connection.begin():
            revision = migrations.revision(connection, self.where)
            if revision == (newest := migrations.head()):
                return False
        log.warning("%s is brought from revision %s to %s of its schema", self.where, revision or "0", newest)
        try:
            # PostgreSQL takes changes of the schema back, too, when anything in here fails.
            with connection.begin():
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                migrations.upgrade(connection)
                if not revision:
                    fill(connection)
                statements.load(connection)
        except Exception as error:
            if not revision:
                raise
            why = error.message if isinstance(error, StoreError) else said(error, self._secrets)
            raise StoreError(
                f"the database {self.where} could not be brought from revision {revision} of its schema to"
                f" {newest}, and is as it was: {why}",
                "mend what the text says; until then, go on with the d1fleet that you had before",
            ) from (None if self.tells(error) else error)
        return not revision
