"""distcc for a project of this host: its hosts file, which peers answer, and the environment of a build."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import hostsfile
from .distcclint import CCACHE_MASQUERADES, MASQUERADES
from .errors import InventoryError, ToolError, UnknownProjectError, UsageError
from .hostsfile import HostsFile, HostsFileError, Peer
from .words import plain

FOLDER = Path("/etc/d1fleet/hosts")
"""A hosts file for each project of this host, named as it is; the role distcc_hosts writes them."""

DEFAULT_FILE = Path("/etc/distcc/hosts")
"""What distcc reads without us: the same as one of them, where the inventory says which."""

CCACHE_CONFIG = Path("/etc/ccache.conf")
CCACHE_MARK = "role d1.fleet.ccache"
"""Stands in it where the inventory asks for ccache: then builds have it in front."""

PROBE_S = 2.0
"""A peer that does not answer for so long is left out of a build. distcc itself waits 4 s, each time."""

SSH = Path("/usr/local/lib/d1fleet/distcc/ssh")
"""What distcc starts to reach peers over SSH; the role distcc_hosts puts it there where there are some."""

SSH_PROBE_S = 10.0
"""The same for a login: ssh itself gives up after 4 s without an answer (a guess for the rest of it)."""

SOCKETS = "D1FLEET_DISTCC_SOCKETS"
"""A folder for the connections that compilations share, for SSH above."""

IO_TIMEOUT_S = 300
"""distcc's own: the longest that a compiler may be silent. The server's job lifetime is twice that."""

PAUSE_MS = 50
"""Between looks for a free slot. distcc's own is a second, which the end of a build pays again and again."""

SLOTS = "{slots}"
"""In the words of a program, the number of compilations that may run at once."""


@dataclass(frozen=True)
class Project:
    """A project as this host sees it."""

    name: str
    file: Path
    hosts: HostsFile


def project_here(name: str | None, file: str | None = None, folder: Path = FOLDER) -> Project:
    """A project of this host.

    Args:
        name: None takes the only one, or the one that distcc itself uses.
        file: a hosts file to read in place of that in `folder`.

    Raises:
        UnknownProjectError: there is no such project, or several to choose from.
        InventoryError: there is none at all, or its file cannot be used.
    """
    if file is not None:
        path = Path(file)
        return Project(name or path.name, path, _read(path))
    try:
        known = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError:
        known = []
    if not known:
        raise InventoryError(
            f"this machine is in no project: there are no hosts files in {folder}",
            "type it on a host of the project, or enrol this one: ansible-playbook site.yml",
        )
    listed = ", ".join(known)
    chosen = name or (known[0] if len(known) == 1 else _default(known, folder))
    if chosen is None:
        raise UnknownProjectError(
            f"this machine is in several projects: {listed}", "choose one by --project or D1FLEET_PROJECT"
        )
    if chosen not in known:
        raise UnknownProjectError(f"this machine is not in project {chosen!r}", f"its projects: {listed}")
    return Project(chosen, folder / chosen, _read(folder / chosen))


def _default(known: Iterable[str], folder: Path) -> str | None:
    """The project whose hosts distcc itself uses."""
    try:
        text = DEFAULT_FILE.read_text()
        return next((name for name in known if (folder / name).read_text() == text), None)
    except OSError:
        return None


def _read(path: Path) -> HostsFile:
    try:
        return hostsfile.parse(path.read_text())
    except OSError as error:
        raise InventoryError(f"{path} cannot be read: {error.strerror}", "see `ls -l` of it") from error
    except (HostsFileError, UnicodeDecodeError) as error:
        raise InventoryError(
            f"{path} is no hosts file of d1fleet: {error}",
            "have it written again: ansible-playbook playbooks/refresh.yml",
        ) from error


def answering(peers: Sequence[Peer], environ: Mapping[str, str], limit_s: float = PROBE_S) -> dict[str, str]:
    """Ask all peers at once whether a server answers there: why not, by name, for those where none does.

    Args:
        environ: for ssh.
    """
    with ThreadPoolExecutor(len(peers) + 1, thread_name_prefix="probe") as pool:
        found = pool.map(lambda peer: _log_in(peer, environ) if peer.ssh else _connect(peer, limit_s), peers)
        return {peer.name: why for peer, why in zip(peers, found, strict=True) if why}


def _connect(peer: Peer, limit_s: float) -> str:
    try:
        with socket.create_connection((peer.address, peer.port), limit_s):
            return ""
    except TimeoutError:
        return f"no answer within {limit_s:g} s"
    except OSError as error:
        return error.strerror or str(error)


def _log_in(peer: Peer, environ: Mapping[str, str]) -> str:
    """Have its compile server say goodbye. The connection stays for the compilations."""
    argv = [str(SSH), peer.alias, hostsfile.SERVE, *hostsfile.SERVE_ARGUMENTS]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env=environ, timeout=SSH_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SSH_PROBE_S:g} s"
    except OSError as error:
        return f"{SSH} cannot be run: {error.strerror}"
    if done.returncode == 0:
        return ""
    said = (done.stdout + done.stderr).decode("utf-8", "replace").split("\n")
    return plain(next((line.strip() for line in reversed(said) if line.strip()), f"{SSH} gave no answer"))


def hang_up(peers: Iterable[Peer], environ: Mapping[str, str]) -> None:
    """End the connections that compilations have shared."""
    ends = [
        subprocess.Popen(
            [str(SSH), "-O", "exit", peer.alias],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environ,
        )
        for peer in peers
        if peer.ssh
    ]
    for end in ends:
        end.wait()


def environment(
    hosts: HostsFile, environ: Mapping[str, str], *, strict: bool, ccache: bool
) -> dict[str, str]:
    """The variables that make a build compile on a project's hosts, in place of those of `environ`.

    Args:
        strict: what no peer could compile fails, and this machine has no slots: else a host that fails would
            hide behind them.
        ccache: only what ccache does not know is compiled at all.

    Raises:
        ToolError: distcc, or ccache where it is wanted, is not there, or what leads to peers over SSH.
    """
    folders = CCACHE_MASQUERADES if ccache else MASQUERADES
    masquerade = next((folder for folder in folders if folder.is_dir()), None)
    if masquerade is None or not _is_there("distcc", environ):
        what = "ccache" if ccache and masquerade is None else "distcc"
        raise ToolError(
            f"{what} is not installed here: none of {', '.join(map(str, folders))} is there"
            if masquerade is None
            else "distcc is not in PATH",
            f"install it (Debian: apt-get install {what}), or enrol this machine",
        )
    ours = {str(folder) for folder in (*MASQUERADES, *CCACHE_MASQUERADES)}
    path = [each for each in environ.get("PATH", os.defpath).split(os.pathsep) if each not in ours]
    found = {
        "PATH": os.pathsep.join([str(masquerade), *path]),
        "DISTCC_HOSTS": hosts.words(here=not strict),
        "DISTCC_IO_TIMEOUT": str(IO_TIMEOUT_S),
        "DISTCC_PAUSE_TIME_MSEC": str(PAUSE_MS),
        "D1FLEET_SLOTS": str(slots(hosts, strict=strict)),
    }
    if any(peer.ssh for peer in hosts.peers):
        if not os.access(SSH, os.X_OK):
            raise ToolError(
                f"some hosts are reached over SSH, and {SSH} is not there",
                "enrol this machine: ansible-playbook site.yml",
            )
        found["DISTCC_SSH"] = str(SSH)
    if ccache:
        found["CCACHE_PREFIX"] = "distcc"
    if strict:
        # Its word for no: a compiler's own errors are not tried again here either, they are the same.
        found |= {"DISTCC_FALLBACK": "0", "DISTCC_SKIP_LOCAL_RETRY": "1"}
    return found


def ccache_asked_for(config: Path = CCACHE_CONFIG) -> bool:
    """Does the inventory want ccache in front of distcc on this host, and is it there?"""
    try:
        asked = CCACHE_MARK in config.read_text(errors="replace")
    except OSError:
        return False
    return asked and any(folder.is_dir() for folder in CCACHE_MASQUERADES)


def slots(hosts: HostsFile, *, strict: bool) -> int:
    """Compilations that may run at once."""
    return hosts.slots - (hosts.localslots if strict else 0)


def _is_there(program: str, environ: Mapping[str, str]) -> bool:
    return any(
        os.access(os.path.join(folder, program), os.X_OK)
        for folder in environ.get("PATH", os.defpath).split(os.pathsep)
    )


def with_slots(words: Sequence[str], slots: int) -> list[str]:
    """A program's words with the number of slots where they ask for it.

    Raises:
        UsageError: there is no program.
    """
    if not words:
        raise UsageError("no program is given", "d1fleet run -- make -j{slots}")
    return [word.replace(SLOTS, str(slots)) for word in words]


def exports(variables: Mapping[str, str]) -> str:
    """The same for a shell's `eval`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
