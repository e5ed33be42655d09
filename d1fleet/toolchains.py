"""Which hosts of a build have the toolchain that their project has. Pure.

Hosts that are enrolled have a record of their project's toolchain: the first one that is up with a record
says what it is, and the others are compared with it. A host that has another toolchain waits for a second
opinion. It is left out when some host has what the record says. It takes part when another one has the same
as it: then they were upgraded since, and what they make fits together. That does not go for hosts that are as
they were enrolled: those had another toolchain from the first, and are nobody's second opinion. Where no host
has a record, nothing says who is right: hosts are compared with the first one that has a compiler, and a
difference is a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .protocol import Hello
from .server.toolchain import NONE, differences, has_compiler

_SHOWN = 2
"""Differences in one message; one is mostly followed by others."""

_IGNORE = "or set d1fleet_toolchain_mismatch: ignore"
_SAME = "bring its packages, links and wrappers to what the other hosts have"
_RENEW = "after an upgrade of all hosts run site.yml again, so that the record is new"
"""The role takes no wrapper away and turns no link: to run it for one host alone mends no difference."""


@dataclass(frozen=True)
class Verdict:
    """What is to be done about a host's toolchain: nothing, when all is empty."""

    reason: str = ""
    """Why it is left out."""
    mend: str = ""
    note: str = ""
    """What has to be said of it, though it takes part."""
    waits: bool = False
    """It takes no part yet: `Toolchains.decided` will have another verdict of it."""


class Toolchains:
    """Judges the hosts of one build as they come up.

    Args:
        project: its name, for messages; empty where there is none.
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self._recorded: tuple[str, Mapping[str, str]] | None = None
        """The project's toolchain by the record, and on whose word."""
        self._expected: Mapping[str, str] = {}
        """What hosts have to have: the same, or what they have been upgraded to."""
        self._first: tuple[str, Mapping[str, str]] | None = None
        """The first host with a compiler and without a record, and what it has."""
        self._without_record: dict[str, Hello] = {}
        """Hosts that were admitted without a record, as long as no other had one either."""
        self._confirmed = False
        """Some host has the toolchain that the hosts are compared with."""
        self._waiting: dict[str, Hello] = {}
        """Hosts that have another one, as long as that is so for all."""
        self.decided: dict[str, Verdict] = {}
        """Verdicts of earlier hosts that changed since; who reads one takes it away."""

    def judge(self, host: str, mismatch: str, hello: Hello) -> Verdict:
        """What a host's hello says of its toolchain. A host is judged at its hello, once
        until it is forgotten.

        Args:
            mismatch: one of MISMATCHES.
        """
        if mismatch == "ignore":
            return Verdict()
        if hello.record_fault:
            return Verdict(
                f"its record of toolchains is not believed: {hello.record_fault}",
                f"run site.yml for it (role toolchain), {_IGNORE}",
            )
        if hello.project_toolchain:
            verdict = self._compare_record(host, hello.project_toolchain)
            return verdict if verdict.reason else self._compare_with_record(host, hello)
        if self._recorded is not None:
            return self._compare_parts(hello)
        self._without_record[host] = hello
        return self._compare_hosts(host, hello)

    def forget(self, host: str) -> None:
        """It is gone, and will be judged anew if it comes again: it is no second opinion on itself."""
        self._waiting.pop(host, None)
        self._without_record.pop(host, None)
        self.decided.pop(host, None)
        if self._first is not None and self._first[0] == host:
            self._first = None

    def _compare_record(self, host: str, record: Mapping[str, str]) -> Verdict:
        if self._recorded is None:
            self._recorded, self._expected = (host, record), record
            for name, hello in self._without_record.items():
                verdict = self._compare_parts(hello)
                if verdict.reason:
                    self.decided[name] = verdict
            self._without_record.clear()
            return Verdict()
        first, expected = self._recorded
        found = differences(expected, record, f"{first}'s")
        found += [f"{name}: only there" for name in record if name not in expected]
        if not found:
            return Verdict()
        return Verdict(
            f"its record of project {self._project}'s toolchain is another than {first}'s: {_some(found)}",
            f"run site.yml for all hosts of the project at once (role toolchain), {_IGNORE}",
        )

    def _compare_with_record(self, host: str, hello: Hello) -> Verdict:
        verdict = self._compare_parts(hello)
        if verdict.reason and not self._confirmed:
            alike = None if hello.as_enrolled else self._alike(hello)
            if alike is None:
                self._waiting[host] = hello
                return Verdict(waits=True)
            note = f"{host} and {alike} have the same toolchain, but their project's record has another: "
            verdict = Verdict(note=f"{note}{verdict.reason.partition(': ')[2]}; run site.yml again")
            found = self._waiting.pop(alike).toolchain
            self._expected = {name: found.get(name, NONE) for name in self._expected}
            self.decided[alike] = Verdict()
        if not verdict.reason:
            self._confirmed = True
            self._leave_out_waiting()
        return verdict

    def _alike(self, hello: Hello) -> str | None:
        """One that waits, was changed since its enrolment, and has the same."""
        changed = (name for name, other in self._waiting.items() if not other.as_enrolled)
        return next((name for name in changed if self._same(self._waiting[name], hello)), None)

    def _same(self, one: Hello, other: Hello) -> bool:
        """Are they the same in all parts of the record, and lack none? A tool is not upgraded away."""
        found = {name: one.toolchain.get(name, NONE) for name in self._expected}
        lacks = any(found[name] == NONE != text for name, text in self._expected.items())
        return not lacks and not differences(found, other.toolchain)

    def _leave_out_waiting(self) -> None:
        for name, hello in self._waiting.items():
            self.decided[name] = self._compare_parts(hello)
        self._waiting.clear()

    def settle(self, alone: bool) -> None:
        """No further host will come: decide of those that wait.

        Args:
            alone: the fleet has one host.
        """
        if alone:
            for name, hello in self._waiting.items():
                reason = self._compare_parts(hello).reason
                self.decided[name] = Verdict(note=f"{reason}; it is alone and takes part; run site.yml again")
            self._waiting.clear()
        self._leave_out_waiting()

    def _compare_parts(self, hello: Hello) -> Verdict:
        if self._recorded is None:
            return Verdict()
        first, expected = self._recorded[0], self._expected
        unknown: list[str] = []
        if not hello.project_toolchain:
            # Without a record it did not know which further tools to look for.
            unknown = [name for name in expected if name not in hello.toolchain]
            expected = {name: text for name, text in expected.items() if name in hello.toolchain}
        found = differences(expected, hello.toolchain, places=hello.toolchain_places)
        if found:
            return Verdict(
                f"its toolchain is not project {self._project}'s: {_some(found)}",
                f"{_SAME}; {_RENEW}; {_IGNORE}",
            )
        if unknown:
            return Verdict(
                f"it has no record of project {self._project}'s toolchain, as {first} has:"
                f" what its {', '.join(unknown[:_SHOWN])} is cannot be told",
                f"run site.yml for it (role toolchain), {_IGNORE}",
            )
        return Verdict()

    def _compare_hosts(self, host: str, hello: Hello) -> Verdict:
        parts = hello.toolchain
        if not has_compiler(parts):
            return Verdict()  # perhaps nobody compiles in this project
        if self._first is None:
            self._first = host, parts
            return Verdict()
        first, expected = self._first
        found = differences(expected, parts, first, hello.toolchain_places)
        if not found:
            return Verdict()
        return Verdict(note=f"its toolchain differs from {first}'s: {found[0]}; objects may not fit together")


def _some(found: list[str]) -> str:
    more = len(found) - _SHOWN
    return "; ".join([*found[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])
