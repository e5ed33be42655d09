"""`d1fleet doctor`: asks all hosts of a project at once, and judges what they say.

    logins -> clocks and facts -> trees anew, and compilations -> logs of servers that failed -> findings

Everything has a limit; a host that is late is said to be so, and the others are judged.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import distcc, doctor_checks, doctor_distcc, tree
from .connect import Connector, Logins
from .doctor_canaries import PAIR_LIMIT_S, PHASE_LIMIT_S, SIGN, Pair, Plan, compilers, pairs
from .doctor_case import Case, Here, Seen
from .doctor_facts import Canary, Facts, Fresh, Log
from .doctor_talks import START_LIMIT_S, Clock, Talk, let_go, wait
from .environment import TravellingEnvironment
from .errors import ConnectError, D1fleetError, TreeError
from .findings import FAULT, WARNING, Finding, Mend
from .fleet import Fleet
from .loop import Loop
from .model import Host
from .settings import Settings
from .transport import launcher
from .words import counted

FACTS_LIMIT_S = 15.0
"""A cold look at a toolchain takes some seconds on a slow disk."""

FRESH_LIMIT_S = 6.0
"""What is not seen by then is not seen in useful time; NFS may take 60 s."""

_LOG_LIMIT_S = 5.0
_PINGS = 5
"""Of the answers to so many questions for the time the fastest counts."""

_SPARE_S = 5.0


@dataclass
class Examined:
    """A project, as it was found.

    Attributes:
        checked: what was looked at, for people.
        not_checked: what was not, and why.
        took_s: seconds.
    """

    case: Case
    findings: list[Finding]
    checked: list[str]
    not_checked: dict[str, str]
    took_s: float = 0.0


@dataclass
class _Trees:
    """Folders that hosts have to share, with the files by which they prove it."""

    proofs: list[tree.Tree] = field(default_factory=list)
    clocks_s: list[float | None] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def folders(self) -> list[str]:
        return [os.fsdecode(each.folder) for each in self.proofs]


def examine(
    settings: Settings, fleet: Fleet, variables: Mapping[str, Mapping[str, Any]], folder: str | None
) -> Examined:
    """Examine the hosts of a fleet.

    Args:
        variables: the inventory's, by host.
        folder: that of a build, which hosts have to share; None: they share none.
    """
    began = time.monotonic()
    loop = Loop()
    connector = Connector(settings.ssh_config, settings.ssh_options, settings.connect_timeout_s)
    wanted = [
        *([folder] if folder else []),
        *settings.trees,
        *(each for host in fleet.hosts for each in host.trees),
    ]
    with _proven(list(dict.fromkeys(wanted))) as trees:
        doctor = _Doctor(loop, settings, fleet, trees, folder)
        try:
            doctor.ask_all(Logins(loop, connector, lambda host: True), settings.connect_timeout_s, variables)
        finally:
            for talk in doctor.talks:
                talk.close()
            let_go(loop)
            connector.close()
            loop.close()
    case, not_checked = doctor.case, doctor.not_checked
    checks = [*doctor_checks.CHECKS, *(doctor_distcc.CHECKS if case.has_distcc else ())]
    findings = [*trees.findings, *(finding for _, check in checks for finding in check(case))]
    checked = [name for name, _ in checks if name and not (name in ("trees", "mounts") and not trees.proofs)]
    count = sum(isinstance(each, Canary) for seen in case.hosts for each in seen.canaries.values())
    if count:
        checked.append(f"{counted(count, 'pair')} of hosts by a compilation")
    return Examined(case, findings, checked, not_checked, time.monotonic() - began)


@contextlib.contextmanager
def _proven(folders: Sequence[str]) -> Iterator[_Trees]:
    """Files in each folder that hosts are asked for, and a look at its clock; gone at the end."""
    trees = _Trees()
    try:
        for number, folder in enumerate(folders):
            try:
                proof = tree.prove(number, os.fsencode(folder))
            except TreeError as error:
                trees.findings.append(Finding("tree-here", FAULT, "", error.message, Mend(error.mend)))
                continue
            trees.proofs.append(proof)
            trees.clocks_s.append(time.time() - os.stat(proof.nonce).st_mtime)
        yield trees
    finally:
        for proof in trees.proofs:
            tree.forget(proof)
            with contextlib.suppress(OSError):
                os.unlink(proof.nonce + b".2")


class _Doctor:
    """One examination, phase by phase."""

    def __init__(
        self, loop: Loop, settings: Settings, fleet: Fleet, trees: _Trees, folder: str | None
    ) -> None:
        self._loop = loop
        self._trees = trees
        self._project = fleet.project
        self.not_checked: dict[str, str] = {}
        here = Here(os.geteuid(), os.getegid(), _user(), tuple(trees.folders), tuple(trees.clocks_s))
        self.case = Case(fleet.project, here, [Seen(host) for host in fleet.hosts])
        start = [name + b"=" + value for name, value in os.environb.items()]
        keep = [os.fsencode(name) for name in settings.keep_environment]
        self._common = {folder, *settings.trees}
        self.talks = [
            Talk(
                loop,
                host,
                TravellingEnvironment(start, b"\0", keep, host.transport != "local").start_block,
                host.setup or settings.setup,
            )
            for host in fleet.hosts
        ]
        self._by_name = {talk.host.name: talk for talk in self.talks}
        self._open = 0
        """Questions, and logins, that are under way."""

    def ask_all(
        self, logins: Logins, login_limit_s: float, variables: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """All phases."""
        self.case.variables = {seen.name: variables.get(seen.name, {}) for seen in self.case.hosts}
        for talk, seen in zip(self.talks, self.case.hosts, strict=True):
            self._log_in(logins, talk, seen)
        limit_s = login_limit_s + START_LIMIT_S + FACTS_LIMIT_S + _SPARE_S
        wait(self._loop, lambda: not self._open, limit_s)
        for talk in self.talks:
            if talk.transport == "" and talk.error is None:
                talk.fail(ConnectError(f"no login within {limit_s:.0f} s", "is the host up?"))
        self._ask_trees()
        self._compile()
        self._read_logs()
        for talk, seen in zip(self.talks, self.case.hosts, strict=True):
            seen.error, seen.transport = talk.error, talk.transport

    # -- logins, clocks, facts ------------------------------------------------------------------------

    def _log_in(self, logins: Logins, talk: Talk, seen: Seen) -> None:
        self._open += 1
        over = _once(self._closed)
        talk.on_ready = lambda: self._ask_clock(talk, seen, _PINGS, over)
        talk.on_failed = over
        logins.begin(talk.host, talk.connected, talk.fail)

    def _closed(self) -> None:
        self._open -= 1

    def _ask_clock(self, talk: Talk, seen: Seen, left: int, over: Callable[[], None]) -> None:
        def answered(clock: Clock | D1fleetError) -> None:
            if isinstance(clock, D1fleetError):
                over()
                return
            if seen.clock is None or clock.within_s < seen.clock.within_s:
                seen.clock = clock
            if left > 1:
                self._ask_clock(talk, seen, left - 1, over)
            else:
                self._ask_facts(talk, seen, over)

        talk.ask_clock(answered)

    def _ask_facts(self, talk: Talk, seen: Seen, over: Callable[[], None]) -> None:
        numbers = self._numbers_for(talk.host)
        given = {
            "project": self._project,
            "installed": launcher.INSTALLED,
            "launcher": launcher.INSTALLED_LAUNCHER,
            "hash": launcher.server_hash(),
            "folders": [self._question(number) for number in numbers],
        }

        def answered(found: Facts | D1fleetError) -> None:
            if isinstance(found, D1fleetError):
                talk.fail(found)
            elif len(found.trees) == len(numbers):
                every = dict(zip(numbers, found.trees, strict=True))
                trees = tuple(every.get(number) for number in range(len(self._trees.proofs)))
                seen.facts = replace(found, trees=trees)
            over()

        talk.ask("facts", Facts, given, FACTS_LIMIT_S, answered)

    def _numbers_for(self, host: Host) -> list[int]:
        """Trees that this host has to share."""
        folders = self._trees.folders
        return [n for n, each in enumerate(folders) if each in self._common or each in host.trees]

    def _question(self, number: int) -> dict[str, str]:
        proof = self._trees.proofs[number]
        return {
            "folder": os.fsdecode(proof.folder),
            "nonce": os.fsdecode(proof.nonce),
            "content": proof.content.decode(),
        }

    # -- trees, a second time ---------------------------------------------------------------------------

    def _ask_trees(self) -> None:
        """Change what hosts have just looked at, and see when they see that."""
        for proof in self._trees.proofs:
            with contextlib.suppress(OSError):
                proof.content += secrets.token_hex(8).encode()
                with open(proof.nonce, "r+b") as file:
                    file.write(proof.content)
                    file.flush()
                    os.fsync(file.fileno())
                with open(proof.nonce + b".2", "xb"):
                    pass
        for talk, seen in zip(self.talks, self.case.hosts, strict=True):
            if seen.facts is None or talk.host.transport == "local":
                continue
            for number in self._numbers_for(talk.host):
                known = seen.facts.trees[number]
                if known is not None and not known.difference:
                    self._ask_tree(talk, seen, number)

    def _ask_tree(self, talk: Talk, seen: Seen, number: int) -> None:
        self._open += 1

        def answered(found: Fresh | D1fleetError) -> None:
            self._closed()
            if isinstance(found, Fresh):
                seen.fresh[number] = found

        talk.ask("tree", Fresh, self._question(number), FRESH_LIMIT_S, answered)

    # -- compilations -------------------------------------------------------------------------------------

    def _compile(self) -> None:
        if not self.case.has_distcc:
            why = (
                "no host of this project has it by our roles"
                if self._project
                else "hosts are named by --hosts"
            )
            self.not_checked["distcc"] = why
            wait(self._loop, lambda: not self._open, FRESH_LIMIT_S + _SPARE_S)
            return
        every = list(pairs(self.case))
        plan = Plan(every)
        self._start(plan)
        if not wait(self._loop, lambda: plan.done, PHASE_LIMIT_S):
            plan.stop()
        wait(self._loop, lambda: not self._open, PAIR_LIMIT_S + _SPARE_S)
        if plan.given_up:
            some = ", ".join(f"{each.client} on {each.peer.name}" for each in plan.given_up[:4])
            self.not_checked[f"{counted(len(plan.given_up), 'more pair')} of hosts by a compilation"] = (
                f"too late ({some} ...)"
            )
        asked = dict.fromkeys(pair.peer.name for pair in every)
        lost = [name for name in asked if doctor_distcc.around(self.case, name) is None]
        if lost:
            self.not_checked["the confinement of compilations"] = f"none came back from {', '.join(lost)}"

    def _start(self, plan: Plan) -> None:
        for pair in plan.start():
            self._try(plan, pair)

    def _try(self, plan: Plan, pair: Pair) -> None:
        seen = self.case.named(pair.client)
        assert seen is not None
        self._open += 1

        def answered(found: Canary | D1fleetError) -> None:
            self._closed()
            seen.canaries[pair.peer.name] = found
            late = isinstance(found, D1fleetError) or any(
                each.status == doctor_distcc.TOO_LATE for each in found.tries
            )
            plan.ended(pair, too_late=late)
            self._start(plan)

        given = {
            "entry": str(pair.peer),
            "address": pair.peer.address,
            "port": pair.peer.port,
            "ssh": pair.peer.ssh,
            "ssh_program": str(distcc.SSH),
            "compilers": compilers(seen),
            "look": doctor_distcc.around(self.case, pair.peer.name) is None,
            "sign": SIGN,
            "hidden": list(self.case.here.trees),
        }
        self._by_name[pair.client].ask("canary", Canary, given, PAIR_LIMIT_S, answered)

    # -- logs -----------------------------------------------------------------------------------------------

    def _read_logs(self) -> None:
        failed = {
            name
            for seen in self.case.hosts
            for name, canary in seen.canaries.items()
            if isinstance(canary, Canary) and any(each.status for each in canary.tries)
        }
        for name in failed:
            seen = self.case.named(name)
            if seen is not None:
                self._read_log(seen)
        wait(self._loop, lambda: not self._open, _LOG_LIMIT_S + _SPARE_S)

    def _read_log(self, seen: Seen) -> None:
        self._open += 1

        def answered(found: Log | D1fleetError) -> None:
            self._closed()
            if isinstance(found, Log):
                seen.log = found

        self._by_name[seen.name].ask("log", Log, {}, _LOG_LIMIT_S, answered)


def _once(call: Callable[[], None]) -> Callable[[], None]:
    """What can be called by several, and is carried out for the first."""
    calls = [call]

    def first() -> None:
        if calls:
            calls.pop()()

    return first


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "?"


def worst(findings: Sequence[Finding]) -> str:
    """The worst severity; empty where there is none."""
    found = {each.severity for each in findings}
    return FAULT if FAULT in found else WARNING if WARNING in found else ""
