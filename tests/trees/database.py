"""Which targets wait for which, from the databases that `make -p` prints. Pure.

A recipe's own `$^` names targets without a recipe, too (`maybe-all-bfd`), and not what those wait for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Rules = Mapping[str, Mapping[str, tuple[str, ...]]]
"""By folder and target: prerequisites, order-only ones too. What several makes of a folder say is joined."""

_FOLDER = re.compile(r"CURDIR := (.*)")
_RULE = re.compile(r"([^#\s][^:=]*?)::?(?: (.*))?")
_ASSIGNMENT = re.compile(r"\S+ (::?:?|[?+!])?= ?.*")


def read_rules(lines: Iterable[str]) -> Rules:
    """Of all the databases in the output of a `make -p`, each of a make of its own."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    folder, in_files, is_target = "", False, True
    for line in lines:
        line = line.rstrip("\n")
        named = _FOLDER.fullmatch(line)
        if named:
            folder = named[1]
        elif line == "# Files":
            in_files = True
        elif line.startswith("# files hash-table stats"):
            in_files = False
        elif in_files and line == "# Not a target:":
            is_target = False
        elif in_files and (rule := _RULE.fullmatch(line)) and not _ASSIGNMENT.match(rule[2] or ""):
            if is_target:
                known = found.setdefault(folder, {})
                needs = (each for each in (rule[2] or "").split() if each != "|")
                known[rule[1]] = tuple(dict.fromkeys((*known.get(rule[1], ()), *needs)))
            is_target = True
    return found
