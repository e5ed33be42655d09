"""The plan of any package, from a serial plain make whose recipes were traced. Pure.

What is assumed:

* The build was one make without -j on one host, so that a recipe's time is its own; makes that a recipe
  starts in the background did run side by side, and count as such.
* A sub-make is what runs recipes below a recipe; one that ran none is part of the recipe that called it, and
  so is the time that makes take to read their makefiles. What $(shell) runs is part of that.
* A target waits for those of its prerequisites that have recipes of their own in the same make, and for those
  that it reaches by way of targets without a recipe, as far as these are known. What is not known makes the
  bound on speed-up too high, never too low.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace

from tests.trees.database import Rules
from tests.trees.plan import Make, Step, order
from tests.trees.trace import Ran

MakeKey = tuple[str, str, int]
"""A make by the recipe that called it, its host, and its pid there."""


def plan_of(
    trace: Sequence[Ran], rules: Rules | None = None, name: Callable[[Ran], str] = lambda ran: ran.target
) -> Make:
    """What a traced build did.

    Args:
        rules: what targets without a recipe wait for.
        name: of a step, from its first line.

    Raises:
        ValueError: not every recipe has ended, or there was no make, or more than one.
    """
    if any(ran.end_s is None for ran in trace):
        raise ValueError("there are recipes without an end")
    by_make: dict[MakeKey, list[Ran]] = defaultdict(list)
    for ran in sorted(trace, key=lambda each: each.start_s):
        by_make[ran.make].append(ran)
    below: dict[str, list[MakeKey]] = defaultdict(list)
    for key in by_make:
        below[key[0]].append(key)
    if len(below[""]) != 1:
        raise ValueError(f"{len(below[''])} top makes, not one")
    return _make(below[""][0], by_make, below, name, rules or {})


def plain_recipes(
    trace: Sequence[Ran], rules: Rules | None = None
) -> tuple[list[Ran], dict[str, frozenset[str]]]:
    """The recipes of a traced build that called no make, for `utilisation`: one for all lines of a target.

    The build may have been parallel, and on many hosts. Their targets are keys, unique; the second value says
    what each of them waits for.

    Raises:
        ValueError: as `plan_of`.
    """
    before = order(plan_of(trace, rules, lambda ran: ran.key))
    first: dict[tuple[MakeKey, str], Ran] = {}
    for ran in sorted(trace, key=lambda each: each.start_s):
        key = (ran.make, ran.target)
        first[key] = replace(first.get(key, replace(ran, target=ran.key)), end_s=ran.end_s)
    return [ran for ran in first.values() if ran.target in before], before


def _make(
    key: MakeKey,
    by_make: dict[MakeKey, list[Ran]],
    below: dict[str, list[MakeKey]],
    name: Callable[[Ran], str],
    rules: Rules,
) -> Make:
    lines: dict[str, list[Ran]] = defaultdict(list)
    for ran in by_make[key]:
        lines[ran.target].append(ran)
    numbers = {target: number for number, target in enumerate(lines)}
    steps = []
    for target, rans in lines.items():
        calls: list[tuple[Make, ...]] = []
        own_s = 0.0
        for ran in rans:
            groups = _groups(below.get(ran.key, []), by_make, below)
            calls += [tuple(_make(each, by_make, below, name, rules) for each in keys) for keys, _ in groups]
            own_s += max(0.0, ran.length_s - sum(length_s for _, length_s in groups))
        known = rules.get(rans[0].folder, {})
        needs = {need for ran in rans for need in (*ran.needs, *known.get(target, ()))}
        after = {numbers[need] for need in _with_recipes(needs, known, numbers.keys())}
        earlier = frozenset(number for number in after if number < numbers[target])
        steps.append(Step(name(rans[0]), own_s, earlier, tuple(calls)))
    return Make(by_make[key][0].folder, tuple(steps))


def _with_recipes(
    needs: Iterable[str], known: Mapping[str, tuple[str, ...]], recipes: Container[str]
) -> set[str]:
    """The next targets that have recipes, on all ways from `needs` on."""
    seen: set[str] = set()
    waiting = list(needs)
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += () if each in recipes else known.get(each, ())
    return {each for each in seen if each in recipes}


def _groups(
    keys: Sequence[MakeKey], by_make: dict[MakeKey, list[Ran]], below: dict[str, list[MakeKey]]
) -> list[tuple[list[MakeKey], float]]:
    """Makes of one recipe, those that ran side by side together, and how long each such group took."""
    spans = sorted(
        (min(ran.start_s for ran in by_make[key]), max(ran.end_s or 0.0 for ran in by_make[key]), key)
        for key in keys
    )
    groups: list[tuple[list[MakeKey], float, float]] = []
    for start, end, key in spans:
        if groups and start < groups[-1][2]:
            members, first, last = groups[-1]
            groups[-1] = ([*members, key], first, max(last, end))
        else:
            groups.append(([key], start, end))
    return [(members, last - first) for members, first, last in groups]
