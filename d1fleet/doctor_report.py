"""What a doctor has found, for people and for programs. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from .doctor import Examined
from .doctor_case import Seen
from .doctor_facts import Canary
from .findings import NOTE, Commands, Shown, shown
from .server.toolchain import fingerprint
from .words import counted, plain

_WIDEST = 24
_UNKNOWN = "-"
_HEADS = ("host", "login", "user", "clock", "tree", "make", "toolchain", "slots", "distcc")
_LATE_S = 0.5


def text(examined: Examined, commands: Commands) -> Iterator[str]:
    """Lines for people: a table and findings, or three lines where all is well."""
    case = examined.case
    name = f"project {case.project}, " if case.project else ""
    size = f"{name}{counted(len(case.hosts), 'host')}, {examined.took_s:.1f} s"
    found = _shown(examined, commands)
    serious = [each for each in found if each.severity != NOTE]
    if serious:
        yield size
        yield from (f"  {line}".rstrip() for line in _table([_HEADS, *map(_row, case.hosts)]))
    else:
        yield f"all well: {size}"
    for each in found:
        # All names, however many: a command beside them that names as many must not seem to go too far.
        where = f"{', '.join(map(plain, each.hosts))}: " if each.hosts else ""
        yield f"{each.severity}  {where}{plain(each.what)}"
        yield from (f"  mend: {line}" for line in _mend(each))
    yield f"checked: {', '.join(examined.checked)}"
    for what, why in examined.not_checked.items():
        yield plain(f"not checked: {what}: {why}")


def _shown(examined: Examined, commands: Commands) -> list[Shown]:
    case = examined.case
    members = [seen.name for seen in case.hosts] if case.project else []
    return shown(examined.findings, replace(commands, project=case.project, members=members))


def _mend(each: Shown) -> list[str]:
    """Words, and the command as it is: one that is cut off does something else."""
    words = plain(each.mend)
    if words and each.command:
        return [f"{words}:", f"  {each.command}"]
    return [line for line in (words, each.command) if line]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    cells = [[plain(cell)[:_WIDEST] for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADS))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))


def _row(seen: Seen) -> tuple[str, ...]:
    facts = seen.facts
    identity = facts.identity if facts else None
    found = facts.toolchain if facts else None
    slots = facts.slots if facts else None
    return (
        seen.name,
        seen.transport or "no",
        f"{identity.user} {identity.uid}" if identity else _UNKNOWN,
        f"{round(seen.clock.offset_s, 2) + 0.0:+.2f} s" if seen.clock else _UNKNOWN,
        _trees(seen),
        facts.versions.make.removeprefix("GNU Make ") or "none" if facts and facts.versions else _UNKNOWN,
        fingerprint(found.parts)[:8] or "none" if found else _UNKNOWN,
        f"{seen.host.slots or (identity.cpus if identity else '?')} {'shared' if slots.shared else 'own'}"
        if slots
        else _UNKNOWN,
        _compilations(seen),
    )


def _trees(seen: Seen) -> str:
    trees = [tree for tree in (seen.facts.trees if seen.facts else ()) if tree is not None]
    if not trees:
        return _UNKNOWN
    if any(tree.difference for tree in trees):
        return "another"
    times = [each for fresh in seen.fresh.values() for each in (fresh.made_s, fresh.grown_s)]
    return "late" if any(each is None or each > _LATE_S for each in times) else "same"


def _compilations(seen: Seen) -> str:
    """On how many peers it can compile, of those that were tried."""
    tried = [each for each in seen.canaries.values() if isinstance(each, Canary)]
    good = [
        each for each in tried if not each.connect and each.tries and not any(t.status for t in each.tries)
    ]
    return f"{len(good)} of {len(seen.canaries)}" if seen.canaries else _UNKNOWN


def as_json(examined: Examined, commands: Commands) -> str:
    """One object."""
    case = examined.case
    return json.dumps(
        {
            "project": case.project,
            "trees": list(case.here.trees),
            "seconds": round(examined.took_s, 2),
            "hosts": [_host(seen) for seen in case.hosts],
            "findings": [each.as_json() for each in _shown(examined, commands)],
            "checked": examined.checked,
            "not_checked": examined.not_checked,
        },
        indent=1,
    )


def _host(seen: Seen) -> dict[str, Any]:
    row = dict(zip(_HEADS, map(plain, _row(seen)), strict=True))
    return {name: None if cell == _UNKNOWN else cell for name, cell in row.items()}
