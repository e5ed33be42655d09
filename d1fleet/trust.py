"""Settings files that the user has said may be followed.

A `d1fleet.yml` comes with a tree, like the makefiles; unlike them it works before anybody has typed `make`
knowing what it does: it can name an inventory that is a program, or text for a shell. So it counts only after
the user has said so, for this path and this content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from .errors import RuntimeFolderError, TrustError, UsageError
from .runtime import state_folder

FILE = "d1fleet.yml"


def require_trust(path: Path, content: bytes) -> None:
    """Go on only if the user trusts this content at this place.

    Raises:
        TrustError: never asked, or the file has changed since.
    """
    known = _trusted().get(os.path.realpath(path))
    if known == hashlib.sha256(content).hexdigest():
        return
    what = "has changed since you trusted it" if known else "came with this tree, and you have not trusted it"
    raise TrustError(f"{path} {what}", f"read it, then say: d1fleet trust {path.parent}")


def trust(path: Path | str) -> Path:
    """Trust a settings file, or that of a folder, as it is now; returns the file.

    Raises:
        UsageError: there is none.
        RuntimeFolderError: the record cannot be kept.
    """
    file = Path(os.path.realpath(path))
    if file.is_dir():
        file = file / FILE
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read: {error.strerror}", f"name a {FILE}, or its folder"
        ) from error
    record = _record(make=True)
    known = {**_trusted(), os.path.realpath(file): digest}
    try:
        number, name = tempfile.mkstemp(prefix=".trusted-", dir=record.parent)  # 0600
        try:
            with open(number, "w", encoding="utf-8") as new:
                json.dump(known, new, indent=1)
            os.replace(name, record)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise RuntimeFolderError(
            f"{record} cannot be written: {error.strerror}", "set XDG_STATE_HOME"
        ) from error
    return file


def _record(make: bool) -> Path:
    return state_folder(make=make) / "trusted.json"


def _trusted() -> dict[str, str]:
    # A record that cannot be read trusts nothing; to trust something makes it anew.
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(_record(make=False).read_text("utf-8"))
        if isinstance(known, dict):
            return {path: digest for path, digest in known.items() if isinstance(digest, str)}
    return {}
