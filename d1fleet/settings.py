"""What a build is told, from all who may say something: options, environment, d1fleet.yml, the user's file.

The first that says something about a matter is followed. What an inventory says of single hosts comes after
all of them (inventory.py). Names are the same everywhere: fields of `Settings` are the keys of both files.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import setting_values as values
from .errors import UsageError
from .model import TRANSPORTS, Host
from .setting_values import Source
from .trust import FILE, require_trust

POLICIES = ("cost", "d1make")

LONGEST_S = 3600.0
"""A host that is cut off would go on for this long (a guess at what nobody wants to wait for)."""

SHORTEST_S = 0.5
"""Below, a busy machine is taken for a dead one."""

USUAL_HEARTBEAT_S = 2.0
HEARTBEATS_A_LEASE = 2
"""One sign of life may get lost."""


@dataclass(frozen=True)
class Settings:
    """All settings of a build. Without hosts and inventory, this machine is the fleet."""

    hosts: tuple[Host, ...] = ()
    """Hosts named one by one; then `inventory` is empty."""
    inventory: tuple[str, ...] = ()
    """Absolute paths."""
    project: str | None = None
    """None takes the inventory's only one."""
    slots: int | None = None
    """Recipes at once on each host that says nothing itself; None asks the host."""
    transport: str | None = None
    """One of TRANSPORTS, for hosts that say nothing themselves; None means `ssh`."""
    setup: str = ""
    """Shell text put directly before the command whose environment is kept, on each host."""
    fence: str = ""
    """Command that makes sure that a host which cannot be asked does nothing any more (fence.py)."""
    makeargs: tuple[str, ...] = ()
    """Further arguments for each sub-make on a host."""
    trees: tuple[str, ...] = ()
    """Folders that hosts share beside the build's own. Absolute."""
    keep_environment: tuple[str, ...] = ()
    """Names of variables that travel although they would be left out."""
    ssh_config: str | None = None
    """A file, as `ssh -F`; None for the user's own."""
    ssh_options: tuple[str, ...] = ()
    """Further options of ssh, as an argument list."""
    heartbeat_s: float = USUAL_HEARTBEAT_S
    lease_s: float = 10.0
    grace_s: float = 6.0
    connect_timeout_s: float = 10.0
    policy: str = POLICIES[0]
    """One of POLICIES."""
    strict: bool = False
    """Whether it is an error that no host can take a sub-make."""
    trust_hosts: bool = False
    """Whether what a job on another machine calls may run on this one too, where this one is a host."""
    keep_local: tuple[str, ...] = ()
    """Rules about sub-makes that stay where they are called, beyond the usual ones (rules.py)."""
    not_repeatable: tuple[str, ...] = ()
    """Rules about sub-makes that must not be done twice, beyond the usual ones."""
    record: str | None = None
    """File for one JSON object a job, beside the record that is kept."""
    keep_records: int = 10
    """Builds of each tree whose records are kept for `why`; 0 keeps none."""
    summary: bool | None = None
    """Whether to sum up at the end; None when stderr is a terminal."""
    local_slots: int | None = None
    """Recipes at once on this machine; None for its usable CPUs."""
    notes: tuple[str, ...] = ()
    """What the user should be told about his settings."""


_READERS = {
    "hosts": values.hosts,
    "inventory": values.paths,
    "project": values.word,
    "slots": values.count,
    "transport": values.one_of(TRANSPORTS),
    "setup": values.text,
    "fence": values.text,
    "makeargs": values.arguments,
    "trees": values.folders,
    "keep_environment": values.words,
    "ssh_config": values.readable_file,
    "ssh_options": values.ssh_options,
    "heartbeat_s": values.seconds(0.05, LONGEST_S),
    "lease_s": values.seconds(SHORTEST_S, LONGEST_S),
    "grace_s": values.seconds(SHORTEST_S, LONGEST_S),
    "connect_timeout_s": values.seconds(SHORTEST_S, LONGEST_S),
    "policy": values.one_of(POLICIES),
    "strict": values.flag,
    "trust_hosts": values.flag,
    "keep_local": values.rules,
    "not_repeatable": values.rules,
    "record": values.path,
    "keep_records": values.number(0, 1000),
    "summary": values.flag,
    "local_slots": values.count,
}

_ENVIRONMENT = {
    "hosts": "D1FLEET_HOSTS",
    "inventory": "D1FLEET_INVENTORY",
    "project": "D1FLEET_PROJECT",
    "trust_hosts": "D1FLEET_TRUST_HOSTS",
}
_D1MAKE = {
    "hosts": "D1MAKE_HOSTS",
    "setup": "D1MAKE_SERVER_SETUP",
    "makeargs": "D1MAKE_CLIENT_MAKEARGS",
    "ssh_options": "D1MAKE_EXTRA_SSH_PARAMETERS",
}
_UNUSED = "D1MAKE_SSH_CTL_PATH"


def load_settings(
    options: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    folder: str | Path | None = None,
) -> Settings:
    """All settings for a build in `folder`.

    Args:
        options: fields of `Settings` that the command line gave; those that are None were not given.
        folder: None for the current one.

    Raises:
        UsageError: a value cannot be used, or two contradict each other; it says where they stand.
        TrustError: the tree has a d1fleet.yml that the user has not trusted.
    """
    here = Path(os.path.abspath(folder or os.getcwd()))
    given = {name: value for name, value in (options or {}).items() if value is not None}
    _check_names(given, "the options")
    layers = [
        _read(given, {name: Source(f"--{_dashed(name)}", here) for name in given}),
        # A variable that an option overrules is not even looked at: it may well be of no use.
        _from_environment(environ, _without(_ENVIRONMENT, given), here),
        _from_environment(environ, _without(_D1MAKE, given), here),
    ]
    tree_file = find_file(here)
    if tree_file is not None:
        layers.append(_from_file(tree_file, _content(tree_file, of_tree=True)))
    user_file = _user_file(environ)
    if user_file.exists():
        layers.append(_from_file(user_file, _content(user_file, of_tree=False)))
    notes = [
        f"{name} is set and means nothing; did you mean {near[0]}?"
        for name in environ
        if name.startswith("D1FLEET_") and environ[name] and name not in _ENVIRONMENT.values()
        if (near := difflib.get_close_matches(name, _ENVIRONMENT.values(), 1, 0.8))
    ]
    if environ.get(_UNUSED):
        notes.append(
            f"{_UNUSED} is set and not used: d1fleet has one connection a host, without a control path"
        )
    return _checked(_merge(layers), notes)


def _without(names: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, str]:
    which_hosts = {"hosts", "inventory", "project"}
    answered = set(given) | (which_hosts if {"hosts", "inventory"} & given.keys() else set())
    return {name: variable for name, variable in names.items() if name not in answered}


def find_file(folder: Path) -> Path | None:
    """The d1fleet.yml of a folder, or the nearest above; not where anybody could put one, like /tmp."""
    for place in [folder, *folder.parents]:
        try:
            if place.stat().st_mode & 0o1002 == 0o1002:
                return None
            if (place / FILE).exists():
                return place / FILE
        except OSError:
            return None
    return None


def check_file(path: Path) -> None:
    """Read a d1fleet.yml without following it.

    Raises:
        UsageError: a value in it cannot be used; it says where.
    """
    _from_file(path, _content(path, of_tree=False))


# One layer


@dataclass(frozen=True)
class _Setting:
    value: Any
    source: Source


def _dashed(name: str) -> str:
    return name.removesuffix("_s").replace("_", "-")


def _read(given: Mapping[str, Any], sources: Mapping[str, Source]) -> dict[str, _Setting]:
    layer = {
        name: _Setting(_READERS[name](value, sources[name]), sources[name]) for name, value in given.items()
    }
    if "hosts" in layer:
        for other in ("inventory", "project"):
            if other in layer:
                raise UsageError(
                    f"{layer['hosts'].source} and {layer[other].source} contradict each other",
                    "name hosts, or take a project of an inventory",
                )
    return layer


def _from_environment(
    environ: Mapping[str, str], names: Mapping[str, str], folder: Path
) -> dict[str, _Setting]:
    given: dict[str, Any] = {
        # An empty one says nothing: `NAME= command` is how a shell takes a setting back for one command.
        name: environ[variable]
        for name, variable in names.items()
        if environ.get(variable)
    }
    if "inventory" in given:
        given["inventory"] = given["inventory"].split(os.pathsep)
    return _read(given, {name: Source(names[name], folder) for name in given})


def _from_file(path: Path, content: bytes) -> dict[str, _Setting]:
    try:
        given = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
        raise UsageError(f"{place} is no YAML: {what}", "correct it") from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UsageError(f"{path} holds no settings", "write `name: value`, a line each")
    _check_names(given, str(path))
    return _read(given, {name: Source(f"{path}: {name}", path.parent) for name in given})


def _content(path: Path, of_tree: bool) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "see `ls -l` of it") from error
    if of_tree:
        require_trust(path, content)
    return content


def _check_names(given: Mapping[Any, Any], where: str) -> None:
    for name in given:
        if name not in _READERS:
            near = difflib.get_close_matches(str(name), _READERS, 1)
            mend = f"did you mean {near[0]}?" if near else f"known settings: {', '.join(_READERS)}"
            raise UsageError(f"{where}: there is no setting {name!r}", mend)


def _user_file(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.config"), "d1fleet", "config.yml")


# All layers


def _merge(layers: Sequence[Mapping[str, _Setting]]) -> dict[str, _Setting]:
    merged: dict[str, _Setting] = {}
    for layer in layers:
        # Hosts on the one side, a project of an inventory on the other answer one question: the first stands.
        passed_over = {"hosts"} if {"inventory", "project"} & merged.keys() else set()
        passed_over |= {"inventory", "project"} if "hosts" in merged else set()
        for name, setting in layer.items():
            if name not in passed_over:
                merged.setdefault(name, setting)
    if "project" in merged and "inventory" not in merged:
        raise UsageError(f"{merged['project'].source} is given, and no inventory", "name one by --inventory")
    return merged


def _checked(merged: Mapping[str, _Setting], notes: Sequence[str]) -> Settings:
    known: dict[str, Any] = {name: setting.value for name, setting in merged.items()}
    lease_s = known.get("lease_s", Settings.lease_s)
    longest_s = lease_s / HEARTBEATS_A_LEASE
    heartbeat_s = known.setdefault("heartbeat_s", min(USUAL_HEARTBEAT_S, lease_s / 5))
    if heartbeat_s > longest_s:
        raise UsageError(
            f"{merged['heartbeat_s'].source} is {heartbeat_s:g} s, too long for a lease of {lease_s:g} s",
            f"set it to {longest_s:g} s or less, or the lease to more",
        )
    return Settings(notes=tuple(notes), **known)
