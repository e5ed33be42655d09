"""The pure parts of the benchmarks: medians, ratios, verdicts, the table, what is read from files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import processes, stats, table
from bench.builds import Folder
from bench.stats import Row, Sample, at_least, at_most
from bench.tail import Arrivals, Tail


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.0123, "0.012"),
        (0.35, "0.35"),
        (1.236, "1.24"),
        (9.999, "10.0"),
        (28.44, "28.4"),
        (99.96, "100"),
        (612.7, "613"),
        (-1.236, "-1.24"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert stats.number(value) == text


def test_a_row_shows_the_median_and_the_outermost_rounds() -> None:
    row = stats.row("job", Sample((9.0, 1.0, 2.0), "ms"), at_most(2, "ms"))
    assert row == Row("job", "2 ms", "1 .. 9", "", "<= 2 ms", "reached")


@pytest.mark.parametrize(
    ("target", "figure", "verdict"),
    [
        (at_most(1, "ms"), 1.0, "reached"),
        (at_most(1, "ms"), 1.01, "MISSED"),
        (at_least(600, "ms"), 600.0, "reached"),
        (at_least(600, "ms"), 599.0, "MISSED"),
        (None, 7.0, ""),
    ],
)
def test_verdicts(target: stats.Target | None, figure: float, verdict: str) -> None:
    assert stats.row("x", Sample((figure,), "ms"), target).verdict == verdict


def test_a_ratio_is_that_of_the_medians_and_shows_both() -> None:
    ours, theirs = Sample((1.0, 3.0, 2.0), "ms"), Sample((8.0, 7.0, 90.0), "ms")
    row = stats.ratio_row("ssh : ours", theirs, ours, at_least(3, "x"))
    assert (row.measured, row.ratio, row.verdict) == ("8 : 2 ms", "4 x", "reached")
    assert stats.ratio_row("ours : ssh", ours, theirs, at_least(3, "x")).verdict == "MISSED"


def test_different_units_are_never_compared() -> None:
    with pytest.raises(ValueError, match="ms against s"):
        stats.ratio_row("x", Sample((1.0,), "ms"), Sample((1.0,), "s"))
    with pytest.raises(ValueError, match="wanted in s"):
        stats.row("x", Sample((1.0,), "ms"), at_most(1, "s"))
    with pytest.raises(ValueError, match="rounds or units"):
        stats.difference(Sample((1.0,), "ms"), Sample((1.0, 2.0), "ms"))


def test_a_difference_is_taken_round_by_round() -> None:
    # The second round was disturbed, for both.
    assert stats.difference(Sample((3.0, 13.0), "ms"), Sample((2.0, 12.0), "ms")).values == (1.0, 1.0)


def test_rates_and_durations() -> None:
    assert Sample((2.0, 4.0), "ms").inverted(1000, "/s").values == (500.0, 250.0)
    assert Sample((2.0,), "s").scaled(1000, "ms") == Sample((2000.0,), "ms")


def test_a_sample_has_a_value() -> None:
    with pytest.raises(ValueError, match="without a value"):
        Sample((), "ms")


def test_columns_of_the_table_stand_below_each_other() -> None:
    rows = [
        stats.row("short", Sample((1.0,), "ms"), at_most(1, "ms")),
        stats.row("a longer name", Sample((1234.0, 5.0, 6.0), "ms")),
        stats.failed("broken", "x" * 300),
    ]
    shown = table.lines([("Title", rows)])
    assert shown[2] == "Title" and len(shown) == 6
    at = shown[0].index("target")
    assert shown[3].index("<= 1 ms") == at
    assert len(shown[0]) < 120  # a long reason widens nothing
    assert shown[5].startswith("broken") and shown[5].endswith("FAILED") and "x" * 300 in shown[5]


def test_a_busy_machine_casts_doubt_on_verdicts_alone() -> None:
    rows = [Row("a", verdict="reached"), Row("b", verdict="MISSED"), Row("c"), stats.failed("d", "why")]
    table.doubt(rows)
    assert [row.verdict for row in rows] == ["reached?", "MISSED?", "", "FAILED"]


def test_a_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tail = Tail(log)
    assert tail.lines() == []
    log.write_bytes(b"one\ntw")
    assert tail.lines() == ["one"]
    with open(log, "ab") as file:
        file.write(b"o\n")
    assert tail.lines() == ["two"]
    assert Tail(log, from_end=True).lines() == []


def test_arrivals_are_counted_by_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("host-up a\nhost-failed b\nhost-up c\n")
    arrivals = Arrivals([Tail(log)], ["host-up", "host-failed"])
    arrivals.look()
    arrivals.look()
    assert {text: len(times) for text, times in arrivals.times.items()} == {"host-up": 2, "host-failed": 1}


def test_gates_of_a_makefile_follow_each_other(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "tree")
    folder.write([("warm", 1), ("run", 2)], "JOB")
    text = (folder.path / "Makefile").read_text()
    assert "warm0: warm\n\t@JOB\n" in text
    assert "run: warm warm0\n" in text
    assert "run0 run1: run\n\t@JOB\n" in text
    assert "done: run run0 run1\n" in text


def test_this_process_has_memory_and_has_used_cpu() -> None:
    own = processes.memory([os.getpid()])
    assert 0 < own.pss <= own.rss <= own.peak
    both = processes.memory([os.getpid(), os.getpid()])
    assert both.rss > own.rss
    assert processes.cpu_seconds([os.getpid()]) > 0
