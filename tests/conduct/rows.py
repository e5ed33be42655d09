"""The table: rows as data, one YAML file a theme. What a row may say stands in rows/README.md."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "rows"

PROGRAM = "@MAKE@"
"""In a script: the program under test, and what comes before make's own arguments."""


class RowError(ValueError):
    """A row says something that the runner does not know."""


@dataclass(frozen=True)
class File:
    """One entry of a tree."""

    content: bytes = b""
    mode: int = 0o644
    link: bytes | None = None
    fifo: bool = False
    folder: bool = False


@dataclass(frozen=True)
class Strike:
    """Something done to the run from outside, once a recipe has written to a fifo of the tree."""

    fifo: bytes
    signal: str = ""
    """Name of a signal for the whole process group of the program."""
    keys: bytes = b""
    """Typed on the terminal."""


@dataclass(frozen=True)
class Row:
    """One invocation.

    Attributes:
        run: make's arguments; or
        script: shell text with PROGRAM in it.
        exit: what plain make itself has to end with; negative for a signal.
        shows: must stand in plain make's output, so that a row tests what it says.
        dispatch: sub-makes that a server has to run, at least.
        stays: sub-makes that must run here, exactly.
        unordered: streams whose lines are compared as a multiset.
        drop: lines that match are left out on both sides.
        ours: lines of d1fleet's own are left out of stderr.
        terminal: "" for none, "stdin", or "all" three standard streams.
        merged: stdout and stderr are one pipe.
    """

    name: str
    tree: Mapping[bytes, File]
    run: tuple[bytes, ...] | None = None
    script: bytes | None = None
    options: tuple[str, ...] = ()
    env: Mapping[bytes, bytes] = field(default_factory=dict)
    stdin: bytes | None = None
    terminal: str = ""
    merged: bool = False
    strike: Strike | None = None
    exit: int = 0
    shows: tuple[bytes, ...] = ()
    dispatch: int = 0
    stays: int = 0
    unordered: bool = False
    drop: bytes | None = None
    ours: bool = False
    xfail: str = ""
    """An entry of the list of known defects, with which the row is expected to fail."""


def text(value: Any) -> bytes:
    """Bytes of a value: a string (\\udcXX is the byte XX), or {repeat: STRING, times: N}."""
    if isinstance(value, dict):
        if set(value) != {"repeat", "times"}:
            raise RowError(f"neither text nor a repetition: {value}")
        return os.fsencode(value["repeat"]) * int(value["times"])
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"not text: {value!r}")
    return os.fsencode(str(value))


def _file(value: Any) -> File:
    if not isinstance(value, dict) or "repeat" in value:
        return File(text(value))
    known = {"content", "mode", "link", "fifo", "folder"}
    if set(value) - known:
        raise RowError(f"unknown words for a file: {set(value) - known}")
    return File(
        content=text(value.get("content", "")),
        mode=int(str(value.get("mode", "644")), 8),
        link=text(value["link"]) if "link" in value else None,
        fifo=bool(value.get("fifo", False)),
        folder=bool(value.get("folder", False)),
    )


def _strike(value: Mapping[str, Any]) -> Strike:
    return Strike(text(value["fifo"]), str(value.get("signal", "")), text(value.get("keys", "")))


def _variables(value: Mapping[str, Any]) -> dict[bytes, bytes]:
    variables = {}
    for name, each in value.items():
        match = re.fullmatch(r"(\w+)\[(\d+)\]", name)
        if match:
            variables.update({f"{match[1]}{n}".encode(): text(each) for n in range(int(match[2]))})
        else:
            variables[os.fsencode(name)] = text(each)
    return variables


_KNOWN = frozenset(Row.__dataclass_fields__) | {"files", "tree"}


def make_row(data: Mapping[str, Any], trees: Mapping[str, Mapping[str, Any]]) -> Row:
    """A row from its YAML: `tree` names shared files, `files` come on top.

    Raises:
        RowError: it says something unknown, or too little.
    """
    name = data.get("name", "")
    try:
        if not re.fullmatch(r"[a-z0-9-]+", name):
            raise RowError("a name has small letters, digits and dashes")
        if set(data) - _KNOWN:
            raise RowError(f"unknown words: {sorted(set(data) - _KNOWN)}")
        if ("run" in data) == ("script" in data):
            raise RowError("either run or script")
        if "script" in data and PROGRAM not in data["script"]:
            raise RowError(f"a script names {PROGRAM}")
        if "dispatch" not in data and "stays" not in data:
            raise RowError("says neither what a server runs nor what stays")
        if data.get("terminal", "") not in ("", "stdin", "all"):
            raise RowError("terminal is stdin or all")
        files = {**trees[data["tree"]], **data.get("files", {})} if "tree" in data else data["files"]
        return Row(
            name=name,
            tree={text(path): _file(each) for path, each in files.items() if each is not None},
            run=tuple(text(word) for word in data["run"]) if "run" in data else None,
            script=text(data["script"]) if "script" in data else None,
            options=tuple(data.get("options", ())),
            env=_variables(data.get("env", {})),
            stdin=text(data["stdin"]) if "stdin" in data else None,
            terminal=data.get("terminal", ""),
            merged=bool(data.get("merged", False)),
            strike=_strike(data["strike"]) if "strike" in data else None,
            exit=int(data.get("exit", 0)),
            shows=tuple(text(each) for each in data.get("shows", ())),
            dispatch=int(data.get("dispatch", 0)),
            stays=int(data.get("stays", 0)),
            unordered=bool(data.get("unordered", False)),
            drop=text(data["drop"]) if "drop" in data else None,
            ours=bool(data.get("ours", False)),
            xfail=data.get("xfail", ""),
        )
    except (RowError, KeyError, TypeError) as error:
        raise RowError(f"row {name or data!r}: {error}") from error


def load(folder: Path = FOLDER) -> list[Row]:
    """All rows, in the order of their files.

    Raises:
        RowError: a row is malformed, or two have one name.
    """
    rows: list[Row] = []
    for path in sorted(folder.glob("*.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows += [make_row(each, data.get("trees", {})) for each in data["rows"]]
    names = [row.name for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise RowError(f"two rows have one name: {sorted(twice)}")
    return rows
