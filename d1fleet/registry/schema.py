"""The tables of the registry's database, as SQLAlchemy's Core has them; `migrations` makes them.

Lists and mappings are JSON in columns of text, not of a JSON type: both kinds of database then keep the same
bytes, one strict reader of ours decodes them (`rows`), and nobody asks a database about what is in them.

Which projects a host is in is a table of its own all the same. So the database itself sees to it that no host
is in a project that is not there, whoever edits it; and a later revision that gives a membership something of
its own (since when, on whose word) adds a column, where JSON would have to be written anew host by host.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from .model import Host, Key, Operator, Project, Record, Token

metadata = MetaData(
    naming_convention={  # A migration can drop only what has a name.
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Every field has a value, and the program writes them all: no NULL, and no defaults beside those of `model`.
projects = Table(
    "projects",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ranges", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("transport", Text, nullable=False),
    Column("toolchain_mismatch", Text, nullable=False),
    Column("old_clients", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
)

hosts = Table(
    "hosts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("fixed_address", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("port", Integer, nullable=False),
    Column("ssh_port", Integer, nullable=False),
    Column("serving", Boolean, nullable=False),
    Column("version", Text, nullable=False),
    Column("system", Text, nullable=False),
    Column("machine", Text, nullable=False),
    Column("host_keys", Text, nullable=False),
    Column("toolchain", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("session", Text, nullable=False),
    Column("joined_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("drained", Boolean, nullable=False),
    Column("expunged", Boolean, nullable=False),
    Column("cloned", Boolean, nullable=False),
    Column("left", Boolean, nullable=False),
    Column("gone", Boolean, nullable=False),
    Column("note", Text, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("host_id", Text, ForeignKey("hosts.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    # No cascade: that a project with hosts goes has to be said host by host, or is a mistake.
    Column("project", Text, ForeignKey("projects.name"), nullable=False, index=True),
    UniqueConstraint("host_id", "project"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, ForeignKey("projects.name"), nullable=False, index=True),
    Column("digest", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
)

operators = Table(
    "operators",
    metadata,
    Column("name", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    # SQLite counts up by itself in what it calls INTEGER PRIMARY KEY, and in nothing else.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("at", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("whom", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

marks = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""What is true of the database as a whole: `statements` knows which."""

TABLES: dict[type[Record], Table] = {
    Project: projects,
    Host: hosts,
    Token: tokens,
    Operator: operators,
    Key: keys,
}
"""By kind of record; those that others refer to come first."""


def key_column(kind: type[Record]) -> str:
    """By which field a record is known."""
    return "name" if kind in (Project, Operator) else "id"


def key(record: Record) -> str:
    """By what a record is known among those of its kind."""
    return str(getattr(record, key_column(type(record))))
