"""Reads inventories through ansible-runner; nothing else imports it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import inventory_cache, words
from .errors import D1fleetError, InventoryError, RuntimeFolderError, ToolError
from .fleet import Fleet, Inventory

__all__ = ["Fleet", "load_fleet", "load_inventory"]


def load_fleet(inventories: Sequence[str | Path], project: str | None = None) -> Fleet:
    """The hosts of a project.

    Raises:
        InventoryError: see `load_inventory`, and `Inventory.fleet`.
        UnknownProjectError: no such project, or several and none chosen.
        ToolError: Ansible is not installed with d1fleet.
    """
    return load_inventory(inventories).fleet(project)


def load_inventory(inventories: Sequence[str | Path], cached: bool = True) -> Inventory:
    """Groups and variables of inventory files and folders.

    ansible.cfg is the one that ANSIBLE_CONFIG names, else the first in the inventory's folder or above it, in
    the same repository, else the user's; never, as with Ansible itself, that of the current folder.

    Args:
        cached: whether an earlier answer may be used, and this one kept.

    Raises:
        InventoryError: a file is missing, empty or unreadable, or Ansible cannot make sense of it.
        ToolError: Ansible is not installed with d1fleet.
        RuntimeFolderError: there is no room for a temporary folder.
    """
    paths = [Path(os.path.abspath(os.path.expanduser(path))) for path in inventories]
    if not paths:
        raise InventoryError("no inventory is named", "name one by --inventory, or hosts by --hosts")
    for path in paths:
        if not path.exists():
            raise InventoryError(
                f"the inventory {path} does not exist", "--inventory takes a file or a folder"
            )
        if not os.access(path, os.R_OK):
            raise InventoryError(f"the inventory {path} cannot be read", "see `ls -l` of it")
    config = used_config(paths)
    key = inventory_cache.entry_key(paths, config) if cached else None
    if key is not None:
        known = inventory_cache.remembered(key)
        if known is not None:
            return known
    inventory = _read(paths, config)
    if not inventory.hosts("all"):
        raise InventoryError(
            f"the inventory {_named(paths)} has no hosts", "add some, or name hosts by --hosts"
        )
    # A file that changed in the meantime may be older or newer than what was read.
    if key is not None and key == inventory_cache.entry_key(paths, config):
        inventory_cache.remember(key, inventory)
    return inventory


def used_config(inventories: Sequence[str | Path]) -> str | None:
    """The ansible.cfg for these inventories; None leaves the user's to Ansible."""
    return _environ_path("ANSIBLE_CONFIG") or _nearest_config(Path(inventories[0]))


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _environ_path(name: str) -> str | None:
    """A path in the environment, made absolute: Ansible is started elsewhere."""
    value = os.environ.get(name)
    return os.path.abspath(os.path.expanduser(value)) if value else None


def _nearest_config(path: Path) -> str | None:
    for folder in [path, *path.parents] if path.is_dir() else path.parents:
        with contextlib.suppress(OSError):
            # Ansible too passes over what anybody could have put there.
            if (folder / "ansible.cfg").is_file() and not folder.stat().st_mode & 0o002:
                return str(folder / "ansible.cfg")
        if (folder / ".git").exists():
            break
    return None


# Ansible

_OF_REGISTRY = re.compile(r"inventory with '(?:auto|registry)' plugin: (/.*\.d1fleet\.ya?ml: .*)")
"""What our plugin says, with its mend; what other plugins say of the same file afterwards is of no use."""


@contextlib.contextmanager
def _without_stdin() -> Iterator[None]:
    """What is piped into the build is the build's: no inventory program may read it, and nobody is asked."""
    try:
        kept = os.dup(0)
    except OSError:
        kept = -1
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.dup2(null, 0)
        yield
    finally:
        if kept >= 0:
            os.dup2(kept, 0)
            os.close(kept)
        else:
            os.close(0)
        if null != 0:
            os.close(null)


@contextlib.contextmanager
def _private_folder() -> Iterator[str]:
    """ansible-runner keeps notes of every run: outside the user's tree, and not for long."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="d1fleet-inventory-")
    except OSError as error:
        raise RuntimeFolderError(
            f"no temporary folder can be made: {error.strerror}", "set TMPDIR"
        ) from error
    with folder as name:
        yield name


@contextlib.contextmanager
def _plugins(paths: Sequence[Path]) -> Iterator[dict[str, str]]:
    """What Ansible needs in its environment to find the plugin of a registry, where one is named."""
    if not inventory_cache.registry_files(paths):
        yield {}
        return
    from . import collection

    with collection.linked() as folder:
        others = os.environ.get("PYTHONPATH")
        yield {"PYTHONPATH": os.pathsep.join([str(folder), *([others] if others else [])])}


def _read(paths: Sequence[Path], config: str | None) -> Inventory:
    try:
        from ansible_runner import interface
        from ansible_runner.exceptions import AnsibleRunnerException
    except ImportError as error:
        raise ToolError(
            "ansible-runner is not installed", "pip install ansible-runner ansible-core"
        ) from error
    with _private_folder() as private, _plugins(paths) as plugins, _without_stdin():
        vault_file = _environ_path("ANSIBLE_VAULT_PASSWORD_FILE")
        environ = {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
            # A file that cannot be read would else be a warning, and its hosts would be missing.
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
            "ANSIBLE_ASK_VAULT_PASS": "0",
            "ANSIBLE_NOCOLOR": "1",
            # Ansible refuses to start in any other; people build in LC_ALL=C all the time.
            "LC_ALL": "C.UTF-8",
            # It makes folders there, also where it need not.
            "ANSIBLE_HOME": private,
            **({"ANSIBLE_CONFIG": config} if config else {}),
            **({"ANSIBLE_VAULT_PASSWORD_FILE": vault_file} if vault_file else {}),
            **plugins,
        }
        # ansible-runner looks for the program in our own PATH, and starts it in that of `envvars`.
        path, os.environ["PATH"] = os.environ.get("PATH"), environ["PATH"]
        try:
            answer, complaint = interface.get_inventory(
                "list",
                [str(path) for path in paths],
                response_format="json",
                quiet=True,
                private_data_dir=private,
                host_cwd=private,
                envvars=environ,
            )
        except AnsibleRunnerException as error:
            raise ToolError(
                f"ansible-inventory does not start: {error}", "pip install ansible-core"
            ) from error
        except ValueError as error:
            raise InventoryError(f"ansible-inventory made no sense of {_named(paths)}: {error}") from error
        finally:
            if path is None:
                del os.environ["PATH"]
            else:
                os.environ["PATH"] = path
    if not answer:
        if of_registry := _OF_REGISTRY.search(complaint):
            raise InventoryError(f"the inventory {words.plain(of_registry[1])}")
        raise InventoryError(
            f"the inventory {_named(paths)} cannot be read: {_essence(complaint)}", _mend(paths)
        )
    try:
        return Inventory.of(answer)
    except ValueError as error:
        raise InventoryError(
            f"ansible-inventory made no sense of {_named(paths)}: {error}", _mend(paths)
        ) from error


def _mend(paths: Sequence[Path]) -> str:
    """A command that can be copied: it shows all that Ansible has to say."""
    program = os.path.join(os.path.dirname(sys.executable), "ansible-inventory")
    which = [word for path in paths for word in ("-i", str(path))]
    return f"ask Ansible itself: {shlex.join([program, '--list', *which])}"


def _essence(complaint: str) -> str:
    """The first line that says what is wrong, without what could play with a terminal."""
    lines = ["".join(filter(str.isprintable, line)).strip() for line in complaint.splitlines()]
    lines = [re.sub(r"^\[?(WARNING|ERROR)\]?:\s*", "", line) for line in lines if line]
    telling = [line for line in lines if re.search(r"YAML parsing failed|[Vv]ault|[Ee]rror|[Dd]enied", line)]
    places = [line.removeprefix("Origin: ") for line in lines if line.startswith("Origin: /")]
    return (telling or lines or ["it said nothing"])[0] + (f" ({places[0]})" if places else "")


def main() -> int:
    """Print the inventory of our arguments, or what is wrong with it, as JSON: for `watch.py`."""
    try:
        print(json.dumps({"inventory": load_inventory(sys.argv[1:]).to_json()}))
    except D1fleetError as error:
        print(json.dumps({"error": [error.message, error.mend]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
