"""Files of inventories that name a registry, and what it says at this moment of hosts that come and go.

Ansible reads such a file by plugins/inventory/registry.py, which takes a second. A build asks the registry
itself whether there is anything new to be read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import D1fleetError, InventoryError
from .registryclient import Registry, read_key
from .registryplace import read_place

ANSWER_S = 5.0
"""A build looks at its inventory's files meanwhile no more."""

_LARGEST_FILE = 1 << 16

_TELLING = ("address", "slots", "projects")
"""What a build goes by, of a host; beside whether it is there."""

_THERE = ("up", "suspect")


def open_registry(file: Path) -> Registry:
    """The registry that a file names.

    Raises:
        InventoryError: the file cannot be read, or a value in it cannot be used.
    """
    try:
        with open(file, "rb") as opened:
            said = yaml.safe_load(opened.read(_LARGEST_FILE))
        if not isinstance(said, dict):
            raise ValueError("it is no mapping")
        place = read_place(_text(said, "url"), _path(said, "certificate", file), _text(said, "pin"))
        if place.socket:
            return Registry(place, answer_s=ANSWER_S)
        key = _path(said, "key_file", file) or os.environ.get("D1FLEET_REGISTRY_KEY_FILE", "")
        return Registry(place, read_key(key), ANSWER_S)
    except D1fleetError as error:
        raise InventoryError(f"the inventory {file}: {error.message}", error.mend) from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InventoryError(f"the inventory {file} cannot be read: {error}") from error


def digest(registry: Registry) -> int:
    """A number that is another one when a build would find other hosts.

    Raises:
        RegistryError: the registry is away, or refuses.
    """
    answer = registry.get("/admin/inventory")
    hosts = answer.get("hosts") if isinstance(answer, dict) else None
    seen = {name: _seen(host) for name, host in hosts.items()} if isinstance(hosts, dict) else answer
    text = json.dumps(seen, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def _seen(host: Any) -> Any:
    """Whether it makes sense is the plugin's to say."""
    if not isinstance(host, dict):
        return host
    state = host.get("state")
    return [state in _THERE or state, *(host.get(name) for name in _TELLING)]


def _text(said: Mapping[Any, Any], name: str) -> str:
    value = said.get(name) or ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _path(said: Mapping[Any, Any], name: str, file: Path) -> str:
    text = _text(said, name)
    return os.path.join(file.parent, os.path.expanduser(text)) if text else ""
