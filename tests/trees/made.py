"""Made-up trees: makefiles of several levels whose recipes only take time, and the plan that they follow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.trees.plan import Make, Step


@dataclass(frozen=True)
class Shape:
    """What a tree is like.

    Attributes:
        fan: how many makes a make calls, level by level from the top; there is one level of makes more than
            numbers.
        leaves: recipes of each make of the last level.
        flat: recipes of its own that every make above has beside what it calls.
        link: each make ends with a recipe that needs all before it.
        call: `folder` for $(MAKE) -C, `file` for $(MAKE) -f in one folder.
        flags: of each call, such as `-k`.
        joined: how the makes that a make calls are called, level by level: each by a `target` of its own, all
            by one recipe in the `background` (a & b & wait), or all by one in a `loop`.
        middle_s: half of the recipes take longer; sigma: of the logarithm, 0 for all alike.
        how: `burn` CPU time, or `sleep`.
        failing: recipes that fail.
    """

    fan: Sequence[int] = (2, 5, 4)
    leaves: int = 5
    flat: int = 1
    link: bool = False
    call: Literal["folder", "file"] = "folder"
    flags: str = ""
    joined: Sequence[Literal["target", "background", "loop"]] = ()
    middle_s: float = 0.05
    sigma: float = 0.6
    how: Literal["burn", "sleep"] = "burn"
    failing: frozenset[str] = frozenset()
    seed: int = 1

    @property
    def depth(self) -> int:
        """Levels of makes."""
        return len(self.fan) + 1


FOUR_LEVELS = Shape()
"""Four levels of makes, 200 recipes in those of the last one."""


def plan(shape: Shape) -> Make:
    """What a make of the tree does; names of recipes are unique, and are those of their files."""
    return _make(shape, "top", 0, random.Random(shape.seed))


def _make(shape: Shape, name: str, level: int, dice: random.Random) -> Make:
    def length_s() -> float:
        return round(shape.middle_s * dice.lognormvariate(0, shape.sigma), 4)

    plain = shape.leaves if level == len(shape.fan) else shape.flat
    steps = [Step(f"{name}-{number}", length_s()) for number in range(plain)]
    if level < len(shape.fan):
        below = tuple(_make(shape, f"{name}.{number}", level + 1, dice) for number in range(shape.fan[level]))
        joined = _joined(shape, level)
        if joined == "target":
            steps += [Step(each.name, 0.0, calls=((each,),)) for each in below]
        elif joined == "background":
            steps.append(Step(f"{name}-all", 0.0, calls=(below,)))
        else:
            steps.append(Step(f"{name}-all", 0.0, calls=tuple((each,) for each in below)))
    if shape.link:
        steps.append(Step(f"{name}-link", length_s(), frozenset(range(len(steps)))))
    return Make(name, tuple(steps))


def _joined(shape: Shape, level: int) -> str:
    return shape.joined[level] if level < len(shape.joined) else "target"


def write(shape: Shape, folder: Path, stamp: Path) -> Make:
    """Write the makefiles into `folder`, which is made; returns the plan.

    Args:
        stamp: the program of stamp.py; recipes stamp where $STAMP_LOG says.
    """
    made = plan(shape)
    folder.mkdir(parents=True)
    _write(shape, made, folder, stamp)
    return made


def _write(shape: Shape, make: Make, folder: Path, stamp: Path) -> None:
    lines = [f"all: {' '.join(step.name for step in make.steps)}"]
    phony = ["all"]
    for step in make.steps:
        needs = " ".join(make.steps[number].name for number in sorted(step.after))
        lines.append(f"{step.name}: {needs}".rstrip())
        if not step.calls:
            status = int(step.name in shape.failing)
            lines.append(f"\t@{stamp} work $@ $@ {step.own_s} {shape.how} {status}")
            continue
        phony.append(step.name)
        calls = [_call(shape, each) for group in step.calls for each in group]
        if len(step.calls) > 1:
            lines.append("\t@" + " && ".join(calls))
        elif len(calls) > 1:
            # `wait` alone would forget failures.
            waits = "; ".join(f"wait $$p{number} || s=1" for number in range(len(calls)))
            begun = " ".join(f"{call} & p{number}=$$!;" for number, call in enumerate(calls))
            lines.append(f"\t@{begun} s=0; {waits}; exit $$s")
        else:
            lines.append("\t@" + calls[0])
        for group in step.calls:
            for each in group:
                place = folder / each.name if shape.call == "folder" else folder
                place.mkdir(exist_ok=True)
                _write(shape, each, place, stamp)
    lines.append(f".PHONY: {' '.join(phony)}")
    name = "Makefile" if shape.call == "folder" or make.name == "top" else f"{make.name}.mk"
    (folder / name).write_text("\n".join(lines) + "\n")


def _call(shape: Shape, make: Make) -> str:
    where = f"-C {make.name}" if shape.call == "folder" else f"-f {make.name}.mk"
    return " ".join(word for word in ("$(MAKE)", shape.flags, where) if word)


def products(folder: Path) -> dict[str, str]:
    """What recipes wrote: path below the folder, and content."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("top*-*"))
        if path.is_file()
    }


def clean(folder: Path) -> None:
    """Remove what recipes wrote."""
    for name in products(folder):
        (folder / name).unlink()
