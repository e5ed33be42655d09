"""This machine as a host of a registry: what is there of that, how it joins, and how it is asked about.

The check-in itself is d1fleet/checkin, which runs as a program; what is installed is the roles' work.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import collection
from .checkin import values
from .checkin.strictjson import BadDocumentError
from .errors import HostError, RegistryError, RuntimeFolderError, ToolError
from .registryclient import Registry
from .registryplace import Place
from .words import plain

_MOST_BYTES = 1 << 20
_LONGEST_CREDENTIAL = 10_000
_JOIN_S = 120.0
"""To look at compilers takes the longest."""

_CARRIED = ("credential", "joined", "machine")
"""Files of the check-in's folder that a further project is joined with."""


@dataclass(frozen=True)
class Places:
    """Where things are, below another root in tests.

    Attributes:
        state: the check-in's own folder.
        config: what it goes by.
        notes: what `d1fleet join` was told, for the next time, and so that `d1fleet leave` knows its own.
        mark: whose host it is, by role `fleet`.
    """

    root: str = "/"

    @property
    def state(self) -> Path:
        return Path(self.root, "var/lib/d1fleet-checkin")

    @property
    def config(self) -> Path:
        return Path(self.root, "etc/d1fleet/checkin.json")

    @property
    def notes(self) -> Path:
        return Path(self.root, "etc/d1fleet/join.json")

    @property
    def mark(self) -> Path:
        return Path(self.root, "etc/ansible/facts.d/d1fleet_inventory.fact")


@dataclass(frozen=True, repr=False)
class Membership:
    """What is there already.

    Attributes:
        registry: URL of the registry, "" where there is none.
        certificate: path of its certificate, "" where authorities vouch for it.
        credential: with which this host speaks to it, "" where it has not joined.
        notes: what `d1fleet join` was told; None where it was not `d1fleet join`.
        projects: by role `fleet`.
    """

    registry: str
    certificate: str
    credential: str
    notes: Mapping[str, Any] | None
    projects: tuple[str, ...]

    @property
    def joined(self) -> bool:
        return bool(self.registry and self.credential)


def here(places: Places) -> Membership:
    """This machine's."""
    config = _mapping(places.config)
    credential = ""
    with contextlib.suppress(OSError):
        credential = (places.state / "credential").read_text("ascii", "replace")[:_LONGEST_CREDENTIAL].strip()
    projects = _mapping(places.mark).get("projects")
    return Membership(
        str(config.get("registry") or ""),
        str(config.get("certificate") or ""),
        credential,
        _mapping(places.notes) if places.notes.exists() else None,
        tuple(map(str, projects)) if isinstance(projects, list) else (),
    )


def _mapping(file: Path) -> dict[str, Any]:
    """A file of ours; {} for one that is not there, or is none of them."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        with open(file, "rb") as opened:
            found = json.loads(opened.read(_MOST_BYTES))
        if isinstance(found, dict):
            return found
    return {}


def keep_notes(places: Places, notes: Mapping[str, Any]) -> None:
    """Raises:
    RuntimeFolderError: they cannot be written.
    """
    try:
        places.notes.parent.mkdir(parents=True, exist_ok=True)
        _write(places.notes, json.dumps(notes, indent=1).encode() + b"\n", 0o644)
    except OSError as error:
        raise RuntimeFolderError(
            f"{places.notes} cannot be written: {error.strerror}", "see `ls -ld` of its folder"
        ) from error


def join(
    places: Places, place: Place, certificate: str, name: str, token: str, settings: Mapping[str, Any]
) -> None:
    """Have this host join the token's project; its credential is kept.

    Args:
        certificate: a file with the registry's own, which alone is trusted; "" where authorities vouch.
        settings: further members of the check-in's configuration.

    Raises:
        RegistryError: the registry refuses, or is away.
        RuntimeFolderError: the credential cannot be kept.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="d1fleet-join-")
        places.state.mkdir(0o700, parents=True, exist_ok=True)
        owner = places.state.stat()
    except OSError as error:
        raise RuntimeFolderError(
            f"{error.filename} cannot be made: {error.strerror}", "free some space there"
        ) from error
    with folder as private:
        # The folder may belong to the user that the check-in runs as, whose programs must not be led astray.
        state = Path(private, "state")
        state.mkdir(0o700)
        for each in _CARRIED:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(places.state / each, state / each, follow_symlinks=False)
        config = Path(private, "checkin.json")
        said = {"registry": str(place), "certificate": certificate, "networks": [], **settings}
        config.write_text(json.dumps(said))
        try:
            _ask_to_join(config, state, name, token)
        finally:
            # Also where what came after it was not to its liking: nobody else has it.
            for each in _CARRIED:
                if (state / each).exists():
                    _install(state / each, places.state / each, owner)


def _ask_to_join(config: Path, state: Path, name: str, token: str) -> None:
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    argv = [sys.executable, "-P", "-m", "d1fleet.checkin", "join", "--config", str(config)]
    argv += ["--state", str(state), "--name", name, "--token-file", "-"]
    try:
        done = subprocess.run(
            argv,
            input=f"{token}\n".encode(),
            capture_output=True,
            timeout=_JOIN_S,
            env={**os.environ, "PYTHONPATH": ours},
        )
    except subprocess.TimeoutExpired:
        raise RegistryError("to join takes too long", "look what the registry's log says") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").replace(token, "d1j_...").strip()
        message, _, mend = said.removeprefix("d1fleet: ").partition("\n  mend: ")
        raise RegistryError(plain(message) or "the check-in says nothing", plain(mend))


def _install(new: Path, file: Path, owner: os.stat_result) -> None:
    data = new.read_bytes()
    try:
        if file.is_file() and file.read_bytes() == data:
            return
        _write(file, data, 0o600, (owner.st_uid, owner.st_gid))
    except OSError as error:
        raise RuntimeFolderError(
            f"{file} cannot be written: {error.strerror}",
            "free some space there, have an operator forget this host, and join again",
        ) from error


def _write(file: Path, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Whole or not at all."""
    number, name = tempfile.mkstemp(prefix=".new-", dir=file.parent)
    try:
        with open(number, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fchmod(number, mode)
            if owner is not None:
                os.fchown(number, *owner)
            os.fsync(number)
        os.replace(name, file)
    except OSError:
        os.unlink(name)
        raise


@dataclass(frozen=True)
class Standing:
    """What the registry says of this host.

    Attributes:
        message: why its peers do not get it, "" where they do.
        projects: {project: (ranges, names of its peers that compile)}.
    """

    name: str
    state: str
    message: str
    projects: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]

    @property
    def ranges(self) -> list[str]:
        """Of all its projects together."""
        return list(dict.fromkeys(each for ranges, _ in self.projects.values() for each in ranges))


def standing(registry: Registry) -> Standing:
    """Ask the registry, as this host.

    Args:
        registry: with the host's credential.

    Raises:
        RegistryError: it is away, refuses, or answers something else.
    """
    answer = registry.post("/wait", {"known": {}, "wait_s": 1})
    try:
        # Ansible will read this as root: whatever could mean more than a name or a network goes no further.
        name = values.host_name(answer["name"], "name")
        return Standing(
            name,
            plain(str(answer["state"])),
            plain(str(answer["message"])),
            {
                values.project_name(project, "projects"): (
                    tuple(map(str, values.networks(found["ranges"], "ranges", values.MOST_NETWORKS))),
                    tuple(plain(str(peer["name"])) for peer in found["peers"] if peer["name"] != name),
                )
                for project, found in answer["projects"].items()
            },
        )
    except (BadDocumentError, LookupError, TypeError, AttributeError) as error:
        raise RegistryError(
            f"{registry.place} does not answer as a registry does: {error!r:.100}",
            "look whether it is one, of our version",
        ) from error


# Ansible

_CONFIG = """\
[defaults]
interpreter_python = auto_silent
callback_result_format = yaml
retry_files_enabled = False
inject_facts_as_vars = False
[inventory]
any_unparsed_is_failed = True
"""


def inventory(name: str, projects: Mapping[str, Any] | tuple[str, ...], variables: Mapping[str, Any]) -> Any:
    """One of this host alone, in its projects."""
    python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "auto_silent"
    host = {"ansible_connection": "local", "ansible_python_interpreter": python}
    children = {project: {"hosts": {name: host}} for project in projects}
    return {"projects": {"vars": dict(variables), "children": children}}


def play(playbook: str, hosts: Any, *arguments: str, quiet: bool = False) -> None:
    """Run a playbook of ours on this machine; what it says goes to our standard output.

    Args:
        hosts: an inventory.
        quiet: only what changes or fails is shown.

    Raises:
        ToolError: Ansible, or the playbook, is not there.
        HostError: something in it has failed.
    """
    program = find_ansible()
    with collection.whole() as collections, tempfile.TemporaryDirectory(prefix="d1fleet-play-") as private:
        file, config = Path(private, "hosts.json"), Path(private, "ansible.cfg")
        file.touch(0o600)
        file.write_text(json.dumps(hosts))
        config.write_text(_CONFIG)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environ |= {
            "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
            "ANSIBLE_CONFIG": str(config),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_HOME": private,
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "0",
            **({"ANSIBLE_DISPLAY_OK_HOSTS": "0"} if quiet else {}),
            "LC_ALL": "C.UTF-8",
        }
        argv = [program, "--inventory", str(file), f"d1.fleet.{playbook}", *arguments]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, env=environ, cwd=private)
    if done.returncode:
        raise HostError(
            f"not all of it was done: ansible-playbook d1.fleet.{playbook} ended with {done.returncode}",
            "mend what failed, as it says above, and give the same command again",
        )


def find_ansible() -> str:
    """Raises:
    ToolError: there is no ansible-playbook.
    """
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    found = shutil.which("ansible-playbook", path=path)
    if found is None:
        raise ToolError("there is no ansible-playbook on this machine", "pip install ansible-core")
    return found
