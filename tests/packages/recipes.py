"""Real packages from Debian's sources whose makefiles recurse, and how each is configured."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.debsource import SourceUnavailable, default_cache, fetch_source, run


@dataclass(frozen=True)
class Recipe:
    """How to get from a source package to a tree in which `make` is all that is left.

    Attributes:
        builds: make's arguments of each build, in order; "@NAME" stands for the words of that variable.
        needs: Debian packages beyond a C compiler.
        stays: goals that our default rules keep on the coordinator's machine.
        generated: files that must not look older than what they were made from.
        says_where: files that hold the name of the machine that made them.
    """

    package: str
    configure: Sequence[str]
    builds: Sequence[Sequence[str]] = ((),)
    needs: Sequence[str] = ()
    stays: Sequence[str] = ()
    generated: Sequence[str] = ("aclocal.m4", "configure")
    environment: Mapping[str, str] = field(default_factory=dict)
    says_where: Sequence[str] = ()


E2FSPROGS = Recipe(
    "e2fsprogs",
    configure=(
        "--enable-elf-shlibs", "--disable-nls", "--disable-fuse2fs", "--without-udev-rules-dir",
        "--without-crond-dir", "--without-systemd-unit-dir",
    ),
    # Used where this machine happens to have it: then hosts would need it too.
    environment={"ac_cv_header_magic_h": "no"},
    # Its makefiles run config.status.
    says_where=("config.log",),
)  # fmt: skip

XFSPROGS = Recipe(
    "xfsprogs",
    configure=("--enable-gettext=no", "--enable-editline=no", "--enable-scrub=no"),
    # What its goal `default` does, one level higher: folders are then first-level sub-makes, side by side.
    builds=(("headers",), ("@SUBDIRS",)),
    needs=("libblkid-dev", "libinih-dev", "liburcu-dev", "pkg-config", "uuid-dev"),
    stays=("install-headers",),
    # Otherwise it writes the absolute path of a make into its makefiles, which nothing can stand in for.
    environment={"MAKE": "make"},
)


def configured(recipe: Recipe, folder: Path) -> Path:
    """Fetch, unpack and configure a package in `folder`, which must not exist; returns `folder`.

    Raises:
        SourceUnavailable: it cannot be had or not be configured here; the text says why.
    """
    install(recipe.needs)
    fetch_source(recipe.package, "", folder, default_cache())
    for name in recipe.generated:
        os.utime(folder / name)
    settings = [f"{name}={value}" for name, value in recipe.environment.items()]
    run(["env", *settings, "./configure", *recipe.configure], cwd=folder, timeout_s=600)
    return folder


def make_arguments(recipe: Recipe, tree: Path) -> list[list[str]]:
    """The arguments of each build, variables filled in."""
    return [[word for argument in build for word in _words(argument, tree)] for build in recipe.builds]


def _words(argument: str, tree: Path) -> list[str]:
    if not argument.startswith("@"):
        return [argument]
    ask = f"d1fleet-ask: ; @echo $({argument[1:]})"
    return run(["make", "-s", f"--eval={ask}", "d1fleet-ask"], cwd=tree).split()


def install(needs: Sequence[str]) -> None:
    """Install these Debian packages where tests may.

    Raises:
        SourceUnavailable: tests may not, or it failed; it names what is missing.
    """
    missing = [name for name in needs if not _is_installed(name)]
    if not missing:
        return
    if os.environ.get("D1FLEET_TEST_INSTALL") != "1" or os.geteuid() != 0:
        raise SourceUnavailable(f"missing here: {' '.join(missing)} (apt-get install, or make test as root)")
    wait = ("-o", "DPkg::Lock::Timeout=300")
    run(["apt-get", "-q", *wait, "update"], cwd=Path("/"))
    run(
        ["apt-get", "-q", *wait, "install", "-y", "--no-install-recommends", *missing],
        cwd=Path("/"),
        timeout_s=900,
    )


def _is_installed(package: str) -> bool:
    ask = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=False).stdout == "installed"
    except FileNotFoundError:
        return False
