"""Errors of drivers, in words; and URLs."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import DBAPIError

from d1fleet.errors import D1fleetError
from d1fleet.registry.databaseurl import database_at
from d1fleet.registry.store import Store, StoreError, StoreGoneError
from d1fleet.registry.storeerrors import POSTGRES, SQLITE, explained, hidden, said, tells

NEVER = (
    "ERROR INTERNAL ABORT INTERRUPT NOTFOUND PROTOCOL EMPTY SCHEMA TOOBIG MISMATCH MISUSE NOLFS FORMAT RANGE"
)
"""What only a mistake of ours can come to, or of what nothing is said better than in SQLite's own text."""


class ServersError(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("what the server\nsays")
        self.sqlstate = sqlstate


def wrapped(error: BaseException) -> DBAPIError:
    return DBAPIError("SELECT secret_column", {}, error, hide_parameters=True)


def test_every_result_of_sqlite_has_words() -> None:
    never = {getattr(sqlite3, f"SQLITE_{name}") for name in NEVER.split()}
    assert SQLITE.keys() == set(range(1, 27)) - never  # primary codes of errors
    for code, (words, mend) in SQLITE.items():
        error = sqlite3.OperationalError("what it says")
        error.sqlite_errorcode = code | 3 << 8  # an extended one
        ours = explained(wrapped(error), "/srv/registry.db", ())
        assert ours.message == f"the database /srv/registry.db {words}: what it says"
        assert ours.mend == mend
        assert isinstance(ours, StoreGoneError) == (code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "cannot be reached"),
        ("08006", "cannot be reached"),
        ("57P01", "cannot be reached"),
        ("57014", "takes too long to answer"),
        ("28P01", "refuses the login"),
        ("53100", "has no space left"),
        ("53300", "has no connection or memory left"),
        ("23505", "refuses a row"),
        ("25006", "can only be read"),
        ("42501", "may not be used by this user"),
        ("42P01", "has lost its tables"),
        ("XX001", "is damaged"),
        ("22000", "cannot be used"),
    ],
)
def test_states_of_postgresql_have_words(state: str | None, words: str) -> None:
    ours = explained(wrapped(ServersError(state)), "postgresql://u@h/d", ())
    assert ours.message.startswith(f"the database postgresql://u@h/d {words}")
    assert ours.message.endswith(": what the server says")
    assert "secret_column" not in str(ours)
    assert ours.mend
    assert isinstance(ours, StoreGoneError) == (state == "42P01")


def test_all_that_is_said_has_a_mend() -> None:
    for words, mend in [*SQLITE.values(), *POSTGRES.values()]:
        assert words
        assert mend
    assert issubclass(StoreError, D1fleetError)


def test_errors_of_the_system_have_their_own_words() -> None:
    ours = explained(PermissionError(13, "Permission denied", "/srv/registry.db"), "/srv/registry.db", ())
    assert ours.message == "the database /srv/registry.db cannot be used: Permission denied"
    assert "ls -l" in ours.mend


def test_secrets_are_hidden() -> None:
    error = ValueError("login 'longer secret', 'secret', \x1b[31m")
    assert said(error, ("secret", "longer secret", "")) == "login '***', '***', ?[31m"
    assert said(ValueError("x" * 290 + "secret" * 10), ("secret" * 10,)) == "x" * 290 + "***"
    assert hidden("abc", ("",)) == "abc"
    cause = RuntimeError("about secret")
    error.__cause__ = cause
    cause.__context__ = error
    assert tells(error, ("about",))
    assert not tells(error, ("nothing", ""))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "registry.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://host/file.db",
        "sqlite:////tmp/x.db?mode=ro",
        "mysql://u:s3cret@h/d",
        "postgresql+psycopg2://u:s3cret@h/d",
        "postgresql://u:s3cret@h:port/d",
        "://s3cret",
        "http://[s3cret",
    ],
)
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(url)
    assert "postgresql+psycopg://USER@HOST/DATABASE" in caught.value.mend
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql+psycopg://u:s3cret@h:5433/d", "postgresql://u@h:5433/d"),
        ("postgresql://u:s3cret@h/d?password=other&sslmode=require", "postgresql://u@h/d"),
        ("postgres://u@/d?host=/run/postgresql", "postgresql://u@/d?host=%2Frun%2Fpostgresql"),
        ("sqlite:////srv/registry.db", "/srv/registry.db"),
    ],
)
def test_urls_as_they_are_shown(url: str, where: str) -> None:
    assert database_at(url).where == where
    assert repr(Store(url)) == f"<Store {where}>"
