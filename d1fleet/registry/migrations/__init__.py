"""Revisions of the database's schema, and how one is brought to the newest.

Alembic does it, run from here; it needs no file of its own anywhere.

To change the schema: change `schema.py`, add `versions/vNNNN.py` with the number of the one before in
`down_revision`, and keep a dump of the old schema, with rows, in tests/data/registry. A revision is never
changed again, and imports nothing of ours: what it makes must stay what it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Select, column, inspect, select, table

from ..model import plain
from ..schema import metadata
from ..storeerrors import StoreError

FOLDER = Path(__file__).parent

VERSION_TABLE = "d1fleet_version"
"""Alembic's own, of which others in the same database may have one too."""


def head() -> str:
    """The newest revision that this program knows."""
    return _script().get_current_head() or ""


def revision(connection: Connection, where: str) -> str:
    """The revision of a database; "" when there is nothing of ours in it yet.

    Args:
        where: the database, for messages.

    Raises:
        StoreError: it is a newer one than this program knows, or none of ours.
    """
    names = set(inspect(connection).get_table_names())
    if VERSION_TABLE not in names:
        if others := sorted(names & metadata.tables.keys()):
            raise StoreError(
                f"the database {where} has tables that are not the registry's own: {', '.join(others)}",
                "give the registry a database, or a schema (search_path), of its own",
            )
        return ""
    query: Select[Any] = select(column("version_num")).select_from(table(VERSION_TABLE))
    found = [str(name) for name in connection.execute(query).scalars()]
    known = {each.revision for each in _script().walk_revisions()}
    if len(found) == 1 and found[0] in known:
        lost = sorted(metadata.tables.keys() - names)
        if lost and found[0] == head():
            raise StoreError(
                f"the database {where} has lost its tables {', '.join(lost)}",
                f"restore a backup of it; or make a new one: DROP TABLE {VERSION_TABLE} and the rest of them",
            )
        return found[0]
    raise StoreError(
        f"the database {where} has revision {plain(', '.join(found)) or '(none)'} of its schema;"
        f" this d1fleet knows {', '.join(sorted(known))}",
        "a newer d1fleet has made it: install that one, or restore a backup that this one has made",
    )


def upgrade(connection: Connection) -> None:
    """Bring a database to the newest revision; part of the caller's transaction."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    # An option's value is a format: a percent sign in the path to the package would be read as one.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
