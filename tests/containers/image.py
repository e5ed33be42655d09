"""Images of test hosts: made once, kept as tars in the cache, imported into podman when asked for."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

from tests.containers.errors import ContainerError, ImageUnavailable
from tests.containers.podman import podman
from tests.containers.recipe import Recipe, recipe
from tests.support import debsource

IMAGE_REPOSITORY = "localhost/d1fleet-tests"

BUILD_TIMEOUT_S = 1200.0
"""For mmdebstrap; a guess: one to two minutes with a near mirror."""

MAX_AGE_S = 30 * 24 * 3600.0
"""Until an image is made again: its package lists name files that point releases take off the mirrors."""


def ensure_image(release: str, variant: str) -> str:
    """The name of an image in podman's store; made and imported if need be, once however many ask.

    Raises:
        ImageUnavailable: it is not here and cannot be made.
    """
    try:
        # The one place that knows which mirror this machine uses.
        mirror = debsource._mirror(_cache())
    except debsource.SourceUnavailable as exc:
        raise ImageUnavailable(f"no image of Debian {release}: {exc}") from exc
    wanted = recipe(release, variant, mirror)
    with debsource.file_lock(_cache() / f"{release}-{variant}.lock"):
        return _imported(wanted, _tar(wanted))


def _cache() -> Path:
    path = debsource.default_cache() / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _tar(wanted: Recipe) -> Path:
    """The image's file, made if it is missing or too old."""
    path = _cache() / f"{wanted.name}.tar"
    if path.exists() and time.time() - path.stat().st_mtime < MAX_AGE_S:
        return path
    _forget_old_tars()
    part = path.with_suffix(".part")
    try:
        # Its files belong to root and must not be anybody's to change.
        subprocess.run(
            wanted.argv(str(part)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
            timeout=BUILD_TIMEOUT_S, cwd="/",
        )  # fmt: skip
        part.rename(path)
    except (subprocess.SubprocessError, OSError) as exc:
        if path.exists():  # better old than none
            return path
        said = (getattr(exc, "stderr", None) or str(exc)).strip().splitlines()[-8:]
        raise ImageUnavailable(f"mmdebstrap made no {wanted.name}:\n" + "\n".join(said)) from exc
    finally:
        part.unlink(missing_ok=True)
    return path


def _forget_old_tars() -> None:
    """Remove what another recipe made long ago."""
    for old in _cache().glob("*.tar"):
        if time.time() - old.stat().st_mtime > 2 * MAX_AGE_S:
            old.unlink(missing_ok=True)


def _imported(wanted: Recipe, tar: Path) -> str:
    """The name under which podman has exactly this tar."""
    group = f"{IMAGE_REPOSITORY}:{wanted.release}-{wanted.variant}-"
    image = f"{IMAGE_REPOSITORY}:{wanted.name}-{int(tar.stat().st_mtime):x}"
    if podman("image", "exists", image, check=False).status == 0:
        return image
    podman("import", "--quiet", "--change", 'CMD ["/sbin/init"]', str(tar), image, timeout_s=300)
    for other in podman("image", "list", "--format", "{{.Repository}}:{{.Tag}}").stdout.split():
        if other.startswith(group) and other != image:
            with contextlib.suppress(ContainerError):  # a host that runs still needs it
                podman("image", "rm", other)
    return image
