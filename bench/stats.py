"""Samples, ratios, targets and rows of the table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One quantity, measured once a round; the median is what counts."""

    values: tuple[float, ...]
    unit: str

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a sample without a value")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def scaled(self, factor: float, unit: str) -> Sample:
        """The same quantity in another unit."""
        return Sample(tuple(value * factor for value in self.values), unit)

    def inverted(self, factor: float, unit: str) -> Sample:
        """A rate for a duration, and back: `factor` divided by each value."""
        return Sample(tuple(factor / value for value in self.values), unit)


def difference(one: Sample, other: Sample) -> Sample:
    """`one` less `other`, round by round: what disturbs a whole round falls out.

    Raises:
        ValueError: they are not of the same rounds, or of different units.
    """
    if len(one.values) != len(other.values) or one.unit != other.unit:
        raise ValueError("samples of different rounds or units")
    return Sample(tuple(a - b for a, b in zip(one.values, other.values, strict=True)), one.unit)


@dataclass(frozen=True)
class Target:
    """A bound for a figure, as the design names it."""

    bound: float
    at_most: bool = True
    unit: str = ""

    def reached(self, figure: float) -> bool:
        return figure <= self.bound if self.at_most else figure >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {number(self.bound)} {self.unit}".rstrip()


def at_most(bound: float, unit: str) -> Target:
    return Target(bound, True, unit)


def at_least(bound: float, unit: str) -> Target:
    return Target(bound, False, unit)


@dataclass
class Row:
    """One line of the table."""

    what: str
    measured: str = ""
    spread: str = ""
    """Lowest and highest round; empty for a single one."""
    ratio: str = ""
    target: str = ""
    verdict: str = ""
    """reached, MISSED, FAILED, or empty where there is no target."""


def row(what: str, sample: Sample, target: Target | None = None) -> Row:
    """The line of a quantity: its median, and whether that reaches the target.

    Raises:
        ValueError: the target is in another unit.
    """
    if target is not None and target.unit != sample.unit:
        raise ValueError(f"{what}: measured in {sample.unit}, wanted in {target.unit}")
    return Row(
        what,
        measured=f"{number(sample.median)} {sample.unit}".rstrip(),
        spread=spread(sample.values),
        target=str(target) if target is not None else "",
        verdict=_verdict(target, sample.median),
    )


def ratio_row(what: str, dividend: Sample, divisor: Sample, target: Target | None = None) -> Row:
    """The line of a ratio of medians, with both of them beside it.

    Raises:
        ValueError: the samples are in different units.
    """
    if dividend.unit != divisor.unit:
        raise ValueError(f"{what}: {dividend.unit} against {divisor.unit}")
    figure = dividend.median / divisor.median if divisor.median else float("inf")
    return Row(
        what,
        measured=f"{number(dividend.median)} : {number(divisor.median)} {dividend.unit}".rstrip(),
        ratio=f"{number(figure)} x",
        target=str(target) if target is not None else "",
        verdict=_verdict(target, figure),
    )


def _verdict(target: Target | None, figure: float) -> str:
    if target is None:
        return ""
    return "reached" if target.reached(figure) else "MISSED"


def failed(what: str, reason: str) -> Row:
    """The line of a measurement that did not come about."""
    return Row(what, measured=reason, verdict="FAILED")


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    size = abs(value)
    if size >= 99.95 or value == int(value):
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.0995 else f"{value:.3f}"


def spread(values: Sequence[float]) -> str:
    return f"{number(min(values))} .. {number(max(values))}" if len(values) > 1 else ""
