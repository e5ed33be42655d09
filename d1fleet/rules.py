"""Rules of this toolkit, not of make, by which a sub-make stays where it was asked for. Pure."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
from collections.abc import Callable, Sequence

from . import makeflags

LOCAL_GOALS = (
    "install",
    "install-*",
    "uninstall",
    "uninstall-*",
    "menuconfig",
    "nconfig",
    "xconfig",
    "gconfig",
    "flash",
    "upload",
    "deploy",
    "publish",
    "release",
)
"""Goals that touch this machine, ask a person, or must happen once and here."""


def stays_here(arguments: Sequence[bytes], goals: Sequence[str] = LOCAL_GOALS) -> str | None:
    """Why this sub-make stays here, or None: one of its goals matches one of the patterns."""
    matches = _matcher(tuple(goals))
    for goal in makeflags.argv_goals(arguments):
        name = os.fsdecode(goal)
        if matches(name):
            return f"the goal {name} runs here by rule"
    return None


@functools.lru_cache(maxsize=4)  # one list of patterns serves a whole build
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], object]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)").match
