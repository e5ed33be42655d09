"""Debian source packages for tests, by apt's own tools, without touching the system's apt.

A private apt has its own lists, cache and one `deb-src` line. The mirror comes from the system's sources, so
that no host is named here; the system's archive keyring verifies what it sends: sources.list(5), apt.conf(5).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ARCHIVE_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Of the package debian-archive-keyring; without it apt falls back to its trusted.gpg.d."""

COMMAND_TIMEOUT_S = 300
"""For one apt or dpkg-source command; a guess: lists of one suite are about 10 MB."""

_LAST_LINES = 8


class SourceUnavailable(Exception):
    """A source package cannot be had here; the text says why, and serves as a test's reason to skip."""


def default_cache() -> Path:
    """The folder where tests keep what they fetch and build: `$XDG_CACHE_HOME/d1fleet-tests`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "d1fleet-tests"


def fetch_source(package: str, suite: str, dest: Path, cache: Path) -> Path:
    """Unpack a Debian source package, with Debian's patches applied, to `dest`; returns `dest`.

    Args:
        package: source package, `name` or `name=version`.
        suite: release to take it from (`trixie`), or "" for this system's own.
        dest: folder to make; it must not exist.
        cache: where lists and archives are kept; a second call for the same package needs no network.
    Raises:
        SourceUnavailable: no apt, no mirror, no network, no such package, a signature that does not verify.
        FileExistsError: `dest` is there already.
    """
    if dest.exists():
        raise FileExistsError(dest)
    suite = suite or system_release()
    downloads = cache.absolute() / "sources" / suite / package
    with file_lock(cache / "sources.lock"):
        if not (downloads / "complete").exists():
            _download(package, suite, downloads, cache.absolute() / "apt" / suite)
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=f".{dest.name}-") as scratch:
        unpacked = Path(scratch) / "tree"
        # apt compared the checksums with the signed index when it fetched the files.
        description = (downloads / "complete").read_text().strip()
        run(["dpkg-source", "--no-check", "--extract", description, str(unpacked)], cwd=downloads)
        unpacked.rename(dest)
    return dest


def system_release() -> str:
    """This system's Debian release by code name."""
    release = _os_release().get("VERSION_CODENAME", "")
    if not release:
        raise SourceUnavailable("this system's os-release has no VERSION_CODENAME")
    return release


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if need be); the kernel drops it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(argv: Sequence[str], *, cwd: Path, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """The stdout of a command run in C locale.

    Raises:
        SourceUnavailable: it is missing, failed or took too long; with the last lines of what it wrote.
    """
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "APT_CONFIG"):
        env.pop(name, None)
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout_s,
        )  # fmt: skip
    except FileNotFoundError as exc:
        raise SourceUnavailable(f"{argv[0]} is not installed (packages apt, dpkg-dev)") from exc
    except subprocess.TimeoutExpired as exc:
        raise SourceUnavailable(f"{argv[0]} took more than {timeout_s} s") from exc
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_LAST_LINES:])
        raise SourceUnavailable(f"{' '.join(argv[:3])} ... ended with {done.returncode}:\n{last}")
    return done.stdout


def _download(package: str, suite: str, downloads: Path, apt: Path) -> None:
    if downloads.exists():
        shutil.rmtree(downloads)
    downloads.mkdir(parents=True)
    config = _private_apt(apt, suite)
    # Without =any, a mirror that cannot be reached is a mere warning to apt.
    run(["apt-get", "-c", str(config), "-o", "APT::Update::Error-Mode=any", "-qq", "update"], cwd=downloads)
    run(["apt-get", "-c", str(config), "-qq", "--only-source", "--download-only", "source", package],
        cwd=downloads)  # fmt: skip
    descriptions = sorted(path.name for path in downloads.glob("*.dsc"))
    if len(descriptions) != 1:
        raise SourceUnavailable(f"apt-get source {package} brought {len(descriptions)} .dsc files")
    (downloads / "complete").write_text(descriptions[0] + "\n")


def _private_apt(root: Path, suite: str) -> Path:
    """An apt configuration whose state, cache and only source are under `root`; returns its file."""
    for folder in ("state/lists/partial", "cache/archives/partial", "empty"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    signed_by = f"[signed-by={ARCHIVE_KEYRING}] " if ARCHIVE_KEYRING.exists() else ""
    (root / "sources.list").write_text(f"deb-src {signed_by}{mirror_of(root)} {suite} main\n")
    config = root / "apt.conf"
    # Read by -c, so after the system's own files: their proxies stay, their sources, pins and hooks do not.
    # The sandbox user of a root's apt may not enter this folder.
    config.write_text(
        f'Dir::State "{root}/state";\n'
        f'Dir::Cache "{root}/cache";\n'
        f'Dir::Etc::sourcelist "{root}/sources.list";\n'
        f'Dir::Etc::sourceparts "{root}/empty";\n'
        f'Dir::Etc::preferences "{root}/no-preferences";\n'
        f'Dir::Etc::preferencesparts "{root}/empty";\n'
        'APT::Sandbox::User "root";\n'
        'Acquire::AllowInsecureRepositories "false";\n'
        'Acquire::Languages "none";\n'
        'Acquire::Retries "3";\n'
        "#clear APT::Update::Pre-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
    )
    return config


def mirror_of(cwd: Path) -> str:
    """The URI of the mirror that this system takes its own release from.

    Args:
        cwd: where apt-get runs.

    Raises:
        SourceUnavailable: it is no Debian, or its sources name none.
    """
    if _os_release().get("ID") != "debian":
        raise SourceUnavailable("this system is not Debian: its apt sources do not lead to Debian's archive")
    release = system_release()
    form = "$(RELEASE)\t$(CODENAME)\t$(COMPONENT)\t$(REPO_URI)"
    targets = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], cwd=cwd)
    for line in targets.splitlines():
        suite, codename, component, uri = line.split("\t")
        if release in (suite, codename) and component == "main":
            return uri
    raise SourceUnavailable(f"apt's sources name no mirror for {release} main")


def _os_release() -> dict[str, str]:
    text = Path("/etc/os-release").read_text()
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name: value.strip("\"'") for name, _, value in pairs}
