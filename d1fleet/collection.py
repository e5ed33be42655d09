"""Where the Ansible collection `d1.fleet` is: roles, playbooks and plugins. In a checkout they lie beside
this package, in an installation inside it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import RuntimeFolderError, ToolError

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_collection"
"""pyproject.toml puts them there."""


def root() -> Path:
    """The folder that holds `playbooks/` and `roles/`.

    Raises:
        ToolError: they are not there.
    """
    for folder in (_INSTALLED, _PACKAGE.parent):
        if (folder / "playbooks").is_dir() and (folder / "roles").is_dir():
            return folder
    raise ToolError(
        f"the playbooks did not come with d1fleet: {_INSTALLED} is not there",
        "install d1fleet by pip from its wheel, or run it from a checkout",
    )


@contextlib.contextmanager
def linked() -> Iterator[Path]:
    """A folder for PYTHONPATH, so that Ansible finds the collection's plugins beside all that the site has.

    Raises:
        ToolError: the collection is not there.
        RuntimeFolderError: no temporary folder can be made.
    """
    found = root()
    with _temporary_folder() as folder:
        place = folder / "ansible_collections" / "d1"
        place.mkdir(parents=True)
        os.symlink(found, place / "fleet")
        yield folder


@contextlib.contextmanager
def whole() -> Iterator[Path]:
    """A folder for ANSIBLE_COLLECTIONS_PATH with all of the collection, for playbooks: roles look for
    programs of this package two folders above themselves, where links would lead them astray.

    Raises:
        ToolError: the collection is not there.
        RuntimeFolderError: no temporary folder can be made, or it is full.
    """
    found = root()
    if found != _INSTALLED:
        with linked() as folder:
            yield folder
        return
    with _temporary_folder() as folder:
        place = folder / "ansible_collections" / "d1" / "fleet"
        try:
            shutil.copytree(found, place, ignore=shutil.ignore_patterns("__pycache__"))
            os.symlink(_PACKAGE, place / "d1fleet")
        except OSError as error:
            raise RuntimeFolderError(
                f"the playbooks cannot be copied to {folder}: {error}", "free some space there, or set TMPDIR"
            ) from error
        yield folder


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="d1fleet-collection-")
    except OSError as error:
        raise RuntimeFolderError(
            f"no temporary folder can be made: {error.strerror}", "set TMPDIR"
        ) from error
    with folder as name:
        yield Path(name)
