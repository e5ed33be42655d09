"""Traces: reading, counting, utilisation, the plan behind them, and what may not be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.trees.invariants import credits_of, debt_s, violations
from tests.trees.plan import Make, Step
from tests.trees.trace import Ran, at_once, makespan_s, most_at_once, parse, utilisation
from tests.trees.traced import plain_recipes, plan_of


def ran(
    target: str,
    start_s: float,
    end_s: float | None,
    host: str = "h",
    make: int = 1,
    parent: str = "",
    needs: str = "",
) -> Ran:
    return Ran(
        target, parent, host, 1, make, 0, "/tree", target, "", tuple(needs.split()), start_s, end_s, 0, 0.0
    )


def test_lines_become_recipes() -> None:
    lines = [
        "+\th:7:5000000000\t-\th\t7\t6\t1\t5000000000\t/a tree\tx\tcc -c x.c\tx.c y.h |",
        "+\th:9:6000000000\th:7:5000000000\th\t9\t8\t2\t6000000000\t/a tree\ty\tcc\t",
        "-\th:7:5000000000\t7500000000\t2\t250000000",
    ]
    first, second = parse(lines)
    assert (first.target, first.folder, first.needs, first.level) == ("x", "/a tree", ("x.c", "y.h", "|"), 1)
    assert (first.length_s, first.status, first.cpu_s) == (2.5, 2, 0.25)
    assert (second.parent, second.end_s, second.length_s) == (first.key, None, 0.0)


@pytest.mark.parametrize("lines", [["-\ta\t1\t0\t0"], ["x"], ["+\ta\t-\th\t1\t1\t0\t1\t/\tt\tc\t"] * 2])
def test_lines_that_make_no_sense(lines: list[str]) -> None:
    with pytest.raises(ValueError):
        parse(lines)


def test_recipes_at_once() -> None:
    trace = [ran("a", 0, 2), ran("b", 1, 3, "g"), ran("c", 2, 4), ran("killed", 2.5, None)]
    assert at_once(trace) == [(0, 1), (1, 2), (2, 2), (3, 1), (4, 0)]
    assert most_at_once(trace) == 2
    assert most_at_once(trace, lambda each: each.host == "g") == 1
    assert makespan_s(trace) == 4


def test_utilisation_counts_only_while_enough_is_ready() -> None:
    """Two slots: b runs beside a, c could have and did not; d has to wait for all, alone."""
    trace = [ran("a", 0, 4), ran("b", 0, 1), ran("c", 3, 4), ran("d", 4, 6)]
    before = {"a": frozenset[str](), "b": frozenset[str](), "c": frozenset[str](), "d": frozenset("abc")}
    found = utilisation(trace, before, 1, 2)
    assert found.contended_s == 4
    assert found.busy_share == pytest.approx((2 + 1 + 1 + 2) / 8)
    assert found.over_all_share == pytest.approx(8 / 12)
    assert utilisation(trace, before, 1, 2, from_s=3.5).contended_s == 0.5
    with pytest.raises(ValueError):
        utilisation([*trace, ran("z", 0, 1)], before, 1, 2)


def test_the_plan_of_a_trace() -> None:
    trace = [
        ran("lib", 0, 1, make=1),
        ran("sub", 1, 6, make=1),  # calls one make, then two side by side
        ran("o1", 1.5, 2, make=2, parent="sub"),
        ran("o2", 2, 3, make=2, parent="sub", needs="o1 elsewhere.c"),
        ran("p", 3.5, 5, make=3, parent="sub"),
        ran("q", 4, 5.5, make=4, parent="sub"),
        ran("prog", 6, 7, make=1, needs="sub lib"),
    ]
    make = plan_of(trace)
    inner = Make("/tree", (Step("o1", 0.5), Step("o2", 1.0, frozenset([0]))))
    p, q = Make("/tree", (Step("p", 1.5),)), Make("/tree", (Step("q", 1.5),))
    assert make == Make(
        "/tree",
        (
            Step("lib", 1.0),
            Step("sub", 1.5, calls=((inner,), (p, q))),
            Step("prog", 1.0, frozenset([0, 1])),
        ),
    )


def test_plain_recipes_of_a_parallel_build() -> None:
    """Two makes on two hosts; what follows the step that called one of them waits for that one's recipes."""
    trace = [
        ran("sub", 0, 5, make=1),
        ran("o1", 1, 2, "g", make=2, parent="sub"),
        replace(ran("o1", 2, 3, "g", make=2, parent="sub"), key="second line"),
        ran("other", 0, 6, make=1),
        ran("prog", 6, 7, make=1, needs="sub other"),
    ]
    recipes, before = plain_recipes(trace)
    assert [(each.target, each.start_s, each.end_s) for each in recipes] == [
        ("other", 0, 6),
        ("o1", 1, 3),
        ("prog", 6, 7),
    ]
    assert before == {"o1": frozenset(), "other": frozenset(), "prog": {"o1", "other"}}
    assert utilisation(recipes, before, 2, 1).contended_s == 3


def test_recipes_of_one_make_fill_one_host_at_most() -> None:
    trace = [ran(name, number, number + 1) for number, name in enumerate("abcd")]
    before = {name: frozenset[str]() for name in "abcd"}
    assert utilisation(trace, before, 1, 2).contended_s == 3
    assert utilisation(trace, before, 2, 1).contended_s == 0
    others = [replace(each, parent_pid=number % 2) for number, each in enumerate(trace)]
    assert utilisation(others, before, 2, 1).contended_s == 3


def test_what_is_waited_for_by_way_of_targets_without_recipes() -> None:
    trace = [ran("bfd", 0, 2), ran("zlib", 2, 3), ran("gas", 3, 4, needs="maybe-bfd")]
    rules = {"/tree": {"gas": ("maybe-zlib",), "maybe-bfd": ("also",), "also": ("bfd", "maybe-bfd")}}
    assert [step.after for step in plan_of(trace).steps] == [frozenset()] * 3
    assert plan_of(trace, rules).steps[2].after == {0}
    rules["/tree"]["maybe-zlib"] = ("zlib",)
    assert plan_of(trace, rules).steps[2].after == {0, 1}


def test_lines_of_one_target_are_one_step() -> None:
    make = plan_of([ran("a", 0, 1), Ran("a2", "", "h", 1, 1, 0, "/tree", "a", "", (), 1, 3, 0, 0.0)])
    assert make == Make("/tree", (Step("a", 3.0),))


@pytest.mark.parametrize("trace", [[], [ran("a", 0, None)], [ran("a", 0, 1, make=1), ran("b", 1, 2, make=2)]])
def test_no_plan(trace: list[Ran]) -> None:
    with pytest.raises(ValueError):
        plan_of(trace)


SLOTS = {"h": 2, "g": 1}


def test_a_good_build_violates_nothing() -> None:
    trace = [ran("a", 0, 2), ran("b", 0, 1), ran("c", 1, 2), ran("d", 0.5, 3, "g"), ran("e", 3, None, "g")]
    assert violations(trace, SLOTS, 3) == []


FULL = [ran("a", 0, 9), ran("b", 0, 9), ran("d", 1, 2, "g")]


@pytest.mark.parametrize(
    ("trace", "word"),
    [
        ([ran("a", 0, 2), ran("b", 0, 2), ran("c", 1, 2)], "h: c is number 3 of 2 at 1"),
        ([ran("a", 0, 2, "g"), ran("k", 1, None, "g")], "g: k is number 2 of 1"),
        ([ran("x", 2.5, 3, "x")], "recipes ran on x"),
        ([*FULL, ran("e", 1.5, 1.7, "x")], "the fleet: e is number 4 of 3"),
    ],
)
def test_a_violation_is_named(trace: list[Ran], word: str) -> None:
    found = violations(trace, SLOTS, 3)
    assert any(word in line for line in found), found


def test_credits_allow_more_until_they_end() -> None:
    record: list[dict[str, object]] = [
        {"event": "host-up", "host": "g"},
        {"event": "credit", "host": "g", "at_s": 1.0, "outstanding": 1},
        {"event": "credit", "host": "g", "at_s": 3.0, "outstanding": 0},
    ]
    extra = credits_of(record)
    trace = [ran("a", 0, 5, "g"), ran("b", 2, 4, "g")]
    assert violations(trace, SLOTS, 3, extra) == []
    assert len(violations(trace, SLOTS, 3)) == 1
    assert debt_s(trace, SLOTS, extra) == {"h": 0, "g": 1.0}
    late = [ran("a", 0, 5, "g"), ran("b", 3.5, 4, "g")]
    assert len(violations(late, SLOTS, 3, extra)) == 1


def test_makes_in_the_background_of_one_recipe_share_its_right() -> None:
    groups = [frozenset({"top.0", "top.1"})]
    pair = [ran("top.0-0", 0, 5, "g"), ran("top.1.0-0", 1, 5, "g")]
    assert violations(pair, SLOTS, 3, None, groups) == []
    assert len(violations(pair, SLOTS, 3)) == 1
    more = [*pair, ran("top.1-1", 2, 5, "g")]  # which needs a token
    assert violations(more, SLOTS, 3, None, groups) == ["g: top.1-1 is number 3 of 2 at 2.0000 s"]
    apart = [ran("top.0-0", 0, 1, "g"), *(ran(f"top.1-{number}", 1, 5, "g") for number in range(2))]
    assert len(violations(apart, SLOTS, 3, None, groups)) == 2


def job(
    number: int, parent: int | None, asked_from: str | None, host: str, placed_s: float, ran_s: float
) -> dict[str, object]:
    names = ("job", "parent", "asked_from", "host", "placed_s", "ran_s")
    values = (number, parent, asked_from, host, placed_s, ran_s)
    return {"event": "job", "local_reason": None, "waited_s": 0.0, **dict(zip(names, values, strict=True))}


def test_credit_and_debt_follow_from_jobs() -> None:
    """A job on g waits from 1 to 3 for one on h; one that was placed on g meanwhile runs until 5."""
    record = [
        job(1, None, None, "g", 0.0, 9.0),
        job(2, 1, "g", "h", 1.0, 2.0),
        job(3, None, None, "g", 2.0, 3.0),
        job(4, None, None, "g", 6.0, 1.0),
        job(5, 1, "g", "g", 7.0, 1.0),  # it stayed
    ]
    assert credits_of(record) == {"g": [(1.0, 1), (5.0, 0)]}
    alone = [record[0], record[1]]
    assert credits_of(alone) == {"g": [(1.0, 1), (3.0, 0)]}
