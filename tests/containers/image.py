"""Images of test hosts: made once, kept as tars in the cache, imported into podman when asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from tests.containers.errors import ContainerError, ImageUnavailable
from tests.containers.launcher import Command, Done, launch_here
from tests.containers.mirror import system_mirror
from tests.containers.podman import podman
from tests.containers.recipe import Recipe, recipe
from tests.support import debsource

IMAGE_REPOSITORY = "localhost/d1fleet-tests"

BUILD_TIMEOUT_S = 1200.0
"""For mmdebstrap; a guess: one to two minutes with a near mirror."""

MAX_AGE_S = 30 * 24 * 3600.0
"""Until an image is made again: its package lists name files that point releases take off the mirrors."""


_SCRATCH = "work-"
_LAST_LINES = 8


def ensure_image(release: str, variant: str) -> str:
    """The name of an image in podman's store; made and imported if need be, once however many ask.

    Raises:
        ImageUnavailable: it is not here and cannot be made.
    """
    wanted = recipe(release, variant, system_mirror())
    tar = image_tar(wanted)
    with debsource.file_lock(_cache() / "podman.lock"):
        return _imported(wanted, tar)


def image_tar(wanted: Recipe) -> Path:
    """The file of an image in the cache, made if it is missing or too old, once however many ask.

    Raises:
        ImageUnavailable: it is not here and cannot be made.
    """
    with debsource.file_lock(_cache() / f"{wanted.release}-{wanted.variant}.lock"):
        return _tar(wanted)


def _cache() -> Path:
    path = debsource.default_cache() / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _tar(wanted: Recipe) -> Path:
    path = _cache() / f"{wanted.name}.tar"
    if path.exists() and time.time() - path.stat().st_mtime < MAX_AGE_S:
        return path
    _forget_old()
    # Of its own: a mmdebstrap whose parent was killed may still be at work in another.
    with tempfile.TemporaryDirectory(dir=_cache(), prefix=_SCRATCH, ignore_cleanup_errors=True) as scratch:
        part = Path(scratch) / "image.tar"
        Path(scratch).chmod(0o755)  # mmdebstrap insists on it
        env = {**os.environ, "TMPDIR": scratch, "LC_ALL": "C"}
        command = Command(wanted.argv(str(part)), env, "", BUILD_TIMEOUT_S, patience_s=0.0)
        try:
            done = launch_here(command)
        except ContainerError as exc:
            done = Done(1, "", str(exc))
        if done.status == 0:
            part.rename(path)
        elif not path.exists():  # better an old one than none
            said = "\n".join(done.stderr.strip().splitlines()[-_LAST_LINES:])
            raise ImageUnavailable(f"mmdebstrap made no {wanted.name} (status {done.status}):\n{said}")
    return path


def _forget_old() -> None:
    """Remove what other recipes made long ago, and what nobody finished."""
    now = time.time()
    for old in _cache().glob("*.tar"):
        if now - old.stat().st_mtime > 2 * MAX_AGE_S:
            old.unlink(missing_ok=True)
    for unfinished in _cache().glob(f"{_SCRATCH}*"):
        if now - unfinished.stat().st_mtime > 2 * BUILD_TIMEOUT_S:
            shutil.rmtree(unfinished, ignore_errors=True)


def _imported(wanted: Recipe, tar: Path) -> str:
    """The name under which podman has exactly this tar."""
    image = f"{IMAGE_REPOSITORY}:{wanted.name}-{int(tar.stat().st_mtime):x}"
    if podman("image", "exists", image, check=False).status == 0:
        return image
    podman("import", "--quiet", "--change", 'CMD ["/sbin/init"]', str(tar), image, timeout_s=300)
    for other in podman("image", "list", "--format", "{{.Repository}}:{{.Tag}}").stdout.split():
        # Another checkout may be about to use what is younger.
        if other.startswith(f"{IMAGE_REPOSITORY}:") and _made_s(other) < time.time() - MAX_AGE_S:
            with contextlib.suppress(ContainerError):  # a host that runs still needs it
                podman("image", "rm", other)
    return image


def _made_s(image: str) -> float:
    """When the tar of an image of ours was made."""
    return float(int(image.rpartition("-")[2], 16))
